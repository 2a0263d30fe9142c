# SPDX-License-Identifier: Apache-2.0
"""A kind's objects, followed through everything that an API server and the network before it do wrong."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from tests.cluster.control_plane import ApiServer
from tests.cluster.faults import FaultProxy, Request
from tests.cluster.kubectl import Kubectl
from tests.flow.patience import until

from nereid_cloud.cluster.kinds import CONFIG_MAP
from nereid_cloud.cluster.kubernetes import KubernetesCluster
from nereid_cloud.cluster.listwatch import ListWatch
from nereid_cloud.cluster.port import Object, Ref, WatchEvent
from nereid_shared.errors import Unavailable

pytestmark = pytest.mark.cluster

QUIET_S = 1.5
_CALLS = 32
LABELS = "followed=yes"


class Follower:
    """What a ListWatch says the objects are."""

    def __init__(self, cluster: KubernetesCluster) -> None:
        self.names: set[str] = set()
        self.lists = 0
        self._stop = threading.Event()
        self._follow = ListWatch(
            cluster, CONFIG_MAP, on_list=self._listed, on_event=self._changed, stop=self._stop, labels=LABELS,
            last_retry_s=1.0,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._follow.run)
        self._thread.start()

    def _listed(self, objects: list[Object]) -> None:
        self.names = {obj["metadata"]["name"] for obj in objects}
        self.lists += 1

    def _changed(self, event: WatchEvent) -> None:
        name = event.object["metadata"]["name"]
        self.names = self.names - {name} if event.type == "DELETED" else self.names | {name}

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_many_calls_at_once_throw_no_connection_away(api_server: ApiServer, caplog: pytest.LogCaptureFixture) -> None:
    together = threading.Barrier(_CALLS)

    def call(_: int) -> None:
        together.wait(30)
        cluster.list(CONFIG_MAP, namespace="default")

    with closing(KubernetesCluster(kubeconfig=api_server.kubeconfig)) as cluster, ThreadPoolExecutor(_CALLS) as pool:
        for _ in range(3):
            list(pool.map(call, range(_CALLS)))
    assert not [record for record in caplog.records if record.name.startswith("urllib3")]


@pytest.fixture
def proxy(api_server: ApiServer) -> Iterator[FaultProxy]:
    with FaultProxy(api_server.kubeconfig) as between:
        yield between


@pytest.fixture
def through(proxy: FaultProxy, tmp_path: Path) -> Iterator[KubernetesCluster]:
    with closing(KubernetesCluster(kubeconfig=proxy.kubeconfig(tmp_path), quiet_s=QUIET_S)) as cluster:
        yield cluster


@pytest.fixture
def make(api_server: ApiServer, kubectl: Kubectl) -> Iterator[Callable[[str], Ref]]:
    """Makes an object past the proxy."""
    with closing(KubernetesCluster(kubeconfig=api_server.kubeconfig)) as cluster:

        def create(name: str) -> Ref:
            metadata = {"name": name, "namespace": kubectl.namespace, "labels": {"followed": "yes"}}
            cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
            return Ref(kind=CONFIG_MAP, name=name, namespace=kubectl.namespace)

        yield create
        for left in cluster.list(CONFIG_MAP, namespace=kubectl.namespace, labels=LABELS).items:
            cluster.delete(Ref(kind=CONFIG_MAP, name=left["metadata"]["name"], namespace=kubectl.namespace))


@pytest.fixture
def follower(through: KubernetesCluster, make: Callable[[str], Ref], proxy: FaultProxy) -> Iterator[Follower]:
    """It follows one object, and its watch is open."""
    make("first")
    started = Follower(through)
    until(lambda: proxy.watching("configmaps"), "the first watch")
    assert started.names == {"first"}
    yield started
    started.stop()


def is_watch(request: Request) -> bool:
    return request.is_watch


def test_a_watch_that_is_cut_goes_on_where_it_was(
    follower: Follower, proxy: FaultProxy, make: Callable[[str], Ref]
) -> None:
    assert proxy.cut_watches() == 1
    make("second")
    until(lambda: follower.names == {"first", "second"}, "the change after the cut")
    assert follower.lists == 1


def test_a_watch_that_is_too_old_is_followed_by_a_new_list(
    follower: Follower, proxy: FaultProxy, make: Callable[[str], Ref]
) -> None:
    assert proxy.expire_watches() == 1
    make("second")
    until(lambda: follower.names == {"first", "second"}, "the new list")
    assert follower.lists == 2


def test_a_half_open_watch_is_left_and_misses_nothing(
    follower: Follower, proxy: FaultProxy, make: Callable[[str], Ref]
) -> None:
    assert proxy.freeze_watches() == 1
    make("second")
    until(lambda: follower.names == {"first", "second"}, "the change behind the half-open watch")
    assert follower.lists == 1


def test_a_server_that_was_away_is_listed_again(
    follower: Follower, proxy: FaultProxy, make: Callable[[str], Ref]
) -> None:
    proxy.refuse(500, "InternalError", when=is_watch, times=3)
    proxy.cut_watches()
    make("second")
    until(lambda: follower.names == {"first", "second"}, "the change after the outage")
    assert follower.lists > 1


def test_a_server_that_asks_for_patience_gets_it_and_no_new_list(
    follower: Follower, proxy: FaultProxy, make: Callable[[str], Ref]
) -> None:
    began = time.monotonic()
    proxy.refuse(429, "TooManyRequests", when=is_watch, times=2, retry_after_s=1)
    proxy.cut_watches()
    make("second")
    until(lambda: follower.names == {"first", "second"}, "the change after the rush")
    assert time.monotonic() - began > 2
    assert follower.lists == 1


def test_a_server_that_always_says_gone_is_not_besieged(follower: Follower, proxy: FaultProxy) -> None:
    proxy.refuse(410, "Expired", when=is_watch, times=1_000)
    began = time.monotonic()
    proxy.cut_watches()
    until(lambda: follower.lists >= 4, "some new lists")
    assert time.monotonic() - began > 1


def test_a_slow_server_is_waited_for(through: KubernetesCluster, proxy: FaultProxy, make: Callable[[str], Ref]) -> None:
    proxy.delay_s = 0.5
    ref = make("slow")
    assert through.get(ref)["metadata"]["name"] == "slow"


def test_a_call_is_made_again_where_the_server_has_done_nothing(
    through: KubernetesCluster, proxy: FaultProxy, make: Callable[[str], Ref]
) -> None:
    ref = make("first")
    proxy.refuse(429, "TooManyRequests", when=lambda request: request.method == "PATCH", retry_after_s=0, times=2)
    assert through.patch(ref, {"data": {"a": "1"}})["data"] == {"a": "1"}
    assert [request.method for request in proxy.requests] == ["PATCH"] * 3


@pytest.mark.parametrize(("code", "reason"), [(500, "InternalError"), (504, "Timeout")])
def test_a_call_that_may_have_been_carried_out_is_its_callers_to_repeat(
    through: KubernetesCluster, proxy: FaultProxy, make: Callable[[str], Ref], code: int, reason: str
) -> None:
    ref = make("first")
    proxy.refuse(code, reason, when=lambda request: request.method == "PATCH", retry_after_s=1)
    with pytest.raises(Unavailable, match=reason):
        through.patch(ref, {"data": {"a": "1"}})
    assert [request.method for request in proxy.requests] == ["PATCH"]
