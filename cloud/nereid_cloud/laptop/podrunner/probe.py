# SPDX-License-Identifier: Apache-2.0
"""Readiness and liveness probes of processes: exec, httpGet and tcpSocket against the node's address.

All containers of a machine have that address: a port counts only while the container that is probed listens on it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from nereid_cloud.laptop.podrunner.attempt import Launch
from nereid_cloud.laptop.podrunner.listening import listens


async def outcomes(container: Mapping[str, Any], probe: Mapping[str, Any], launch: Launch, *, host: str, pid: int | None
                   ) -> AsyncIterator[bool]:  # fmt: skip
    """Yield what a probe says each time that its thresholds are reached: True for success, False for failure.

    Args:
        container: the container, for the names of its ports.
        probe: its ``readinessProbe`` or ``livenessProbe``.
        launch: the environment and folder in which an ``exec`` runs.
        host: the address that ports are probed on.
        pid: the container's process.
    """
    await asyncio.sleep(probe.get("initialDelaySeconds", 0))
    thresholds = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
    said: bool | None = None
    run = 0
    while True:
        now = await _once(container, probe, launch, host, pid)
        run = run + 1 if now is said else 1
        said = now
        if run == thresholds[now]:
            yield now
        await asyncio.sleep(probe.get("periodSeconds", 10))


async def _once(
    container: Mapping[str, Any], probe: Mapping[str, Any], launch: Launch, host: str, pid: int | None
) -> bool:
    try:
        async with asyncio.timeout(probe.get("timeoutSeconds", 1)):
            if "exec" in probe:
                return await _exec(probe["exec"]["command"], launch)
            target = probe.get("httpGet") or probe.get("tcpSocket") or {}
            port = _port(container, target.get("port", 0))
            if "host" not in target and not (pid and await asyncio.to_thread(listens, pid, port)):
                return False
            ask = _http if "httpGet" in probe else _tcp
            return await ask(target, port, host)
    except (OSError, ValueError, TimeoutError):
        return False


async def _exec(command: list[str], launch: Launch) -> bool:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=launch.cwd, env=dict(launch.env), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        return await process.wait() == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def _http(get: Mapping[str, Any], port: int, host: str) -> bool:
    target = get.get("host") or host
    reader, writer = await asyncio.open_connection(target, port)
    try:
        path = get.get("path", "/")
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n".encode("ascii"))
        status = (await reader.readline()).split()
        return len(status) > 1 and 200 <= int(status[1]) < 400
    finally:
        writer.close()


async def _tcp(socket: Mapping[str, Any], port: int, host: str) -> bool:
    _, writer = await asyncio.open_connection(socket.get("host") or host, port)
    writer.close()
    return True


def _port(container: Mapping[str, Any], port: int | str) -> int:
    for named in container.get("ports", ()):
        if named.get("name") == port:
            return int(named["containerPort"])
    return int(port)
