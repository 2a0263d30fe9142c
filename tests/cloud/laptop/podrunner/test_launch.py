# SPDX-License-Identifier: Apache-2.0
"""From a Pod's spec to what is executed here: environment, paths, volumes."""

import base64
import sys
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import pytest

from nereid_cloud.cluster.port import Object
from nereid_cloud.laptop.podrunner.attempt import Launch
from nereid_cloud.laptop.podrunner.launch import CannotCreate, resolve
from nereid_cloud.laptop.podrunner.settings import base_environment
from nereid_cloud.laptop.podrunner.volumes import HostRoot, MountFailed, Mounts, prepare
from nereid_shared.errors import NotFound

POD: Object = {
    "metadata": {
        "name": "a",
        "namespace": "default",
        "uid": "u-1",
        "labels": {"app": "x", "tier/one": "edge"},
        "annotations": {"note": "n"},
    },
    "spec": {"nodeName": "edge-0"},
}
OBJECTS: dict[tuple[str, str], Object] = {
    ("ConfigMap", "settings"): {"kind": "ConfigMap", "data": {"rate": "5", "path": "/data/in"}},
    ("Secret", "token"): {"kind": "Secret", "data": {"key": base64.b64encode(b"hidden").decode()}},
}


def fetch(kind: Literal["ConfigMap", "Secret"], name: str) -> Object:
    try:
        return OBJECTS[kind, name]
    except KeyError:
        raise NotFound(f"{kind} {name} not found") from None


def launch(tmp_path: Path, container: dict[str, Any], *, mounts: Mounts | None = None) -> Launch:
    return resolve(
        POD,
        {"name": "main", "command": ["python"], **container},
        mounts=mounts or Mounts(()),
        base=base_environment({"PATH": "/usr/bin:/bin", "HOME": "/home/me", "SECRET": "not for containers"}),
        host_ip="127.0.0.1",
        fetch=fetch,
        work=tmp_path,
        log=tmp_path / "main.log",
        log_bytes=1000,
    )


@pytest.mark.parametrize("python", ["python", "python3"])
def test_python_is_this_interpreter(tmp_path: Path, python: str) -> None:
    assert launch(tmp_path, {"command": [python, "-m", "x"], "args": ["-v"]}).argv == (sys.executable, "-m", "x", "-v")


def test_other_programs_come_from_path_with_this_environments_own_first(tmp_path: Path) -> None:
    assert launch(tmp_path, {"command": ["sh"]}).argv[0] in {"/usr/bin/sh", "/bin/sh"}
    assert launch(tmp_path, {"command": ["pytest"]}).argv[0] == str(Path(sys.executable).parent / "pytest")


