# SPDX-License-Identifier: Apache-2.0
"""What exists, and then what changes, for as long as the user looks: a list, then a watch that never ends."""

import threading
import time
from collections.abc import Iterator
from typing import Final

from nereid_cloud.cluster.port import Cluster, Kind, Object, WatchEvent
from nereid_shared.errors import Gone

_WATCH_S: Final = 300.0


def changes(
    cluster: Cluster,
    kind: Kind,
    *,
    namespace: str | None,
    labels: str = "",
    fields: str = "",
    timeout_s: float | None = None,
) -> Iterator[list[WatchEvent]]:
    """Yield what exists as one batch of ADDED, then each change as a batch of its own.

    Where the watch's version is too old, all is listed again: what is there comes once more, and what vanished in
    between comes as DELETED. It ends after `timeout_s`; where that is None, never.
    """
    stop = threading.Event()
    known: dict[str, Object] = {}
    end = None if timeout_s is None else time.monotonic() + timeout_s
    version = ""
    while end is None or time.monotonic() < end:
        if not version:
            listed = cluster.list(kind, namespace=namespace, labels=labels, fields=fields)
            present = {obj["metadata"]["uid"]: obj for obj in listed.items}
            gone = [WatchEvent(type="DELETED", object=known[uid]) for uid in known.keys() - present.keys()]
            known, version = present, listed.resource_version
            yield [*gone, *(WatchEvent(type="ADDED", object=obj) for obj in present.values())]
        left = _WATCH_S if end is None else min(_WATCH_S, end - time.monotonic())
        try:
            for event in cluster.watch(
                kind,
                resource_version=version,
                stop=stop,
                namespace=namespace,
                labels=labels,
                fields=fields,
                timeout_s=max(0.0, left),
            ):
                version = event.object["metadata"]["resourceVersion"]
                if event.type != "BOOKMARK":
                    _remember(known, event)
                    yield [event]
        except Gone:
            version = ""


def _remember(known: dict[str, Object], event: WatchEvent) -> None:
    uid = event.object["metadata"]["uid"]
    if event.type == "DELETED":
        known.pop(uid, None)
    else:
        known[uid] = event.object
