# SPDX-License-Identifier: Apache-2.0
"""A cluster in one SQLite file: what a laptop has in place of an API server and its controllers.

It keeps objects as an API server does (versions, generations, watches, selectors, finalizers, owner references,
schemas), for several processes at once. Nothing runs in it: Pods are started by the PodRunner, Deployments are
carried out by `nereid_cloud.laptop.deployments`.
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from nereid_cloud import definitions
from nereid_cloud.cluster import kinds, local_deletion, local_logs, ownership, schema
from nereid_cloud.cluster.kinds import kind_of, ref_of
from nereid_cloud.cluster.local_admission import Admission, named
from nereid_cloud.cluster.local_store import Store, Stored, Transaction
from nereid_cloud.cluster.local_watch import Pulse, seen_through
from nereid_cloud.cluster.merge import merge_patch
from nereid_cloud.cluster.port import Kind, Object, ObjectList, Ref, WatchEvent
from nereid_cloud.cluster.selectors import Predicate, field_selector, label_selector
from nereid_shared.errors import AlreadyExists, Conflict, FieldCause, Forbidden, Gone, Invalid, NotFound

DATABASE: Final = "cluster.db"  # in a state folder
HISTORY: Final = 5_000  # changes kept for watches, which lag by seconds: a minute of a busy laptop, some 30 MB
EVENTS_KEPT_S: Final = 3600.0  # as an API server keeps them
_NAMESPACES: Final = ("default", "kube-system", "kube-public", "kube-node-lease")
_PAGE: Final = 500  # changes that a watch reads at once


class LocalCluster:
    """The port `Cluster` over one SQLite file."""

    def __init__(
        self,
        path: Path,
        *,
        crds: Iterable[Object] | None = None,
        history: int = HISTORY,
        events_kept_s: float = EVENTS_KEPT_S,
    ) -> None:
        """Open the cluster; make it where the file is absent.

        Args:
            path: the database file; other processes may have it open too.
            crds: definitions of the custom resources; the generated ones where None.
            history: changes that are kept for watches, at least.
            events_kept_s: how long an Event stays after it was last written.

        Raises:
            UserError: the file is not a cluster's database.
        """
        self._admission = Admission(definitions.load if crds is None else lambda: crds)
        self._store = Store(path, history=history)
        self._events_kept_s = events_kept_s
        self._pulse = Pulse(self._store)
        with self._store.read() as transaction:
            fresh = transaction.find(kinds.NAMESPACE, "", "kube-system") is None
        if fresh:
            self._make_namespaces()

    def _make_namespaces(self) -> None:
        for name in _NAMESPACES:
            with self._writing() as transaction:
                if transaction.find(kinds.NAMESPACE, "", name) is None:
                    obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                    created = self._admission.created(kinds.NAMESPACE, obj)
                    transaction.put(kinds.NAMESPACE, created, before=None, applied={})

    @contextmanager
    def _writing(self, *, dry_run: bool = False) -> Iterator[Transaction]:
        with self._store.write(dry_run=dry_run) as transaction:
            yield transaction
        if not dry_run:
            self._pulse.beat()

    def identity(self) -> str:
        """Return the UID of ``kube-system``, made with the file."""
        uid: str = self.get(Ref(kind=kinds.NAMESPACE, name="kube-system"))["metadata"]["uid"]
        return uid

    def get(self, ref: Ref) -> Object:
        """Return one object."""
        with self._store.read() as transaction:
            return _found(transaction, ref).object

    def list(self, kind: Kind, *, namespace: str | None = None, labels: str = "", fields: str = "") -> ObjectList:
        """Return the objects that match; namespace None means all of them."""
        matches = _selected(kind, labels, fields)
        with self._store.read() as transaction:
            revision = transaction.revision()
            items = [obj for obj in transaction.objects(kind, _place(kind, namespace)) if matches(obj)]
        return ObjectList(items=items, resource_version=str(revision))

    def watch(
        self,
        kind: Kind,
        *,
        resource_version: str,
        stop: threading.Event,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        timeout_s: float = 300.0,
    ) -> Iterator[WatchEvent]:
        """Yield the changes after `resource_version` until `stop` is set or `timeout_s` has passed.

        The last event is then a BOOKMARK. From version ``0`` or none, what exists comes first as ADDED.

        Raises:
            Gone: that version is too old, or of another cluster's file; list again.
        """
        matches, after = _selected(kind, labels, fields), int(resource_version or 0)
        deadline = time.monotonic() + timeout_s
        with self._pulse.watching(stop):
            if after == 0:
                present = self.list(kind, namespace=namespace, labels=labels, fields=fields)
                after = int(present.resource_version)
                yield from (WatchEvent(type="ADDED", object=obj) for obj in present.items)
            seen, ended = -1, False
            while not ended:
                # Looked at after the end, too: however short its time, a watch yields what was there at its beginning.
                seen = self._pulse.wait(seen, stop, deadline - time.monotonic())
                ended = time.monotonic() >= deadline
                if stop.is_set() or self._pulse.closed:
                    break
                more = True
                while more:
                    events, after, more = self._changes(kind, _place(kind, namespace), after, matches)
                    yield from events
        yield WatchEvent(type="BOOKMARK", object={"metadata": {"resourceVersion": str(after)}})

    def _changes(
        self, kind: Kind, namespace: str | None, after: int, matches: Predicate
    ) -> tuple[Sequence[WatchEvent], int, bool]:
        """Return a page of events, the version that it reaches, and whether there is another page."""
        with self._store.read() as transaction:
            revision = transaction.revision()
            if after < transaction.pruned() or after > revision:
                raise Gone(f"too old resource version: {after} ({transaction.pruned()})")
            page = transaction.changes(kind, namespace, after=after, limit=_PAGE)
        more = len(page) == _PAGE
        reached = int(page[-1].object["metadata"]["resourceVersion"]) if more else revision
        events = [event for change in page if (event := seen_through(matches, change)) is not None]
        return events, reached, more

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Create an object. Raises `AlreadyExists`, `Invalid`."""
        kind = kind_of(obj)
        with self._writing(dry_run=dry_run) as transaction:
            return self._create(transaction, kind, self._parsed(kind, obj), applied={})

    def _parsed(self, kind: Kind, obj: Object) -> Object:
        parsed = self._admission.parsed(kind, obj)
        if namespace := ref_of(parsed).namespace:
            parsed["metadata"]["namespace"] = namespace
        else:
            parsed["metadata"].pop("namespace", None)
        return parsed

    def _create(self, transaction: Transaction, kind: Kind, obj: Object, *, applied: Mapping[str, Any]) -> Object:
        if obj["metadata"].get("resourceVersion"):
            cause = FieldCause(field="metadata.resourceVersion", message="must not be set on objects to be created")
            raise Invalid(named(kind, obj["metadata"].get("name", "")), (cause,))
        if kind.namespaced:
            _check_namespace(transaction, kind, obj)
        created = self._admission.created(kind, obj)
        metadata = created["metadata"]
        if transaction.find(kind, metadata.get("namespace", ""), metadata["name"]) is not None:
            raise AlreadyExists(f"{named(kind, metadata['name'])} already exists")
        if kind == kinds.EVENT:
            for expired in transaction.written_before(kind, time.time() - self._events_kept_s):
                transaction.remove(kind, expired)
        stored = transaction.put(kind, created, before=None, applied=applied)
        if metadata.get("ownerReferences"):
            local_deletion.collect(transaction, stored)
        return stored

    def replace(self, obj: Object) -> Object:
        """Replace an object whose metadata carries the resourceVersion it was read with. Raises `Conflict`."""
        kind = kind_of(obj)
        with self._writing() as transaction:
            parsed = self._parsed(kind, obj)
            stored = _found(transaction, ref_of(parsed))
            if not parsed["metadata"].get("resourceVersion") and "." in kind.group:
                cause = FieldCause(
                    field="metadata.resourceVersion", message="Invalid value: 0: must be specified for an update"
                )
                raise Invalid(named(kind, parsed["metadata"]["name"]), (cause,))
            return self._update(transaction, kind, parsed, stored)

    def _update(self, transaction: Transaction, kind: Kind, obj: Object, stored: Stored) -> Object:
        old = stored.object
        _check_version(kind, obj, old)
        updated = self._admission.updated(kind, obj, old)
        keys = self._admission.list_keys(kind)
        applied = ownership.still_owned(stored.applied, old, updated, keys)
        return self._store_update(transaction, kind, updated, old, applied)

    def _store_update(
        self, transaction: Transaction, kind: Kind, updated: Object, old: Object, applied: Mapping[str, Any]
    ) -> Object:
        if updated == old:
            # Nothing changed: no new version, and no event. Who applied what may have.
            transaction.set_applied(old["metadata"]["uid"], applied)
            return old
        if local_deletion.released(transaction, updated):
            local_deletion.remove(transaction, updated)
            return updated
        return transaction.put(kind, updated, before=old, applied=applied)

    def apply(self, obj: Object, *, manager: str, dry_run: bool = False) -> Object:
        """Server-side apply: create or merge; what `manager` applied before and no longer names vanishes."""
        kind = kind_of(obj)
        with self._writing(dry_run=dry_run) as transaction:
            # Parsed for its refusals only: a default is not something that the manager applied.
            self._parsed(kind, obj)
            config = _configuration(kind, obj)
            keys = self._admission.list_keys(kind)
            ref = ref_of(config)
            stored = transaction.find(kind, ref.namespace, ref.name)
            if stored is None:
                _, applied = ownership.applied_to({}, config, {}, manager=manager, keys=keys)
                return self._create(transaction, kind, self._parsed(kind, config), applied=applied)
            _check_version(kind, config, stored.object)
            result, applied = ownership.applied_to(stored.object, config, stored.applied, manager=manager, keys=keys)
            updated = self._admission.updated(kind, self._parsed(kind, result), stored.object)
            return self._store_update(transaction, kind, updated, stored.object, applied)

    def patch(self, ref: Ref, patch: Mapping[str, Any], *, subresource: Literal["", "status"] = "") -> Object:
        """JSON merge patch (RFC 7386) of an object or its status."""
        with self._writing() as transaction:
            stored = _found(transaction, ref)
            old = stored.object
            result = self._parsed(ref.kind, merge_patch(old, patch))
            uid = result["metadata"].get("uid")
            if uid not in (None, old["metadata"]["uid"]):
                cause = schema.invalid_value("metadata.uid", uid, "field is immutable")
                raise Invalid(named(ref.kind, ref.name), (cause,))
            if subresource == "":
                return self._update(transaction, ref.kind, result, stored)
            if not self._admission.has_status(ref.kind):
                raise NotFound(f"{ref.kind.resource} has no status subresource")
            _check_version(ref.kind, result, old)
            updated = self._admission.with_status(ref.kind, result, old)
            return self._store_update(transaction, ref.kind, updated, old, stored.applied)

    def delete(
        self,
        ref: Ref,
        *,
        uid: str | None = None,
        grace_s: int | None = None,
        propagation: local_deletion.Propagation = "Background",
    ) -> None:
        """Delete an object, or mark it where finalizers or a grace period keep it."""
        with self._writing() as transaction:
            obj = _found(transaction, ref).object
            if uid is not None and uid != obj["metadata"]["uid"]:
                raise Conflict(
                    f"{named(ref.kind, ref.name)}: Precondition failed: UID in precondition: {uid}, "
                    f"UID in object meta: {obj['metadata']['uid']}"
                )
            if ref.kind == kinds.NAMESPACE and ref.name in _NAMESPACES:
                raise Forbidden(f'namespaces "{ref.name}" is forbidden: this namespace may not be deleted')
            local_deletion.delete(transaction, obj, grace_s=grace_s, propagation=propagation)

    def logs(
        self, ref: Ref, *, container: str = "", follow: bool = False, tail: int | None = None, previous: bool = False
    ) -> Iterator[str]:
        """Yield the lines that a Pod's container wrote; following ends with the container's run."""
        pod = self.get(ref)
        file = local_logs.container_log(pod, container, previous=previous)

        def ended() -> bool:
            with self._store.read() as transaction:
                found = transaction.with_uid(pod["metadata"]["uid"])
            return found is None or (found.object.get("status") or {}).get("phase") in {"Succeeded", "Failed"}

        return local_logs.lines(file, tail=tail, follow=follow and not previous, ended=ended)

    def close(self) -> None:
        """Release connections and files, and end the watches."""
        self._pulse.close()
        self._store.close()


