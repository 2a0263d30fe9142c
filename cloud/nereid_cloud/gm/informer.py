# SPDX-License-Identifier: Apache-2.0
"""A kind's objects as a cache that follows the cluster: list, watch, and list again when the watch is lost.

One thread per kind, or per namespace of it, talks to the blocking port; the cache belongs to the event loop, where
every change arrives as a callback. Cached objects are shared: nobody changes them.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from nereid_cloud.cluster.listwatch import ListWatch
from nereid_cloud.cluster.port import Cluster, Kind, Object, WatchEvent

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S: Final = 5.0


class Key(NamedTuple):
    """An object's address within its kind."""

    namespace: str
    name: str


OnChange = Callable[[Key, Object | None, Object | None], None]


def key_of(obj: Object) -> Key:
    """Return an object's address."""
    metadata = obj["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])


def without_managers(obj: Object) -> Object:
    """Return an object without its managers' records, which are half of it and nobody reads."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}


def pod_trimmed(pod: Object) -> Object:
    """Return what is read of a Pod: where it is and how it fares."""
    return {**without_managers(pod), "spec": {"nodeName": pod["spec"].get("nodeName", "")}}


class Named(Mapping[str, Object]):
    """The cached objects of one namespace by name: a view, which costs nothing until it is read through."""

    def __init__(self, objects: Mapping[Key, Object], namespace: str) -> None:
        self._objects, self._namespace = objects, namespace

    def __getitem__(self, name: str) -> Object:
        return self._objects[Key(self._namespace, name)]

    def __iter__(self) -> Iterator[str]:
        return (key.name for key in self._objects if key.namespace == self._namespace)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Informer:
    """The cache of one kind; ``async with`` runs its threads.

    Args:
        cluster: where the objects are.
        kind: which objects.
        on_change: called on the loop as (key, former object or None, present object or None).
        namespaces: only objects of these; of all where there are none.
        labels: label selector of the objects.
        index: a label by whose value `labelled` finds objects.
        trim: what of an object is kept; it may share parts with it. A fleet's objects are most of the memory.
    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        on_change: OnChange | None = None,
        *,
        namespaces: Collection[str] = (),
        labels: str = "",
        index: str = "",
        trim: Callable[[Object], Object] = without_managers,
    ) -> None:
        self.kind = kind
        self._index, self._trim = index, trim
        self._keys: dict[str, Key] = {}
        self._labelled: dict[str, dict[Key, Object]] = {}
        self._cluster, self._labels, self._on_change = cluster, labels, on_change
        self._objects: dict[Key, Object] = {}
        self._synced = asyncio.Event()
        self._unlisted: set[str | None] = set(namespaces) or {None}
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: asyncio.Future[None] | None = None
        self._threads = [
            threading.Thread(target=self._run, args=(one,), name=f"informer-{kind.plural}", daemon=True)
            for one in self._unlisted
        ]

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._failure = self._loop.create_future()
        for thread in self._threads:
            thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, STOP_TIMEOUT_S)

    async def wait_synced(self) -> None:
        """Return once the first list, or that of each namespace, is in the cache."""
        await self._synced.wait()

    def get(self, namespace: str, name: str) -> Object | None:
        """Return the cached object, not to be changed, or None."""
        return self._objects.get(Key(namespace, name))

    def items(self) -> list[Object]:
        """Return all cached objects, not to be changed."""
        return list(self._objects.values())

    def named(self, namespace: str) -> Mapping[str, Object]:
        """Return a view of the objects of a namespace by name; "" for a kind without namespaces."""
        return Named(self._objects, namespace)

    def key_of_uid(self, uid: str) -> Key | None:
        """Return the address of the cached object with a uid."""
        return self._keys.get(uid)

    def labelled(self, value: str) -> list[Object]:
        """Return the cached objects whose index label has this value, in the order they came; not to be changed."""
        return list(self._labelled.get(value, {}).values())

    def written(self, based_on: Object, result: Object) -> None:
        """Take an object that a write returned, so that the next reconcile does not run on the former version.

        Nothing happens if the watch was faster.
        """
        key = key_of(result)
        if self._objects.get(key) is based_on:
            self._put(key, result)

    async def failed(self) -> None:
        """Wait for ever; raises what ended the cache's thread, after which the cache would stay as it is."""
        assert self._failure is not None  # noqa: S101 - inside the context
        await asyncio.wait([self._failure])
        self._failure.result()

    def _run(self, namespace: str | None) -> None:
        replace_all = partial(self._replace_all, namespace)
        follow = ListWatch(
            self._cluster,
            self.kind,
            on_list=lambda objects: self._on_loop(replace_all, [self._trim(obj) for obj in objects]),
            on_event=lambda event: self._on_loop(self._take, replace(event, object=self._trim(event.object))),
            stop=self._stop,
            namespace=namespace,
            labels=self._labels,
        )
        try:
            follow.run()
        except Exception as error:
            logger.exception("cache stands still", extra={"kind": self.kind.kind})
            self._on_loop(self._fail, error)

    def _on_loop(self, call: Callable[[Any], None], argument: object) -> None:
        assert self._loop is not None  # noqa: S101 - the thread starts after it is set
        if self._stop.is_set():
            return
        try:
            self._loop.call_soon_threadsafe(self._safely, call, argument)
        except RuntimeError:
            # The loop is gone: its owner stops without having left the context.
            self._stop.set()

    def _safely(self, call: Callable[[Any], None], argument: object) -> None:
        try:
            call(argument)
        except Exception as error:
            logger.exception("change not taken", extra={"kind": self.kind.kind})
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._failure is not None and not self._failure.done():
            self._failure.set_exception(error)

    def _replace_all(self, namespace: str | None, objects: list[Object]) -> None:
        present = {key_of(obj): obj for obj in objects}
        for key in self._objects.keys() - present.keys():
            if namespace in {None, key.namespace}:
                self._set(key, None)
        for key, obj in present.items():
            self._set(key, obj)
        self._unlisted.discard(namespace)
        if not self._unlisted:
            self._synced.set()

    def _take(self, event: WatchEvent) -> None:
        self._set(key_of(event.object), None if event.type == "DELETED" else event.object)

    def _set(self, key: Key, obj: Object | None) -> None:
        former = self._objects.get(key)
        self._put(key, obj)
        changed = _version(former) != _version(obj)
        if changed and self._on_change is not None:
            self._on_change(key, former, obj)

    def _put(self, key: Key, obj: Object | None) -> None:
        former = self._objects.get(key)
        if former is not None:
            self._keys.pop(former["metadata"].get("uid", ""), None)
        if former is not None and (obj is None or self._value(obj) != self._value(former)):
            labelled = self._labelled[self._value(former)]
            del labelled[key]
            if not labelled:
                del self._labelled[self._value(former)]
        if obj is None:
            self._objects.pop(key, None)
        else:
            self._objects[key] = obj
            self._keys[obj["metadata"].get("uid", "")] = key
            self._labelled.setdefault(self._value(obj), {})[key] = obj

    def _value(self, obj: Object) -> str:
        return str((obj["metadata"].get("labels") or {}).get(self._index, ""))


def _version(obj: Object | None) -> tuple[str, str] | None:
    if obj is None:
        return None
    metadata = obj["metadata"]
    return metadata.get("uid", ""), metadata.get("resourceVersion", "")
