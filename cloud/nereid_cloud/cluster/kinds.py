# SPDX-License-Identifier: Apache-2.0
"""The kinds that Nereid speaks of, and how a manifest or a word on a command line names them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from nereid_cloud.cluster.port import Kind, Ref
from nereid_shared import kinds as resources
from nereid_shared.errors import NotFound


def _ours(kind: resources.ResourceKind) -> Kind:
    return Kind(
        group=kind.group, version=kind.version, kind=kind.kind, plural=kind.plural, short_names=kind.short_names
    )


POD: Final = Kind(group="", version="v1", kind="Pod", plural="pods", short_names=("po",))
NODE: Final = Kind(group="", version="v1", kind="Node", plural="nodes", namespaced=False, short_names=("no",))
EVENT: Final = Kind(group="", version="v1", kind="Event", plural="events", short_names=("ev",))
CONFIG_MAP: Final = Kind(group="", version="v1", kind="ConfigMap", plural="configmaps", short_names=("cm",))
NAMESPACE: Final = Kind(
    group="", version="v1", kind="Namespace", plural="namespaces", namespaced=False, short_names=("ns",)
)
SERVICE: Final = Kind(group="", version="v1", kind="Service", plural="services", short_names=("svc",))
DEPLOYMENT: Final = Kind(group="apps", version="v1", kind="Deployment", plural="deployments", short_names=("deploy",))
LEASE: Final = Kind(group="coordination.k8s.io", version="v1", kind="Lease", plural="leases")
CUSTOM_RESOURCE_DEFINITION: Final = Kind(
    group="apiextensions.k8s.io",
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    namespaced=False,
    short_names=("crd", "crds"),
)
DATASET: Final = _ours(resources.DATASET)
MODEL: Final = _ours(resources.MODEL)
JOINT_INFERENCE_SERVICE: Final = _ours(resources.JOINT_INFERENCE_SERVICE)
INFERENCE_MODEL: Final = _ours(resources.INFERENCE_MODEL)

ALL: Final = (
    POD,
    NODE,
    EVENT,
    CONFIG_MAP,
    NAMESPACE,
    SERVICE,
    DEPLOYMENT,
    LEASE,
    CUSTOM_RESOURCE_DEFINITION,
    DATASET,
    MODEL,
    JOINT_INFERENCE_SERVICE,
    INFERENCE_MODEL,
)
CATEGORIES: Final[Mapping[str, tuple[Kind, ...]]] = MappingProxyType(
    {
        resources.CATEGORY: tuple(_ours(kind) for kind in resources.KINDS.values()),
        "all": (POD, SERVICE, DEPLOYMENT),
    }
)

_BY_TYPE: Final = {(kind.api_version, kind.kind): kind for kind in ALL}


def named(api_version: str, kind: str) -> Kind:
    """Return the kind of a manifest's ``apiVersion`` and ``kind``.

    Raises:
        NotFound: the API does not serve it.
    """
    try:
        return _BY_TYPE[api_version, kind]
    except KeyError:
        raise NotFound(f'no matches for kind "{kind}" in version "{api_version}"') from None


def kind_of(obj: Mapping[str, Any]) -> Kind:
    """Return an object's kind.

    Raises:
        NotFound: the API does not serve it.
    """
    return named(str(obj.get("apiVersion", "")), str(obj.get("kind", "")))


def ref_of(obj: Mapping[str, Any]) -> Ref:
    """Return an object's address.

    Raises:
        NotFound: the API does not serve its kind.
    """
    kind, metadata = kind_of(obj), obj.get("metadata") or {}
    namespace = metadata.get("namespace") or "default" if kind.namespaced else ""
    return Ref(kind=kind, name=metadata.get("name", ""), namespace=namespace)


def by_word(word: str) -> Kind:
    """Return the kind that a user means by its plural, singular or short name, with its group or without.

    Raises:
        NotFound: no kind has that name.
    """
    name, _, group = word.lower().partition(".")
    for kind in ALL:
        words = {kind.plural, kind.kind.lower(), *kind.short_names}
        if name in words and group in {"", kind.group, f"{kind.version}.{kind.group}"}:
            return kind
    raise NotFound(f'the server doesn\'t have a resource type "{word}"')
