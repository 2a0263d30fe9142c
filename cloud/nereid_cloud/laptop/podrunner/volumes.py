# SPDX-License-Identifier: Apache-2.0
"""Volumes of a Pod as folders and files of this machine.

There are no mount namespaces: a container's process sees the real path, and `launch` rewrites what names a mount path.
Nothing enforces ``readOnly``.
"""

import base64
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from nereid_cloud.cluster.port import Object
from nereid_shared.errors import PermanentError

Fetch = Callable[[Literal["ConfigMap", "Secret"], str], Object]


class MountFailed(PermanentError):
    """A volume that is not there, or of a kind that the PodRunner does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoot:
    """Host paths at or below `path` are found at or below `folder`."""

    path: PurePosixPath
    folder: Path


def host_path(path: str, roots: tuple[HostRoot, ...]) -> Path:
    """Return where a hostPath lies on this machine."""
    pure = PurePosixPath(path)
    for root in roots:
        if pure.is_relative_to(root.path):
            return root.folder / pure.relative_to(root.path)
    return Path(pure)


def is_token(volume: Mapping[str, Any]) -> bool:
    """Return whether a volume is the token that the API server adds to every Pod; processes get none."""
    sources = volume.get("projected", {}).get("sources", ())
    return any("serviceAccountToken" in source for source in sources)


def prepare(volume: Mapping[str, Any], *, folder: Path, roots: tuple[HostRoot, ...], fetch: Fetch) -> Path:
    """Return the real path of a volume, made where its type says so.

    Args:
        volume: one of the Pod's ``spec.volumes``.
        folder: where emptyDir, configMap and secret volumes of this Pod live.
        roots: where host paths are found.
        fetch: reads a ConfigMap or Secret of the Pod's namespace.

    Raises:
        MountFailed: it is missing or of another type; the kubelet's words.
        NereidError: what `fetch` raises.
    """
    name: str = volume["name"]
    if "hostPath" in volume:
        source = volume["hostPath"]
        return _checked(host_path(source["path"], roots), source.get("type") or "", name, source["path"])
    if "emptyDir" in volume:
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path
    if "configMap" in volume:
        source = volume["configMap"]
        return _files(source, fetch, "ConfigMap", source["name"], folder / name)
    if "secret" in volume:
        source = volume["secret"]
        return _files(source, fetch, "Secret", source["secretName"], folder / name)
    kinds = ", ".join(key for key in volume if key != "name")
    raise MountFailed(f'MountVolume.SetUp failed for volume "{name}": the PodRunner does not know {kinds} volumes')


def _checked(path: Path, type_: str, name: str, asked: str) -> Path:
    try:
        if type_ == "DirectoryOrCreate":
            path.mkdir(parents=True, exist_ok=True)
        elif type_ == "FileOrCreate":
            path.touch()
    except OSError as error:
        raise MountFailed(f'MountVolume.SetUp failed for volume "{name}": {error.strerror}: {path}') from error
    checks = {"Directory": path.is_dir, "File": path.is_file, "DirectoryOrCreate": path.is_dir}
    # Of no type, nothing is checked, as by the kubelet.
    if type_ and not checks.get(type_, path.exists)():
        what = {"Directory": "not a directory", "File": "not a file"}.get(type_, "missing")
        where = asked if str(path) == asked else f"{asked} (here {path})"
        raise MountFailed(
            f'MountVolume.SetUp failed for volume "{name}": hostPath type check failed: {where} is {what}'
        )
    return path


def _files(
    source: Mapping[str, Any], fetch: Fetch, kind: Literal["ConfigMap", "Secret"], name: str, folder: Path
) -> Path:
    try:
        contents = content(fetch(kind, name))
    except PermanentError as error:
        if not source.get("optional"):
            raise MountFailed(f'MountVolume.SetUp failed for volume: {kind.lower()} "{name}": {error}') from error
        contents = {}
    items = source.get("items") or [{"key": key, "path": key} for key in contents]
    folder.mkdir(parents=True, exist_ok=True)
    for item in items:
        if item["key"] not in contents:
            raise MountFailed(f'{kind.lower()} "{name}" has no key "{item["key"]}"')
        path = folder / item["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_bytes(contents[item["key"]])
        temporary.chmod(0o600 if kind == "Secret" else 0o644)
        temporary.replace(path)
    return folder


def content(obj: Object) -> dict[str, bytes]:
    """Return what a ConfigMap or Secret holds, by key."""
    if obj["kind"] == "Secret":
        return {key: base64.b64decode(value) for key, value in (obj.get("data") or {}).items()}
    plain = {key: value.encode() for key, value in (obj.get("data") or {}).items()}
    return plain | {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}


@dataclass(frozen=True, slots=True)
class Mounts:
    """A container's mount paths with the real paths behind them, the longest first."""

    pairs: tuple[tuple[str, Path], ...]

    @classmethod
    def of(cls, container: Mapping[str, Any], volumes: Mapping[str, Path]) -> "Mounts":
        """Return the mounts of a container; `volumes` are the real paths by volume name."""
        pairs = [
            (mount["mountPath"].rstrip("/"), volumes[mount["name"]] / mount.get("subPath", ""))
            for mount in container.get("volumeMounts", ())
            if mount["name"] in volumes
        ]
        return cls(tuple(sorted(pairs, key=lambda pair: -len(pair[0]))))

    def with_file(self, mount_path: str, file: Path) -> "Mounts":
        """Return these mounts and that of one file."""
        return Mounts(((mount_path, file), *self.pairs))

    def real(self, text: str) -> str:
        """Return a text with the mount path that it is or begins with replaced by the real path."""
        for mount_path, path in self.pairs:
            if text == mount_path or text.startswith(mount_path + "/"):
                return os.fspath(path) + text[len(mount_path) :]
        return text
