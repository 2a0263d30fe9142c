# SPDX-License-Identifier: Apache-2.0
"""The cluster port over a Kubernetes API server."""

import math
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from nereid_cloud.cluster import kinds, kubernetes_watch
from nereid_cloud.cluster.kinds import kind_of, ref_of
from nereid_cloud.cluster.kubernetes_http import APPLY_PATCH, MERGE_PATCH, Api, path_of, path_of_ref
from nereid_cloud.cluster.port import Kind, Object, ObjectList, Ref, WatchEvent

# The server begins to answer a watch at once, sends a bookmark each minute, and ends it at its time-out; where it does
# neither, it is gone.
_SILENCE_S: Final = 5.0
_QUIET_S: Final = 90.0
_BEGIN_S: Final = 30.0
_LOG_READ_S: Final = 30.0
_STRICT: Final = {"fieldValidation": "Strict"}


class KubernetesCluster:
    """The port `Cluster` over the official client's connections, for several threads."""

    def __init__(
        self, *, kubeconfig: Path | None = None, context: str | None = None, quiet_s: float = _QUIET_S
    ) -> None:
        """Read the credentials; nothing is sent yet.

        Args:
            kubeconfig: None for the credentials that a Pod has.
            context: one of the kubeconfig's; its current one where None.
            quiet_s: silence after which a watch ends as half-open; more than a minute, the bookmarks' rhythm.

        Raises:
            UserError: the kubeconfig or its context cannot be used.
        """
        self._api = Api(kubeconfig, context)
        self._quiet_s = quiet_s
        self._closed = threading.Event()

    def identity(self) -> str:
        """Return the cluster's own id: the UID of ``kube-system``."""
        uid: str = self.get(Ref(kind=kinds.NAMESPACE, name="kube-system"))["metadata"]["uid"]
        return uid

    def get(self, ref: Ref) -> Object:
        """Return one object."""
        return self._api.call("GET", path_of_ref(ref))

    def list(self, kind: Kind, *, namespace: str | None = None, labels: str = "", fields: str = "") -> ObjectList:
        """Return the objects that match Kubernetes label and field selectors; namespace None means all of them."""
        query = {"labelSelector": labels, "fieldSelector": fields}
        answer = self._api.call("GET", path_of(kind, namespace=namespace), query=query)
        # The items of a list of built-in kinds come without their type.
        type_ = {"apiVersion": kind.api_version, "kind": kind.kind}
        items = [type_ | item for item in answer.get("items") or ()]
        return ObjectList(items=items, resource_version=answer["metadata"]["resourceVersion"])

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

        Raises:
            Gone: that version is too old; list again.
        """
        ends_at = time.monotonic() + timeout_s

        def over() -> bool:
            return stop.is_set() or self._closed.is_set() or time.monotonic() >= ends_at

        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "labelSelector": labels,
            "fieldSelector": fields,
            "timeoutSeconds": str(max(1, math.ceil(timeout_s))),
        }
        quiet_s = min(timeout_s + _SILENCE_S, self._quiet_s)
        path = path_of(kind, namespace=namespace)
        response = self._api.open("GET", path, query=query, read_s=min(quiet_s, _BEGIN_S))
        yield from kubernetes_watch.events(response, over=over, quiet_s=quiet_s)

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Create an object. Raises `AlreadyExists`, `Invalid`."""
        kind = kind_of(obj)
        path = path_of(kind, namespace=ref_of(obj).namespace)
        return self._api.call("POST", path, query=_STRICT | _dry(dry_run), body=obj)

    def replace(self, obj: Object) -> Object:
        """Replace an object whose metadata carries the resourceVersion it was read with. Raises `Conflict`."""
        return self._api.call("PUT", path_of_ref(ref_of(obj)), query=_STRICT, body=obj)

    def apply(self, obj: Object, *, manager: str, dry_run: bool = False) -> Object:
        """Server-side apply: create or merge; what `manager` applied before and no longer names vanishes.

        Raises `Invalid`. Other managers' fields are taken over (force).
        """
        query = {"fieldManager": manager, "force": "true"} | _STRICT | _dry(dry_run)
        return self._api.call("PATCH", path_of_ref(ref_of(obj)), query=query, body=obj, content_type=APPLY_PATCH)

    def patch(self, ref: Ref, patch: Mapping[str, Any], *, subresource: Literal["", "status"] = "") -> Object:
        """JSON merge patch (RFC 7386) of an object or its status.

        A ``metadata.resourceVersion`` in the patch is a precondition: raises `Conflict`.
        """
        path = path_of_ref(ref, subresource=subresource)
        return self._api.call("PATCH", path, query=_STRICT, body=patch, content_type=MERGE_PATCH)

    def delete(
        self,
        ref: Ref,
        *,
        uid: str | None = None,
        grace_s: int | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
    ) -> None:
        """Delete an object, or mark it where finalizers or a grace period keep it.

        Raises:
            Conflict: the object of that name has another uid.
        """
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        self._api.call("DELETE", path_of_ref(ref), body=options)

    def logs(
        self, ref: Ref, *, container: str = "", follow: bool = False, tail: int | None = None, previous: bool = False
    ) -> Iterator[str]:
        """Yield the lines that a Pod's container wrote."""
        query = {
            "container": container,
            "follow": "true" if follow else "",
            "tailLines": "" if tail is None else str(tail),
            "previous": "true" if previous else "",
        }
        path = path_of_ref(ref, subresource="log")
        response = self._api.open("GET", path, query=query, read_s=None if follow else _LOG_READ_S)
        return kubernetes_watch.text_lines(response)

    def close(self) -> None:
        """Close idle connections, and end the watches."""
        self._closed.set()
        self._api.close()


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}
