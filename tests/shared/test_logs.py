# SPDX-License-Identifier: Apache-2.0
"""Log lines: one event each, its fields beside it."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from nereid_shared import logs


@pytest.fixture
def restored_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("restored_root")
def test_json_lines_carry_the_extras_and_the_traceback() -> None:
    stream = io.StringIO()
    logs.configure(json=True, level="INFO", stream=stream)
    log = logging.getLogger("nereid_test")
    log.debug("not this one")
    log.info("applied", extra={"rev": 7, "node": "größe", "path": io.BytesIO})
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        log.exception("failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["time"].endswith("Z")
    assert {k: first[k] for k in ("level", "logger", "event", "rev", "node")} == {
        "level": "info", "logger": "nereid_test", "event": "applied", "rev": 7, "node": "größe",
    }  # fmt: skip
    assert "ZeroDivisionError" in second["traceback"]


@pytest.mark.usefixtures("restored_root")
def test_readable_lines_quote_what_has_spaces_and_hide_nothing() -> None:
    stream = io.StringIO()
    logs.configure(json=False, stream=stream)
    logging.getLogger("nereid_test").warning("dead letter", extra={"topic": "a/b", "problem": "not\nJSON", "empty": ""})
    line = stream.getvalue()
    assert line.count("\n") == 1
    assert line.endswith('WARNING nereid_test  dead letter  topic=a/b problem="not\\nJSON" empty=""\n')


@pytest.mark.usefixtures("restored_root")
def test_configuring_again_replaces_what_was_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.configure(json=True, stream=first)
    logs.configure(json=False, stream=second)
    logging.getLogger("nereid_test").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