def test_a_container_gets_only_the_base_environment_and_its_own(tmp_path: Path) -> None:
    env = launch(tmp_path, {"env": [{"name": "ONE", "value": "1"}]}).env

    assert env["ONE"] == "1"
    assert env["HOME"] == "/home/me"
    assert env["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert "SECRET" not in env


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "a"),
        ("metadata.namespace", "default"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app']", "x"),
        ("metadata.labels['tier/one']", "edge"),
        ("metadata.labels['absent']", ""),
        ("metadata.annotations['note']", "n"),
        ("spec.nodeName", "edge-0"),
        ("status.hostIP", "127.0.0.1"),
        ("status.podIP", "127.0.0.1"),
    ],
)
def test_the_downward_api_tells_the_pod(tmp_path: Path, path: str, value: str) -> None:
    env = launch(tmp_path, {"env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}]}).env

    assert env["X"] == value


def test_config_maps_and_secrets_become_variables(tmp_path: Path) -> None:
    env = launch(
        tmp_path,
        {
            "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "S_"}],
            "env": [
                {"name": "RATE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "rate"}}},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "token", "key": "key"}}},
                {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "key", "optional": True}}},
            ],
        },
    ).env

    assert (env["S_rate"], env["RATE"], env["KEY"]) == ("5", "5", "hidden")
    assert "NONE" not in env


@pytest.mark.parametrize(
    "source",
    [
        {"configMapKeyRef": {"name": "absent", "key": "x"}},
        {"configMapKeyRef": {"name": "settings", "key": "absent"}},
        {"resourceFieldRef": {"resource": "limits.cpu"}},
        {"fieldRef": {"fieldPath": "spec.nothing"}},
    ],
)
def test_what_cannot_be_resolved_is_a_config_error(tmp_path: Path, source: dict[str, Any]) -> None:
    with pytest.raises(CannotCreate) as raised:
        launch(tmp_path, {"env": [{"name": "X", "valueFrom": source}]})

    assert raised.value.reason == "CreateContainerConfigError"


@pytest.mark.parametrize(
    "container", [{"command": []}, {"command": ["./absent"]}, {"command": ["absent"]}, {"workingDir": "/absent"}]
)
def test_what_cannot_be_run_is_a_create_error(tmp_path: Path, container: dict[str, Any]) -> None:
    with pytest.raises(CannotCreate) as raised:
        launch(tmp_path, container)

    assert raised.value.reason == "CreateContainerError"


def test_variables_refer_to_earlier_ones(tmp_path: Path) -> None:
    found = launch(
        tmp_path,
        {
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$$(A)-$(NONE)"}],
            "args": ["$(B)", "$(A)"],
        },
    )

    assert found.env["B"] == "1-$(A)-$(NONE)"
    assert found.argv[1:] == ("1-$(A)-$(NONE)", "1")


def test_mount_paths_become_real_ones(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    mounts = Mounts.of(
        {
            "volumeMounts": [
                {"name": "state", "mountPath": "/state/"},
                {"name": "other", "mountPath": "/state/other", "subPath": "sub"},
            ]
        },
        {"state": tmp_path / "real", "other": tmp_path / "elsewhere"},
    )

    found = launch(
        tmp_path,
        {
            "args": ["/state", "/state/a", "/stately", "--x=/state/a"],
            "env": [{"name": "S", "value": "/state/b"}, {"name": "O", "value": "/state/other/c"}],
            "workingDir": "/state/deep",
        },
        mounts=mounts,
    )

    assert found.argv[1:] == (f"{tmp_path}/real", f"{tmp_path}/real/a", "/stately", "--x=/state/a")
    assert found.env["S"] == f"{tmp_path}/real/b"
    assert found.env["O"] == f"{tmp_path}/elsewhere/sub/c"
    assert found.cwd == tmp_path / "real" / "deep"


def test_a_launch_reads_back_as_it_was_written_and_only_by_its_owner(tmp_path: Path) -> None:
    written = launch(tmp_path, {"env": [{"name": "X", "value": "ä"}]})
    path = tmp_path / "launch.json"

    written.write(path)

    assert Launch.read(path) == written
    assert path.stat().st_mode & 0o777 == 0o600


def volume(tmp_path: Path, source: dict[str, Any]) -> Path:
    root = HostRoot(path=PurePosixPath("/var/lib/nereid"), folder=tmp_path / "root")
    return prepare({"name": "v", **source}, folder=tmp_path / "volumes", roots=(root,), fetch=fetch)


def test_host_paths_below_a_root_move_there(tmp_path: Path) -> None:
    path = volume(tmp_path, {"hostPath": {"path": "/var/lib/nereid/workers/x", "type": "DirectoryOrCreate"}})

    assert path == tmp_path / "root" / "workers" / "x"
    assert path.is_dir()


def test_a_host_path_of_no_type_is_not_looked_at(tmp_path: Path) -> None:
    assert volume(tmp_path, {"hostPath": {"path": str(tmp_path / "absent")}}) == tmp_path / "absent"


@pytest.mark.parametrize("type_", ["Directory", "File"])
def test_a_missing_host_path_cannot_be_mounted(tmp_path: Path, type_: str) -> None:
    with pytest.raises(MountFailed, match=str(tmp_path / "absent")):
        volume(tmp_path, {"hostPath": {"path": str(tmp_path / "absent"), "type": type_}})


def test_a_host_path_of_another_type_cannot_be_mounted(tmp_path: Path) -> None:
    with pytest.raises(MountFailed, match="not a file"):
        volume(tmp_path, {"hostPath": {"path": str(tmp_path), "type": "File"}})


def test_an_empty_dir_keeps_its_files_over_restarts(tmp_path: Path) -> None:
    (volume(tmp_path, {"emptyDir": {}}) / "kept").touch()

    assert (volume(tmp_path, {"emptyDir": {}}) / "kept").exists()


def test_config_maps_and_secrets_become_files(tmp_path: Path) -> None:
    folder = volume(tmp_path, {"configMap": {"name": "settings", "items": [{"key": "rate", "path": "deep/rate"}]}})
    secret = volume(tmp_path / "other", {"secret": {"secretName": "token"}}) / "key"

    assert (folder / "deep" / "rate").read_text() == "5"
    assert not (folder / "path").exists()
    assert secret.read_text() == "hidden"
    assert secret.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("source", [{"nfs": {"server": "s", "path": "/"}}, {"configMap": {"name": "absent"}}])
def test_what_is_not_there_or_not_known_cannot_be_mounted(tmp_path: Path, source: dict[str, Any]) -> None:
    with pytest.raises(MountFailed):
        volume(tmp_path, source)