def _selected(kind: Kind, labels: str, fields: str) -> Predicate:
    by_label, by_field = label_selector(labels), field_selector(fields, kind.kind)
    return lambda obj: by_label(obj) and by_field(obj)


def _configuration(kind: Kind, obj: Object) -> Object:
    """Return what a manager applies, as a copy."""
    config: Object = json.loads(json.dumps(obj))
    metadata = config["metadata"] = config.get("metadata") or {}
    metadata.pop("managedFields", None)
    if not metadata.get("name"):
        cause = FieldCause(field="metadata.name", message="Required value: name is required")
        raise Invalid(named(kind, ""), (cause,))
    return config


def _place(kind: Kind, namespace: str | None) -> str | None:
    return namespace if kind.namespaced else None


def _found(transaction: Transaction, ref: Ref) -> Stored:
    namespace = ref.namespace or "default" if ref.kind.namespaced else ""
    stored = transaction.find(ref.kind, namespace, ref.name)
    if stored is None:
        raise NotFound(f"{named(ref.kind, ref.name)} not found")
    return stored


def _check_namespace(transaction: Transaction, kind: Kind, obj: Object) -> None:
    name = obj["metadata"]["namespace"]
    home = transaction.find(kinds.NAMESPACE, "", name)
    if home is None:
        raise NotFound(f'namespaces "{name}" not found')
    if "deletionTimestamp" in home.object["metadata"]:
        raise Forbidden(
            f"{named(kind, obj['metadata'].get('name', ''))} is forbidden: unable to create new content in "
            f"namespace {name} because it is being terminated"
        )


def _check_version(kind: Kind, obj: Object, old: Object) -> None:
    asked = obj["metadata"].get("resourceVersion")
    if asked and asked != old["metadata"]["resourceVersion"]:
        raise Conflict(
            f"Operation cannot be fulfilled on {named(kind, old['metadata']['name'])}: the object has been modified; "
            "please apply your changes to the latest version and try again"
        )
