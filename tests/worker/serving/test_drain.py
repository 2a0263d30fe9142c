# SPDX-License-Identifier: Apache-2.0
"""How a server ends: what is under way is answered, nothing new is kept, and it says so before."""

import asyncio
import json
import socket
from pathlib import Path

import aiohttp
import pytest
from tests.worker.serving.served import (
    MODEL,
    WAIT_S,
    listening,
    model_in,
    running,
    settings_of,
    task_of,
    url,
    version_of,
)

from nereid_worker.serving.process import ServingProcess
from nereid_worker.serving.server import lame_duck_at


def request_bytes(*, body: bytes) -> bytes:
    head = f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def body() -> bytes:
    given = {"name": "t0", "shape": [1, 8, 8, 1], "datatype": "FP32", "data": [0.0] * 64}
    return json.dumps({"inputs": [given]}).encode()


async def test_a_request_under_way_is_answered_and_its_connection_closed(tmp_path: Path) -> None:
    task = task_of(version_of(model_in(tmp_path), "1"))
    async with running(task) as process:
        await listening(process)
        reader, writer = await asyncio.open_connection("127.0.0.1", process.server.port)
        whole = request_bytes(body=body())
        writer.write(whole[:-10])
        async with asyncio.timeout(WAIT_S):
            while process.server.in_flight == 0:
                await asyncio.sleep(0)
            process.stop()
            while not process.server.draining:
                await asyncio.sleep(0)
            # The drain has begun, and the rest of the request is yet to come.
            writer.write(whole[-10:])
            said = await reader.read()
        writer.close()
    assert said.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in said.lower()
    assert b'"model_version":"1"' in said


async def test_a_draining_server_is_not_ready_but_answers_until_its_socket_closes(tmp_path: Path) -> None:
    process = ServingProcess(settings_of(task_of(version_of(model_in(tmp_path), "1"))), lame_duck_s=WAIT_S)
    async with asyncio.TaskGroup() as group:
        running_ = group.create_task(process.run())
        await listening(process)
        process.stop()
        async with asyncio.timeout(WAIT_S), aiohttp.ClientSession() as session:
            while not process.server.draining:
                await asyncio.sleep(0)
            async with session.get(url(process, "/v2/health/ready")) as answer:
                assert (answer.status, (await answer.json())["draining"]) == (503, True)
            async with session.get(url(process, f"/v2/models/{MODEL}/ready")) as answer:
                assert answer.status == 503
            async with session.get(url(process, "/v2/health/live")) as answer:
                assert answer.status == 200
            async with session.post(url(process, f"/v2/models/{MODEL}/infer"), data=body()) as answer:
                assert (answer.status, answer.headers["Connection"]) == (200, "close")
        running_.cancel()


async def test_who_has_connected_when_the_socket_closes_is_answered(tmp_path: Path) -> None:
    """The loop has no turn between the connection and the drain: the system alone knows of it."""
    async with running(task_of(version_of(model_in(tmp_path), "1"))) as process:
        await listening(process)
        with socket.create_connection(("127.0.0.1", process.server.port), timeout=WAIT_S) as link:
            link.sendall(request_bytes(body=body()))
            await process.server.drain()
            said = await asyncio.to_thread(link.recv, 1 << 16)
        assert said.startswith(b"HTTP/1.1 200")


async def test_another_model_s_server_gets_no_part_of_a_port(tmp_path: Path) -> None:
    file = version_of(model_in(tmp_path / "1", shift=1.0), "1")
    async with running(task_of(file)) as first:
        await listening(first)
        async with running(task_of(file, uid="another"), port=first.server.port) as second:
            async with asyncio.timeout(WAIT_S):
                while "PortUnavailable" not in second.problem:
                    await asyncio.sleep(0)
            assert second.server.port == 0


async def test_two_servers_share_a_port(tmp_path: Path) -> None:
    one = task_of(version_of(model_in(tmp_path / "1", shift=1.0), "1"))
    async with running(one) as first:
        await listening(first)
        async with running(one, port=first.server.port, worker="isv-2") as second:
            await listening(second)
            assert second.server.port == first.server.port
        async with aiohttp.ClientSession() as session, session.get(url(first, "/v2/health/ready")) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("host", "late"), [("", True), ("0.0.0.0", True), ("10.1.2.3", True), ("127.0.0.1", False), ("::1", False)]
)
def test_only_a_server_that_others_reach_is_a_lame_duck(host: str, late: bool) -> None:
    assert bool(lame_duck_at(host)) is late
