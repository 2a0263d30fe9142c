# SPDX-License-Identifier: Apache-2.0
"""The contract of watches: every change after a version, in order, as a selector has it."""

import threading
import time
from collections.abc import Callable

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kinds import ref_of
from nereid_cloud.cluster.port import Cluster

from .conftest import Make, Watching

Watch = Callable[..., Watching]


def test_a_watch_continues_a_list(cluster: Cluster, config_map: Make, namespace: str, watching: Watch) -> None:
    config_map("before")
    listed = cluster.list(kinds.CONFIG_MAP, namespace=namespace, labels="!nothing")
    made = config_map("one", labels={"watched": "yes"})
    watch = watching(
        kinds.CONFIG_MAP, namespace=namespace, resource_version=listed.resource_version, labels="watched=yes"
    )
    cluster.patch(ref_of(made), {"data": {"a": "1"}})
    cluster.delete(ref_of(made))
    events = watch.expect(("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one"))
    assert events[1].object["data"] == {"a": "1"}
    assert events[2].object["data"] == {"a": "1"}
    versions = [int(event.object["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))


def test_a_watch_from_an_objects_version_misses_nothing(
    cluster: Cluster, config_map: Make, namespace: str, watching: Watch
) -> None:
    first = config_map("first")
    for number in range(5):
        cluster.patch(ref_of(first), {"data": {"n": str(number)}})
    watch = watching(
        kinds.CONFIG_MAP,
        namespace=namespace,
        resource_version=first["metadata"]["resourceVersion"],
        fields="metadata.name=first",
    )
    events = watch.expect(*[("MODIFIED", "first")] * 5)
    assert [event.object["data"]["n"] for event in events] == ["0", "1", "2", "3", "4"]


def test_a_watch_with_a_selector_adds_what_begins_to_match_and_deletes_what_ceases_to(
    cluster: Cluster, config_map: Make, namespace: str, watching: Watch
) -> None:
    made = config_map("one", labels={"tier": "cloud"})
    version = made["metadata"]["resourceVersion"]
    watch = watching(kinds.CONFIG_MAP, namespace=namespace, resource_version=version, labels="tier=edge")
    cluster.patch(ref_of(made), {"metadata": {"labels": {"tier": "edge"}}})
    cluster.patch(ref_of(made), {"data": {"a": "1"}})
    cluster.patch(ref_of(made), {"metadata": {"labels": {"tier": "cloud"}}})
    cluster.patch(ref_of(made), {"data": {"a": "2"}})
    cluster.patch(ref_of(made), {"metadata": {"labels": {"tier": "edge"}}})
    events = watch.expect(("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one"), ("ADDED", "one"))
    versions = [int(event.object["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions))


def test_a_watch_holds_to_its_namespace_and_kind(
    cluster: Cluster, config_map: Make, dataset: Make, namespace: str, watching: Watch
) -> None:
    version = config_map("zero")["metadata"]["resourceVersion"]
    watch = watching(kinds.DATASET, namespace=namespace, resource_version=version)
    config_map("other")
    cluster.create(dataset())
    watch.expect(("ADDED", "digits"))


def test_a_watch_at_rest_ends_with_its_stop(config_map: Make, namespace: str, watching: Watch) -> None:
    version = config_map()["metadata"]["resourceVersion"]
    several = [watching(kinds.DATASET, namespace=namespace, resource_version=version) for _ in range(10)]
    for watch in several:  # no write wakes the later ones, and they have long come to rest
        watch.close()


def test_a_quiet_watch_ends_at_its_time_out(cluster: Cluster, config_map: Make, namespace: str) -> None:
    version = config_map()["metadata"]["resourceVersion"]
    begun = time.monotonic()
    stop = threading.Event()
    events = cluster.watch(kinds.DATASET, namespace=namespace, resource_version=version, stop=stop, timeout_s=1)
    assert [event for event in events if event.type != "BOOKMARK"] == []
    assert time.monotonic() - begun > 0.5
