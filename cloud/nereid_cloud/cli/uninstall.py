# SPDX-License-Identifier: Apache-2.0
"""``nereid uninstall``: everything of Nereid away from a cluster, in the order in which each part clears up.

A service's finalizer is the GlobalManager's, which lets the nodes clear their tasks and workers first. A definition
that goes before its objects would wait for them, and they for a GlobalManager that is gone.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Final

import typer

from nereid_cloud.cli.delete import gone, seconds
from nereid_cloud.cli.options import cluster_of, options_of
from nereid_cloud.cli.targets import called
from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.port import Cluster, Kind, Ref
from nereid_cloud.gm.names import FINALIZER
from nereid_shared import kinds as resources
from nereid_shared.environment import HOST_ROOT
from nereid_shared.errors import Conflict, NotFound, UserError

NAMESPACES: Final = ("nereid-edge", "nereid")
_RBAC: Final = {
    name: Kind(group="rbac.authorization.k8s.io", version="v1", kind=name, plural=f"{name.lower()}s", namespaced=scoped)
    for name, scoped in {"ClusterRoleBinding": False, "ClusterRole": False, "RoleBinding": True, "Role": True}.items()
}
_SECRET: Final = Kind(group="", version="v1", kind="Secret", plural="secrets")
# What k8s/base, k8s/workers and `nereid certs` put outside Nereid's own namespaces.
_NAMED: Final = (
    *((_RBAC[kind], f"nereid-gm{of}") for kind in ("ClusterRoleBinding", "ClusterRole") for of in ("", "-resources")),
    *((_RBAC[kind], f"nereid-gm-{of}") for kind in ("RoleBinding", "Role") for of in ("workers", "node-events")),
    (_SECRET, "nereid-worker-tls"),
)  # fmt: skip


def uninstall(
    ctx: typer.Context,
    force: Annotated[
        bool, typer.Option("--force", help="Do not wait for the GlobalManager: it is dead, or its nodes are.")
    ] = False,
    timeout: Annotated[str, typer.Option(help="How long to wait for each thing to go.")] = "2m",
) -> None:
    """Take services, datasets and models, GlobalManager, brokers and definitions away from a cluster."""
    if options_of(ctx).kubeconfig is None:
        raise UserError(
            "which cluster?", where="--kubeconfig", mend="Name its kubeconfig; a laptop's goes with nereid down"
        )
    limit_s = seconds(timeout)
    cluster = cluster_of(ctx)
    ours = [kinds.by_word(f"{kind.plural}.{kind.group}") for kind in resources.KINDS.values()]
    # Services before what they name, so that none of them complains on its way.
    for kind in sorted(ours, key=lambda kind: kind != kinds.JOINT_INFERENCE_SERVICE):
        _take_away(cluster, _all(cluster, kind), limit_s=limit_s, force=force)
    _take_away(cluster, (Ref(kind=kinds.NAMESPACE, name=name) for name in NAMESPACES), limit_s=limit_s)
    _take_away(cluster, (ref for kind, name in _NAMED for ref in _called(cluster, kind, name)), limit_s=limit_s)
    crds = (Ref(kind=kinds.CUSTOM_RESOURCE_DEFINITION, name=f"{kind.plural}.{kind.group}") for kind in ours)
    _take_away(cluster, crds, limit_s=limit_s)
    sys.stdout.write(f"nothing of Nereid is left here; on each node remain {HOST_ROOT} and /etc/nereid\n")


def _all(cluster: Cluster, kind: Kind) -> list[Ref]:
    try:
        return [kinds.ref_of(obj) for obj in cluster.list(kind).items]
    except NotFound:  # its definition has gone already
        return []


def _called(cluster: Cluster, kind: Kind, name: str) -> Iterator[Ref]:
    for obj in cluster.list(kind, fields=f"metadata.name={name}").items:
        yield Ref(kind=kind, name=name, namespace=obj["metadata"].get("namespace", ""))


def _take_away(cluster: Cluster, refs: Iterable[Ref], *, limit_s: float, force: bool = False) -> None:
    """Delete objects and wait until they are gone.

    Raises:
        UserError: one of them stays.
    """
    going = [(ref, uid) for ref in refs if (uid := _delete(cluster, ref))]
    if force:
        for ref, _ in going:
            _free(cluster, ref)
    end = time.monotonic() + limit_s
    for ref, uid in going:
        if not gone(cluster, ref, uid, end):
            raise UserError(
                "does not go", where=called(ref.kind, ref.name),
                mend="Does the GlobalManager run (kubectl -n nereid get pods)? If it never will again, add --force",
            )  # fmt: skip
        place = f" from {ref.namespace} namespace" if ref.kind.namespaced else ""
        sys.stdout.write(f'{ref.kind.kind.lower()} "{ref.name}" deleted{place}\n')
        sys.stdout.flush()


def _delete(cluster: Cluster, ref: Ref) -> str:
    """Delete an object; returns its uid, "" where it is not there."""
    try:
        uid: str = cluster.get(ref)["metadata"]["uid"]
        cluster.delete(ref, uid=uid)
    except (NotFound, Conflict):
        return ""
    return uid


def _free(cluster: Cluster, ref: Ref) -> None:
    """Take the GlobalManager's finalizer off; others' stay."""
    try:
        metadata = cluster.get(ref)["metadata"]
        kept = [name for name in metadata.get("finalizers") or () if name != FINALIZER]
        patch = {"metadata": {"finalizers": kept, "resourceVersion": metadata["resourceVersion"]}}
        cluster.patch(ref, patch)
    except NotFound:
        return
