# SPDX-License-Identifier: Apache-2.0
"""What only a LocalCluster promises: one file, many processes, sound after a kill."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.local import LocalCluster
from nereid_cloud.cluster.local_store import check
from nereid_cloud.cluster.port import Kind, Object, Ref
from nereid_shared.errors import Gone, NereidError, NotFound, Unavailable, UserError

from .conftest import Watching, eventually

Open = Callable[..., LocalCluster]
WRITER = """
import sys
from pathlib import Path
from nereid_cloud.cluster.local import LocalCluster
cluster = LocalCluster(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    name = f"{sys.argv[2]}-{number:06d}"
    cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"pad": "x" * 2000}})
    print(name, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "cluster.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Open]:
    """Opens the cluster's file, as often as the test wants."""
    clusters: list[LocalCluster] = []

    def open_(**options: Any) -> LocalCluster:
        clusters.append(LocalCluster(path, **options))
        return clusters[-1]

    yield open_
    for cluster in clusters:
        cluster.close()


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@contextlib.contextmanager
def writer(path: Path, name: str, count: int) -> Iterator["subprocess.Popen[str]"]:
    """Run a process that waits for a line and then creates ConfigMaps, printing the name of each."""
    argv = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_file_keeps_its_identity_and_objects(opened: Open) -> None:
    first = opened()
    identity, made = first.identity(), first.create(config_map("one", a="1"))
    first.close()
    second = opened()
    assert second.identity() == identity
    assert second.get(ref_of(made)) == made


def test_two_files_are_two_clusters(opened: Open, tmp_path: Path) -> None:
    other = LocalCluster(tmp_path / "other.db")
    assert opened().identity() != other.identity()
    other.close()


def test_processes_that_write_at_once_all_succeed_and_a_watch_sees_every_object_once(opened: Open, path: Path) -> None:
    cluster = opened()
    watch = Watching(cluster, kinds.CONFIG_MAP, resource_version=cluster.list(kinds.CONFIG_MAP).resource_version)
    with writer(path, "a", 150) as one, writer(path, "b", 150) as two:
        go(one)
        go(two)
        for number in range(150):
            cluster.create(config_map(f"c-{number:06d}"))
        assert one.wait(60) == 0
        assert two.wait(60) == 0
    names = [obj["metadata"]["name"] for obj in cluster.list(kinds.CONFIG_MAP).items]
    assert names == [f"{prefix}-{number:06d}" for prefix in "abc" for number in range(150)]
    eventually(lambda: len(watch.events) >= 450)
    watch.close()
    versions = [int(event.object["metadata"]["resourceVersion"]) for event in watch.events]
    assert versions == sorted(set(versions))
    assert sorted(name for _, name in watch.seen()) == names


def test_a_write_of_another_process_wakes_a_watch_at_rest(opened: Open) -> None:
    writing, reading = opened(), opened()
    watch = Watching(reading, kinds.CONFIG_MAP, resource_version=reading.list(kinds.CONFIG_MAP).resource_version)
    for number in range(4):
        writing.create(config_map(f"c-{number}"))
        watch.expect(*(("ADDED", f"c-{seen}") for seen in range(number + 1)))
        # The watch is at rest now, for an hour: only the file can tell it of the next.
    watch.close()


def test_a_killed_writer_leaves_a_sound_file_with_all_that_it_was_told_is_written(opened: Open, path: Path) -> None:
    cluster = opened()
    with writer(path, "a", 100_000) as process:
        go(process)
        assert process.stdout is not None
        told = [process.stdout.readline().strip() for _ in range(300)]
        os.kill(process.pid, signal.SIGKILL)
        told += [line.strip() for line in process.stdout if line.endswith("\n")]
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    stored = {obj["metadata"]["name"] for obj in cluster.list(kinds.CONFIG_MAP).items}
    assert set(told) <= stored
    assert len(stored) <= len(told) + 1
    cluster.create(config_map("after"))


def test_a_watch_from_a_version_that_was_pruned_is_gone(opened: Open) -> None:
    cluster = opened(history=100)
    old = cluster.create(config_map("one"))["metadata"]["resourceVersion"]
    for number in range(600):
        recent = cluster.patch(Ref(kind=kinds.CONFIG_MAP, name="one"), {"data": {"n": str(number)}})
    with pytest.raises(Gone):
        next(cluster.watch(kinds.CONFIG_MAP, resource_version=old, stop=threading.Event()))
    version = str(int(recent["metadata"]["resourceVersion"]) - 50)
    first = next(cluster.watch(kinds.CONFIG_MAP, resource_version=version, stop=threading.Event()))
    assert int(first.object["metadata"]["resourceVersion"]) == int(version) + 1


def test_a_watch_that_begins_far_behind_catches_up(opened: Open) -> None:
    cluster = opened()
    begun = cluster.list(kinds.CONFIG_MAP).resource_version
    names = [cluster.create(config_map(f"one-{number:04d}"))["metadata"]["name"] for number in range(1100)]
    events = cluster.watch(kinds.CONFIG_MAP, resource_version=begun, stop=threading.Event(), timeout_s=0.5)
    assert [event.object["metadata"]["name"] for event in events if event.type == "ADDED"] == names


def test_a_watch_from_a_version_that_never_was_is_gone(opened: Open) -> None:
    with pytest.raises(Gone):
        next(opened().watch(kinds.POD, resource_version="999999", stop=threading.Event()))


def test_a_quiet_watch_ends_with_a_version_to_go_on_from(opened: Open) -> None:
    cluster = opened()
    begun = cluster.list(kinds.POD).resource_version
    made = cluster.create(config_map("one"))
    (event,) = cluster.watch(kinds.POD, resource_version=begun, stop=threading.Event(), timeout_s=0.1)
    assert event.type == "BOOKMARK"
    assert event.object["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


def test_closing_ends_the_watches(opened: Open) -> None:
    cluster = opened()
    watch = Watching(cluster, kinds.POD, resource_version=cluster.list(kinds.POD).resource_version)
    cluster.close()
    watch.close()
    with pytest.raises(Unavailable):
        cluster.list(kinds.POD)


def test_a_file_that_is_no_database_is_refused_by_name(opened: Open, path: Path) -> None:
    path.parent.mkdir()
    path.write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(UserError, match=r"cluster\.db.*not a cluster's database"):
        opened()


def test_a_file_of_another_format_is_refused(opened: Open, path: Path) -> None:
    opened().close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="format 99"):
        opened()


def test_a_damaged_file_is_named(opened: Open, path: Path) -> None:
    cluster = opened()
    for number in range(200):
        cluster.create(config_map(f"one-{number}", pad="x" * 2000))
    cluster.close()
    with path.open("r+b") as file:
        file.seek(3 * 4096)
        file.write(b"\xff" * (path.stat().st_size // 2))
    with pytest.raises(UserError, match=r"cluster\.db: the file is damaged"):
        opened().list(kinds.CONFIG_MAP)


def test_a_sound_file_passes_its_check_while_it_is_written(opened: Open, path: Path) -> None:
    check(path)  # absent: it will be made
    cluster = opened()
    cluster.create(config_map("a"))
    check(path)


@pytest.mark.parametrize("damage", ["pages", "half", "text"])
def test_a_damaged_file_does_not_pass_and_stays_as_it_is(path: Path, damage: str) -> None:
    with contextlib.closing(LocalCluster(path)) as cluster:
        for number in range(50):
            cluster.create(config_map(f"a-{number}"))
    whole = path.read_bytes()
    middle = len(whole) // 2 // 4096 * 4096
    if damage == "pages":
        path.write_bytes(whole[:middle] + bytes(4 * 4096) + whole[middle + 4 * 4096 :])
    else:
        path.write_bytes(whole[:middle] if damage == "half" else b"no database at all, but text" * 400)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"cluster\.db: the cluster's database is damaged .* nothing was changed"):
        check(path)
    assert path.read_bytes() == before


def test_old_events_are_forgotten(opened: Open) -> None:
    def event(name: str) -> Object:
        metadata = {"name": name, "namespace": "default"}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": metadata,
            "involvedObject": {"kind": "Node", "name": "a"},
        }

    cluster = opened(events_kept_s=0.0)
    for name in ("one", "two"):
        cluster.create(event(name))
    assert [found["metadata"]["name"] for found in cluster.list(kinds.EVENT).items] == ["two"]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
PLACES = [
    "metadata", "metadata.name", "metadata.namespace", "metadata.labels", "metadata.annotations", "metadata.finalizers",
    "metadata.ownerReferences", "metadata.generation", "spec", "spec.containers", "spec.volumes", "spec.selector",
    "spec.selector.matchLabels", "spec.template", "spec.template.metadata", "spec.template.spec", "spec.replicas",
    "spec.edgeWorker", "spec.edgeWorker.deadline", "spec.edgeWorker.outbox", "spec.edgeWorker.hardExampleAlgorithm",
    "spec.edgeWorker.hardExampleAlgorithm.parameters", "spec.cloudWorker.workerSpec", "spec.nodeName", "involvedObject",
    "spec.renewTime", "data", "status",
]  # fmt: skip
KINDS = [
    kinds.POD, kinds.DEPLOYMENT, kinds.EVENT, kinds.LEASE, kinds.CONFIG_MAP, kinds.NODE, kinds.DATASET,
    kinds.JOINT_INFERENCE_SERVICE,
]  # fmt: skip


@given(kind=st.sampled_from(KINDS), wrong=st.dictionaries(st.sampled_from(PLACES), JUNK, max_size=3))
@settings(max_examples=400, deadline=None)
def test_nonsense_is_refused_or_taken_but_never_crashes(
    shared: LocalCluster, kind: Kind, wrong: dict[str, Any]
) -> None:
    obj: Any = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": "one"},
        "spec": {
            "containers": [{"name": "a", "image": "b"}],
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}},
            "edgeWorker": {"hardExampleAlgorithm": {"name": "Margin"}},
            "cloudWorker": {},
        },
        "involvedObject": {},
    }
    if kind in {kinds.DATASET, kinds.JOINT_INFERENCE_SERVICE}:
        del obj["involvedObject"]
        obj["spec"] = {key: obj["spec"][key] for key in ("edgeWorker", "cloudWorker") if kind != kinds.DATASET}
    for place, value in wrong.items():
        node, *rest = obj, *place.split(".")
        for part in rest[:-1]:
            node = node.setdefault(part, {}) if isinstance(node, dict) else {}
            node = node if isinstance(node, dict) else {}
        node[rest[-1]] = value
    for write in (shared.create, partial(shared.apply, manager="me")):
        with contextlib.suppress(NereidError):
            write(obj, dry_run=True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    cluster = LocalCluster(tmp_path_factory.mktemp("shared") / "cluster.db")
    yield cluster
    cluster.close()


@pytest.fixture
def logged(opened: Open, tmp_path: Path) -> tuple[LocalCluster, Object, Path]:
    """A running Pod with a folder of logs, as the PodRunner leaves it."""
    cluster = opened()
    pod = cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "worker", "annotations": {"nereid.io/log-dir": str(tmp_path)}},
            "spec": {
                "nodeName": "edge-0",
                "containers": [{"name": "main", "image": "i"}, {"name": "side", "image": "i"}],
            },
        }
    )
    return cluster, pod, tmp_path / "main.log"


