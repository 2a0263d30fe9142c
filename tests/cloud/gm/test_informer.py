# SPDX-License-Identifier: Apache-2.0
import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cloud.gm.conftest import GmFactory
from tests.cloud.gm.peers import model
from tests.mosquitto import Mosquitto

from nereid_cloud.cluster.kinds import MODEL
from nereid_cloud.cluster.local import DATABASE, LocalCluster
from nereid_cloud.cluster.port import Kind, Object, Ref, WatchEvent
from nereid_cloud.gm.informer import Informer, Key

REF = Ref(kind=MODEL, name="one", namespace="default")


class Changes:
    def __init__(self) -> None:
        self.seen: list[tuple[str, bool, bool]] = []
        self._came = asyncio.Event()

    def __call__(self, key: Key, former: Object | None, present: Object | None) -> None:
        self.seen.append((key.name, former is not None, present is not None))
        self._came.set()

    async def next(self) -> None:
        self._came.clear()
        await self._came.wait()

    async def until(self, change: tuple[str, bool, bool]) -> None:
        async with asyncio.timeout(30):
            while change not in self.seen:
                await self.next()


async def test_the_cache_follows_the_cluster(cluster: LocalCluster) -> None:
    cluster.create(model("one"))
    changes = Changes()
    async with Informer(cluster, MODEL, changes) as informer:
        await asyncio.wait_for(informer.wait_synced(), 30)
        assert informer.get("default", "one") == cluster.get(REF)
        cluster.create(model("two"))
        await changes.until(("two", False, True))
        cluster.patch(REF, {"spec": {"format": "other"}})
        await changes.until(("one", True, True))
        assert (informer.get("default", "one") or {})["spec"]["format"] == "other"
        cluster.delete(REF)
        await changes.until(("one", True, False))
        assert informer.get("default", "one") is None
        assert [obj["metadata"]["name"] for obj in informer.items()] == ["two"]


async def test_objects_are_found_by_namespace_uid_and_label(cluster: LocalCluster) -> None:
    for name, team in (("one", "a"), ("two", "b"), ("three", "a")):
        obj = model(name)
        cluster.create({**obj, "metadata": {**obj["metadata"], "labels": {"team": team}}})
    changes = Changes()
    async with Informer(cluster, MODEL, changes, index="team") as informer:
        await asyncio.wait_for(informer.wait_synced(), 30)
        view = informer.named("default")
        uid = cluster.get(REF)["metadata"]["uid"]
        assert set(view) == {"one", "two", "three"}
        assert not informer.named("other")
        assert informer.key_of_uid(uid) == Key("default", "one")
        assert [obj["metadata"]["name"] for obj in informer.labelled("a")] == ["one", "three"]
        cluster.patch(REF, {"metadata": {"labels": {"team": "b"}}})
        await changes.until(("one", True, True))
        assert [obj["metadata"]["name"] for obj in informer.labelled("b")] == ["two", "one"]
        cluster.delete(REF)
        await changes.until(("one", True, False))
        assert informer.key_of_uid(uid) is None
        assert "one" not in view
        assert [obj["metadata"]["name"] for obj in informer.labelled("b")] == ["two"]


