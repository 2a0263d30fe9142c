# SPDX-License-Identifier: Apache-2.0
"""From a container's spec to what is executed: environment, arguments and working folder of this machine."""

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nereid_cloud.cluster.port import Object
from nereid_cloud.laptop.podrunner.attempt import Launch
from nereid_cloud.laptop.podrunner.volumes import Fetch, Mounts, content
from nereid_shared.errors import NotFound, PermanentError

_PYTHONS = frozenset({"python", "python3"})
_KEYED = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


class CannotCreate(PermanentError):
    """A container that cannot be created as its spec stands.

    Attributes:
        reason: the kubelet's word for it, such as ``CreateContainerError``.
    """

    def __init__(self, message: str, *, reason: str = "CreateContainerError") -> None:
        self.reason = reason
        super().__init__(message)


def resolve(
    pod: Object,
    container: Mapping[str, Any],
    *,
    mounts: Mounts,
    base: Mapping[str, str],
    host_ip: str,
    fetch: Fetch,
    work: Path,
    log: Path,
    log_bytes: int,
) -> Launch:
    """Return what to execute for a container.

    Args:
        pod: the Pod, for the downward API.
        container: one of its ``spec.containers``.
        mounts: texts that are or begin with a mount path get the real one.
        base: the environment that an image would bring: PATH, HOME, LANG.
        host_ip: the node's address.
        fetch: reads a ConfigMap or Secret of the Pod's namespace.
        work: the working folder where the spec names none.
        log: the container's log file.
        log_bytes: its largest size.

    Raises:
        CannotCreate: the program or folder does not exist, or a reference cannot be resolved.
        Unavailable: the API did not answer for a ConfigMap or Secret.
    """
    env = {**base, **_environment(pod, container, mounts, host_ip, fetch)}
    argv = [mounts.real(_expand(part, env)) for part in (*container.get("command", ()), *container.get("args", ()))]
    if not container.get("command"):
        raise CannotCreate("no command specified: there is no image whose entrypoint could be taken")
    cwd = Path(mounts.real(container["workingDir"])) if container.get("workingDir") else work
    if not cwd.is_dir():
        raise CannotCreate(f'working directory "{cwd}" does not exist')
    if argv[0] in _PYTHONS:
        argv[0] = sys.executable
    elif "/" not in argv[0]:
        program = shutil.which(argv[0], path=env.get("PATH", ""))
        if program is None:
            raise CannotCreate(f'exec: "{argv[0]}": executable file not found in $PATH')
        argv[0] = program
    elif not (cwd / argv[0]).is_file():
        raise CannotCreate(f'exec: "{argv[0]}": no such file or directory')
    return Launch(argv=tuple(argv), env=env, cwd=cwd, log=log, log_bytes=log_bytes)


def _environment(
    pod: Object, container: Mapping[str, Any], mounts: Mounts, host_ip: str, fetch: Fetch
) -> dict[str, str]:
    env: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if field in source:
                values = _content(kind, source[field], fetch)
                env |= {source.get("prefix", "") + key: mounts.real(value) for key, value in values.items()}
    for variable in container.get("env", ()):
        value = _value(pod, variable, host_ip, fetch)
        if value is not None:
            env[variable["name"]] = mounts.real(_expand(value, env))
    return env


def _value(pod: Object, variable: Mapping[str, Any], host_ip: str, fetch: Fetch) -> str | None:
    source = variable.get("valueFrom")
    if source is None:
        return str(variable.get("value", ""))
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"], host_ip)
    for kind, field in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if field in source:
            reference = source[field]
            values = _content(kind, reference, fetch)
            if reference["key"] not in values and not reference.get("optional"):
                raise CannotCreate(
                    f"couldn't find key {reference['key']} in {kind} {reference['name']}",
                    reason="CreateContainerConfigError",
                )
            return values.get(reference["key"])
    raise CannotCreate(
        f"env {variable['name']}: the PodRunner does not know {', '.join(source)}", reason="CreateContainerConfigError"
    )


def _content(kind: str, reference: Mapping[str, Any], fetch: Fetch) -> dict[str, str]:
    try:
        found = content(fetch("Secret" if kind == "Secret" else "ConfigMap", reference["name"]))
    except NotFound as error:
        if reference.get("optional"):
            return {}
        raise CannotCreate(f'{kind.lower()} "{reference["name"]}" not found',
                           reason="CreateContainerConfigError") from error  # fmt: skip
    return {key: value.decode(errors="replace") for key, value in found.items()}


def _field(pod: Object, path: str, host_ip: str) -> str:
    metadata, spec = pod["metadata"], pod["spec"]
    keyed = _KEYED.fullmatch(path)
    if keyed:
        return str(metadata.get(keyed[1], {}).get(keyed[2], ""))
    fields = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata.get("namespace", ""),
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.hostIP": host_ip,
        "status.hostIPs": host_ip,
        "status.podIP": host_ip,
        "status.podIPs": host_ip,
    }
    if path not in fields:
        raise CannotCreate(f"unsupported fieldPath: {path}", reason="CreateContainerConfigError")
    return str(fields[path])


def _expand(text: str, env: Mapping[str, str]) -> str:
    """Return a text with ``$(NAME)`` replaced; unknown names stay, ``$$`` is a dollar sign (Kubernetes' rule)."""

    def replacement(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else env.get(match[1], match[0])

    return _REFERENCE.sub(replacement, text)
