# SPDX-License-Identifier: Apache-2.0
"""kubectl's tables: for our kinds the CRD's printer columns, for the built-in ones kubectl's own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from nereid_cloud.cli.ages import since
from nereid_cloud.cli.jsonpath import find, shown
from nereid_cloud.cluster.port import Kind, Object
from nereid_shared import kinds as resources

_GAP: Final = 3
_SAYS_HOW_IT_IS: Final = frozenset({"status", "reason"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its heading, and its cell for an object at a time.

    Attributes:
        wide: whether only ``-o wide`` shows it.
    """

    heading: str
    cell: Callable[[Object, datetime], str]
    wide: bool = False


def columns_of(kind: Kind) -> tuple[Column, ...]:
    """Return the columns of a kind after NAME."""
    ours = resources.KINDS.get(kind.kind)
    if ours and ours.group == kind.group:
        return tuple(_printer_column(column) for column in ours.columns)
    return _BUILTIN.get(kind.kind, (_AGE,))


def row_of(obj: Object, columns: Iterable[Column], now: datetime) -> list[str]:
    """Return an object's cells."""
    return [column.cell(obj, now) for column in columns]


def widths_of(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return how wide each column is."""
    return [max(map(len, cells)) for cells in zip(*rows, strict=True)]


def line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return one line of a table."""
    return "".join(cell.ljust(width + _GAP) for cell, width in zip(cells, widths, strict=True)).rstrip()


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table with its headings."""
    everything = [list(headings), *rows]
    widths = widths_of(everything)
    return [line(cells, widths) for cells in everything]


def _printer_column(column: resources.Column) -> Column:
    def cell(obj: Object, now: datetime) -> str:
        if column.name.lower() in _SAYS_HOW_IT_IS and obj.get("metadata", {}).get("deletionTimestamp"):
            return "Terminating"
        found = find(column.json_path, obj)
        if not found:
            return ""
        return since(found[0], now) if column.type == "date" else shown(found[0])

    return Column(heading=column.name.upper(), cell=cell, wide=column.priority > 0)


def _path(heading: str, path: str, *, empty: str = "<none>", wide: bool = False) -> Column:
    def cell(obj: Object, _: datetime) -> str:
        found = [value for value in find(path, obj) if value not in (None, "")]
        return ",".join(map(shown, found)) if found else empty

    return Column(heading=heading, cell=cell, wide=wide)


def _age(heading: str, path: str) -> Column:
    return Column(heading=heading, cell=lambda obj, now: since(next(iter(find(path, obj)), None), now))


def pod_status(obj: Object) -> str:
    """Return what kubectl shows as a Pod's status: the reason that a container waits or ended for, else the phase."""
    status = obj.get("status") or {}
    reason = str(status.get("reason") or status.get("phase") or "Unknown")
    for container in status.get("containerStatuses") or ():
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated")
        if waiting.get("reason"):
            reason = waiting["reason"]
        elif ended is not None:
            reason = ended.get("reason") or f"ExitCode:{ended.get('exitCode', 0)}"
    if obj.get("metadata", {}).get("deletionTimestamp"):
        return "Unknown" if reason == "NodeLost" else "Terminating"
    return reason


def _containers(obj: Object) -> list[dict[str, Any]]:
    return (obj.get("status") or {}).get("containerStatuses") or []


def _ready_containers(obj: Object, _: datetime) -> str:
    ready = sum(1 for container in _containers(obj) if container.get("ready"))
    return f"{ready}/{len((obj.get('spec') or {}).get('containers') or ())}"


def _restarts(obj: Object, now: datetime) -> str:
    count = sum(int(container.get("restartCount", 0)) for container in _containers(obj))
    ended = find(".status.containerStatuses[*].lastState.terminated.finishedAt", obj)
    return f"{count} ({since(max(ended), now)} ago)" if count and ended else str(count)


def _replicas(obj: Object, _: datetime) -> str:
    ready, wanted = (obj.get("status") or {}).get("readyReplicas", 0), (obj.get("spec") or {}).get("replicas", 1)
    return f"{ready}/{wanted}"


def _node_status(obj: Object, _: datetime) -> str:
    ready = find('.status.conditions[?(@.type=="Ready")].status', obj)
    words = ["Ready" if ready == ["True"] else "NotReady" if ready else "Unknown"]
    if (obj.get("spec") or {}).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _node_roles(obj: Object, _: datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = (obj.get("metadata") or {}).get("labels") or {}
    roles = sorted(label.removeprefix(prefix) for label in labels if label.startswith(prefix))
    return ",".join(roles) or "<none>"


def _ports(obj: Object, _: datetime) -> str:
    ports = (obj.get("spec") or {}).get("ports") or ()
    return ",".join(f"{port.get('port')}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def last_seen(event: Object) -> str:
    """Return the time at which an Event was last seen, as the API wrote it."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    fallback = event.get("firstTimestamp") or event.get("metadata", {}).get("creationTimestamp") or ""
    return str(next(filter(None, times), fallback))


def event_object(event: Object) -> str:
    """Return what an Event speaks of, as kind/name."""
    about = event.get("involvedObject") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _count_of_data(obj: Object, _: datetime) -> str:
    return str(len(obj.get("data") or {}) + len(obj.get("binaryData") or {}))


_AGE: Final = _age("AGE", ".metadata.creationTimestamp")
EVENT_COLUMNS: Final = (
    Column(heading="LAST SEEN", cell=lambda obj, now: since(last_seen(obj), now)),
    _path("TYPE", ".type"),
    _path("REASON", ".reason"),
    Column(heading="OBJECT", cell=lambda obj, _: event_object(obj)),
    _path("MESSAGE", ".message"),
)
_BUILTIN: Final[Mapping[str, tuple[Column, ...]]] = MappingProxyType({
    "Pod": (
        Column(heading="READY", cell=_ready_containers),
        Column(heading="STATUS", cell=lambda obj, _: pod_status(obj)),
        Column(heading="RESTARTS", cell=_restarts),
        _AGE,
        _path("IP", ".status.podIP", wide=True),
        _path("NODE", ".spec.nodeName", wide=True),
    ),
    "Deployment": (
        Column(heading="READY", cell=_replicas),
        _path("UP-TO-DATE", ".status.updatedReplicas", empty="0"),
        _path("AVAILABLE", ".status.availableReplicas", empty="0"),
        _AGE,
        _path("CONTAINERS", ".spec.template.spec.containers[*].name", wide=True),
        _path("IMAGES", ".spec.template.spec.containers[*].image", wide=True),
    ),
    "Node": (
        Column(heading="STATUS", cell=_node_status),
        Column(heading="ROLES", cell=_node_roles),
        _AGE,
        _path("VERSION", ".status.nodeInfo.kubeletVersion", empty="<unknown>"),
        _path("INTERNAL-IP", '.status.addresses[?(@.type=="InternalIP")].address', wide=True),
    ),
    "Lease": (_path("HOLDER", ".spec.holderIdentity"), _AGE),
    "Namespace": (_path("STATUS", ".status.phase", empty="Active"), _AGE),
    "ConfigMap": (Column(heading="DATA", cell=_count_of_data), _AGE),
    "Service": (
        _path("TYPE", ".spec.type", empty="ClusterIP"),
        _path("CLUSTER-IP", ".spec.clusterIP"),
        Column(heading="PORT(S)", cell=_ports),
        _AGE,
    ),
    "CustomResourceDefinition": (_path("CREATED AT", ".metadata.creationTimestamp"),),
    "Event": EVENT_COLUMNS,
})  # fmt: skip