def test_logs_are_the_lines_that_the_container_wrote(logged: tuple[LocalCluster, Object, Path]) -> None:
    cluster, pod, file = logged
    file.write_text("one\ntwo\nthree")
    assert list(cluster.logs(ref_of(pod))) == ["one", "two", "three"]
    assert list(cluster.logs(ref_of(pod), tail=2)) == ["two", "three"]
    assert list(cluster.logs(ref_of(pod), tail=0)) == []
    file.with_name("main.log.1").write_text("before\n")
    assert list(cluster.logs(ref_of(pod), previous=True)) == ["before"]


def test_logs_of_what_has_not_run_say_so(logged: tuple[LocalCluster, Object, Path]) -> None:
    cluster, pod, _ = logged
    with pytest.raises(Unavailable, match="waiting to start"):
        cluster.logs(ref_of(pod))
    with pytest.raises(NotFound, match="previous terminated container"):
        cluster.logs(ref_of(pod), previous=True)
    with pytest.raises(NotFound, match="container absent is not valid"):
        cluster.logs(ref_of(pod), container="absent")


def test_followed_logs_end_with_the_pod(logged: tuple[LocalCluster, Object, Path]) -> None:
    cluster, pod, file = logged
    file.write_text("one\n")
    lines = cluster.logs(ref_of(pod), follow=True)
    assert next(lines) == "one"
    with file.open("a") as log:
        log.write("two\nthr")
        log.flush()
        assert next(lines) == "two"
        log.write("ee\n")
        log.flush()
        assert next(lines) == "three"
        log.write("last\n")
    cluster.delete(ref_of(pod), grace_s=0)
    assert list(lines) == ["last"]
