# SPDX-License-Identifier: Apache-2.0
"""Who listens at a port already: replicas of one InferenceModel may share it, two models may not.

The system lets any of a user's processes share a port that all of them offer to share, and would give each a part of
the other's requests.
"""

from typing import Final

import aiohttp

OWNER: Final = "owner"
"""The field of the readiness route's body that tells whose server it is: the InferenceModel's uid."""
READY_PATH: Final = "/v2/health/ready"
STRANGER: Final = ""
_TIMEOUT: Final = aiohttp.ClientTimeout(total=5.0)


async def owner_at(host: str, port: int) -> str | None:
    """Return the owner of what listens at a port; `STRANGER` where it does not say, None where nothing listens."""
    address = f"[{host}]" if ":" in host else host or "127.0.0.1"
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.get(f"http://{address}:{port}{READY_PATH}") as answer,
        ):
            said = await answer.json(content_type=None)
    except aiohttp.ClientConnectorError:
        return None
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return STRANGER
    owner = said.get(OWNER) if isinstance(said, dict) else None
    return owner if isinstance(owner, str) else STRANGER
