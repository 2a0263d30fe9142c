# SPDX-License-Identifier: Apache-2.0
"""What a user sees of an error that ends the GlobalManager."""

import asyncio

import pytest

from nereid_cloud.gm.__main__ import told
from nereid_shared.errors import NereidError, Unavailable, UserError


async def in_two_groups(error: Exception) -> None:
    async def fail() -> None:
        raise error

    async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
        inner.create_task(fail())
        outer.create_task(asyncio.Event().wait())


@pytest.mark.parametrize(
    ("error", "code"), [(UserError("no such file", where="ca.crt", mend="Name another"), 2), (Unavailable("silent"), 1)]
)
async def test_an_error_from_within_task_groups_is_one_line(
    error: NereidError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await in_two_groups(error)
    assert told(raised.value) == code
    assert capsys.readouterr().err == f"error: {error}\n"


async def test_an_error_that_is_not_ours_keeps_its_traceback() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        told(ExceptionGroup("", [UserError("one"), ValueError("other")]))
    assert len(raised.value.exceptions) == 2
