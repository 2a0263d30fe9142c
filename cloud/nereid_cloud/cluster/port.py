# SPDX-License-Identifier: Apache-2.0
"""The cluster port: the one narrow way in which the GlobalManager and the nereid command reach a cluster.

Objects are dictionaries in Kubernetes' own shapes. Two adapters, one contract suite (``tests/cloud/cluster``):
`KubernetesCluster` over the official client, `LocalCluster` over SQLite in a state folder. Calls block; asyncio code
runs them in a thread.
"""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of object as the API addresses it."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """The manifest's ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """The plural with its group, as kubectl and the API's messages name it: ``datasets.edgeai.io``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """One object's address; the namespace of a namespaced kind is ``default`` where it is left empty."""

    kind: Kind
    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectList:
    """A list and the resourceVersion from which a watch continues it."""

    items: list[Object]
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """One change; a BOOKMARK carries only ``metadata.resourceVersion``."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Object


class Cluster(Protocol):
    """What a cluster can do for us. Every call may raise `Unavailable`, `Forbidden` or `NotFound`."""

    def identity(self) -> str:
        """Return the cluster's own id: the UID of ``kube-system``."""
        ...

    def get(self, ref: Ref) -> Object:
        """Return one object."""
        ...

    def list(self, kind: Kind, *, namespace: str | None = None, labels: str = "", fields: str = "") -> ObjectList:
        """Return the objects that match Kubernetes label and field selectors; namespace None means all of them."""
        ...

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
        ...

    def create(self, obj: Object, *, dry_run: bool = False) -> Object:
        """Create an object. Raises `AlreadyExists`, `Invalid`."""
        ...

    def replace(self, obj: Object) -> Object:
        """Replace an object whose metadata carries the resourceVersion it was read with. Raises `Conflict`."""
        ...

    def apply(self, obj: Object, *, manager: str, dry_run: bool = False) -> Object:
        """Server-side apply: create or merge; what `manager` applied before and no longer names vanishes.

        Raises `Invalid`. Other managers' fields are taken over (force).
        """
        ...

    def patch(self, ref: Ref, patch: Mapping[str, Any], *, subresource: Literal["", "status"] = "") -> Object:
        """JSON merge patch (RFC 7386) of an object or its status.

        A ``metadata.resourceVersion`` in the patch is a precondition: raises `Conflict`.
        """
        ...

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
        ...

    def logs(
        self, ref: Ref, *, container: str = "", follow: bool = False, tail: int | None = None, previous: bool = False
    ) -> Iterator[str]:
        """Yield the lines that a Pod's container wrote."""
        ...

    def close(self) -> None:
        """Release connections and files."""
        ...
