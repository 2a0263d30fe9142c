# SPDX-License-Identifier: Apache-2.0
"""Requests with JSON answers."""

import io
import json
from typing import Any

import aiohttp


async def post(address: str, body: bytes | dict[str, Any], **headers: str) -> tuple[int, dict[str, Any]]:
    """Return status and answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.post(address, data=io.BytesIO(data), headers={"Content-Type": "application/json", **headers}) as answer,
    ):
        said: dict[str, Any] = await answer.json(content_type=None)
        return answer.status, said


async def get(address: str) -> tuple[int, dict[str, Any]]:
    """Return status and answer."""
    async with aiohttp.ClientSession() as session, session.get(address) as answer:
        said: dict[str, Any] = await answer.json(content_type=None)
        return answer.status, said
