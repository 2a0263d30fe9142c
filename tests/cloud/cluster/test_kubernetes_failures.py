# SPDX-License-Identifier: Apache-2.0
"""What KubernetesCluster makes of an API server's failures, and of its absence."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.control_plane import ApiServer

from nereid_cloud.cluster import kinds
from nereid_cloud.cluster.kubernetes import KubernetesCluster
from nereid_cloud.cluster.kubernetes_http import raise_for
from nereid_cloud.cluster.port import Kind, Ref
from nereid_shared.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NereidError,
    NotFound,
    PermanentError,
    TemporaryError,
    Unavailable,
    UserError,
)


def kubeconfig(folder: Path, *, url: str) -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": "wrong"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return path


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig of a server that accepts connections and never answers."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield kubeconfig(tmp_path, url=f"http://127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (401, "Unauthorized", Forbidden),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "AlreadyExists", AlreadyExists),
        (409, "Conflict", Conflict),
        (410, "Expired", Gone),
        (415, "UnsupportedMediaType", PermanentError),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", Unavailable),
        (500, "InternalError", Unavailable),
        (503, "ServiceUnavailable", Unavailable),
        (504, "Timeout", Unavailable),
    ],
)
def test_an_answer_becomes_the_error_that_it_means(code: int, reason: str, error: type[NereidError]) -> None:
    body = json.dumps({"kind": "Status", "reason": reason, "message": "words", "code": code}).encode()

    with pytest.raises(error, match="words") as raised:
        raise_for(code, body, {})

    assert isinstance(raised.value, TemporaryError) == issubclass(error, TemporaryError)


@pytest.mark.parametrize(
    ("details", "headers", "delay_s"),
    [({"retryAfterSeconds": 7}, {}, 7.0), ({}, {"Retry-After": "3"}, 3.0), ({}, {}, None)],
)
def test_a_server_that_asks_for_patience_gets_it(
    details: dict[str, Any], headers: dict[str, str], delay_s: float | None
) -> None:
    body = json.dumps({"reason": "TooManyRequests", "details": details}).encode()

    with pytest.raises(Unavailable) as raised:
        raise_for(429, body, headers)

    assert raised.value.delay_s == delay_s


def test_an_answer_that_is_no_status_keeps_its_words() -> None:
    with pytest.raises(Unavailable, match="upstream connect error"):
        raise_for(502, b"upstream connect error", {})


def test_an_absent_server_is_unavailable(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    cluster = KubernetesCluster(kubeconfig=kubeconfig(tmp_path, url=f"http://127.0.0.1:{port}"))

    with closing(cluster), pytest.raises(Unavailable, match="does not answer"):
        cluster.identity()


@pytest.mark.slow
def test_a_watch_of_a_silent_server_ends_with_its_stop(silent: Path) -> None:
    stop = threading.Event()
    cluster = KubernetesCluster(kubeconfig=silent)
    failed: list[NereidError] = []

    def watch() -> None:
        try:
            list(cluster.watch(kinds.POD, resource_version="1", stop=stop, timeout_s=0.5))
        except NereidError as error:
            failed.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    stop.set()
    thread.join(30)

    assert not thread.is_alive()
    assert all(isinstance(error, Unavailable) for error in failed)
    cluster.close()


@pytest.mark.parametrize("text", ["", "{}", "no: [yaml"])
def test_a_useless_kubeconfig_is_the_users_to_mend(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)

    with pytest.raises(UserError, match=str(path)):
        KubernetesCluster(kubeconfig=path)


def test_an_unknown_context_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        KubernetesCluster(kubeconfig=kubeconfig(tmp_path, url="http://127.0.0.1:1"), context="nowhere")


def test_outside_a_pod_there_are_no_credentials() -> None:
    with pytest.raises(UserError):
        KubernetesCluster()


@pytest.mark.cluster
def test_a_wrong_token_is_forbidden(api_server: ApiServer, tmp_path: Path) -> None:
    config = yaml.safe_load(api_server.kubeconfig.read_text())
    for one in config["users"]:
        one["user"] = {"token": "wrong"}
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))

    with closing(KubernetesCluster(kubeconfig=path)) as cluster, pytest.raises(Forbidden):
        cluster.identity()


@pytest.mark.cluster
def test_an_untrusted_certificate_is_unavailable(api_server: ApiServer, tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, url=api_server.url)

    with closing(KubernetesCluster(kubeconfig=path)) as cluster, pytest.raises(Unavailable, match="CERTIFICATE"):
        cluster.identity()


@pytest.mark.cluster
def test_a_kind_that_is_not_served_is_not_found(api_server: ApiServer) -> None:
    kind = Kind(group="example.org", version="v1", kind="Nothing", plural="nothings")

    with closing(KubernetesCluster(kubeconfig=api_server.kubeconfig)) as cluster, pytest.raises(NotFound):
        cluster.get(Ref(kind=kind, name="x", namespace="default"))


@pytest.mark.cluster
@pytest.mark.parametrize("how", ["stop", "close"])
def test_a_quiet_watch_ends_at_once_with_its_stop_and_with_the_cluster(api_server: ApiServer, how: str) -> None:
    cluster = KubernetesCluster(kubeconfig=api_server.kubeconfig)
    ref = Ref(kind=kinds.CONFIG_MAP, name="never-changed", namespace="default")
    version = cluster.list(ref.kind).resource_version
    stop, seen = threading.Event(), threading.Event()

    def watch() -> None:
        fields = f"metadata.name={ref.name}"
        for _ in cluster.watch(ref.kind, resource_version=version, stop=stop, fields=fields, timeout_s=3600):
            seen.set()

    thread = threading.Thread(target=watch)
    thread.start()
    cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": ref.name, "namespace": "default"}})
    assert seen.wait(30)
    if how == "stop":
        stop.set()
    else:
        cluster.close()
    thread.join(30)

    assert not thread.is_alive()
    with closing(KubernetesCluster(kubeconfig=api_server.kubeconfig)) as other:
        other.delete(ref)
