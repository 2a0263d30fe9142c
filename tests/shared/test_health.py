# SPDX-License-Identifier: Apache-2.0
import asyncio
import contextlib
import urllib.error
import urllib.request

import pytest

from nereid_shared.errors import UserError
from nereid_shared.health import Health, address_of, answering, serving


async def get(port: int, path: str) -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


async def test_a_process_is_alive_before_it_is_ready() -> None:
    health = Health()
    async with serving(("127.0.0.1", 0), lambda: health.problem) as port:
        assert await get(port, "/livez") == (200, "ok\n")
        assert await get(port, "/readyz") == (503, "starting\n")
        health.ready()
        assert await get(port, "/readyz") == (200, "ok\n")
        health.not_ready("no API server")
        assert await get(port, "/readyz") == (503, "no API server\n")


async def test_only_probes_are_answered() -> None:
    async with serving(("127.0.0.1", 0), str) as port:
        assert (await get(port, "/metrics"))[0] == 404


async def test_a_client_that_says_nothing_of_sense_harms_nobody() -> None:
    async with serving(("127.0.0.1", 0), str) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * 100_000 + b"\n")
        async with asyncio.timeout(30):
            await reader.read()
        writer.close()
        assert await get(port, "/livez") == (200, "ok\n")


async def test_a_port_that_is_taken_is_the_users_to_mend() -> None:
    async with serving(("127.0.0.1", 0), str) as port:
        with pytest.raises(UserError, match="cannot listen"):
            async with serving(("127.0.0.1", port), str):
                pass


async def test_what_is_probed_does_not_wait_for_its_address() -> None:
    async with asyncio.timeout(30):
        async with contextlib.AsyncExitStack() as taken:
            port = await taken.enter_async_context(serving(("127.0.0.1", 0), lambda: "another's"))
            async with answering(("127.0.0.1", port), str):
                assert await get(port, "/readyz") == (503, "another's\n")
                await taken.aclose()
                while (await said(port))[0] != 200:
                    await asyncio.sleep(0.1)
        assert await said(port) == (0, "")


async def said(port: int) -> tuple[int, str]:
    try:
        return await get(port, "/readyz")
    except urllib.error.URLError:
        return 0, ""


async def test_nothing_is_served_where_no_address_is_given() -> None:
    async with serving(None, str) as port:
        assert port == 0


@pytest.mark.parametrize(
    ("text", "address"), [("127.0.0.1:9470", ("127.0.0.1", 9470)), (":80", ("", 80)), ("[::1]:80", ("::1", 80))]
)
def test_an_address_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert address_of(text) == address


@pytest.mark.parametrize("text", ["127.0.0.1", "host:http", "host:70000", ""])
def test_other_texts_are_no_addresses(text: str) -> None:
    with pytest.raises(UserError, match="host:port"):
        address_of(text)