class LateWatcher(LocalCluster):
    """A cluster whose watches begin only when the gate opens."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, history=1)
        self.gate = threading.Event()

    def watch(self, *args: Any, **options: Any) -> Iterator[WatchEvent]:
        self.gate.wait(30)
        yield from super().watch(*args, **options)


async def test_a_watch_that_is_too_old_is_followed_by_a_new_list(tmp_path: Path) -> None:
    cluster = LateWatcher(tmp_path / DATABASE)
    cluster.create(model("one"))
    changes = Changes()
    async with Informer(cluster, MODEL, changes) as informer:
        await asyncio.wait_for(informer.wait_synced(), 30)
        cluster.delete(REF)
        cluster.create(model("last"))
        for number in range(300):
            ref = Ref(kind=MODEL, name="last", namespace="default")
            cluster.patch(ref, {"metadata": {"labels": {"n": str(number)}}})
        cluster.gate.set()
        await changes.until(("last", False, True))
        await changes.until(("one", True, False))
        assert [obj["metadata"]["name"] for obj in informer.items()] == ["last"]
    cluster.close()


async def test_a_list_of_one_namespace_says_nothing_of_the_others(tmp_path: Path) -> None:
    cluster = LateWatcher(tmp_path / DATABASE)
    for namespace in ("a", "b", "c"):
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        cluster.create(in_namespace(namespace, "one"))
    changes = Changes()
    async with Informer(cluster, MODEL, changes, namespaces=("a", "b")) as informer:
        await asyncio.wait_for(informer.wait_synced(), 30)
        assert {*map(_place, informer.items())} == {("a", "one"), ("b", "one")}
        cluster.delete(Ref(kind=MODEL, name="one", namespace="a"))
        # The history is too short for either watch: both namespaces are listed again.
        for namespace in ("a", "b"):
            cluster.create(in_namespace(namespace, "last"))
            for number in range(300):
                ref = Ref(kind=MODEL, name="last", namespace=namespace)
                cluster.patch(ref, {"metadata": {"labels": {"n": str(number)}}})
        cluster.gate.set()
        await changes.until(("one", True, False))
        async with asyncio.timeout(30):
            while len(informer.items()) < 3:
                await changes.next()
        assert {*map(_place, informer.items())} == {("a", "last"), ("b", "one"), ("b", "last")}
    cluster.close()


def in_namespace(namespace: str, name: str) -> Object:
    made = model(name)
    return {**made, "metadata": {**made["metadata"], "namespace": namespace}}


def _place(obj: Object) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


async def test_a_written_object_replaces_what_it_was_based_on_and_nothing_newer(cluster: LocalCluster) -> None:
    cluster.create(model("one"))
    async with Informer(cluster, MODEL) as informer:
        await asyncio.wait_for(informer.wait_synced(), 30)
        base = informer.get("default", "one")
        assert base is not None
        first = {**base, "metadata": {**base["metadata"], "resourceVersion": "1000"}}
        informer.written(base, first)
        assert informer.get("default", "one") is first
        informer.written(base, {**base, "spec": {}})
        assert informer.get("default", "one") is first


class BrokenWatcher(LocalCluster):
    """A cluster in which the watch of Models ends with an error that nobody foresaw."""

    def watch(self, kind: Kind, **options: Any) -> Iterator[WatchEvent]:
        if kind is MODEL:
            raise RuntimeError("unforeseen")
        return super().watch(kind, **options)


async def test_an_unforeseen_error_is_handed_to_whoever_owns_the_cache(tmp_path: Path) -> None:
    cluster = BrokenWatcher(tmp_path / DATABASE)
    async with Informer(cluster, MODEL) as informer:
        with pytest.raises(RuntimeError, match="unforeseen"):
            await asyncio.wait_for(informer.failed(), 30)
    cluster.close()


async def test_a_change_that_its_listener_cannot_take_is_no_less_an_error(cluster: LocalCluster) -> None:
    cluster.create(model("one"))

    def refuse(_key: Key, _former: Object | None, _present: Object | None) -> None:
        raise RuntimeError("unforeseen")

    async with Informer(cluster, MODEL, refuse) as informer:
        with pytest.raises(RuntimeError, match="unforeseen"):
            await asyncio.wait_for(informer.failed(), 30)


async def test_a_globalmanager_whose_cache_stands_still_ends(tmp_path: Path, broker: Mosquitto, gm: GmFactory) -> None:
    cluster = BrokenWatcher(tmp_path / DATABASE)
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="unforeseen")):
        async with gm(cluster=cluster) as leading:
            await asyncio.wait_for(asyncio.shield(leading), 30)
    cluster.close()
