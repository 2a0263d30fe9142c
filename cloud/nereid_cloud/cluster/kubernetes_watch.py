# SPDX-License-Identifier: Apache-2.0
"""One watch request: its stream of events, which ends by the server, by time or at a word from another thread."""

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

import urllib3

from nereid_cloud.cluster.kubernetes_http import error_of
from nereid_cloud.cluster.port import WatchEvent
from nereid_shared.errors import Unavailable

logger = logging.getLogger(__name__)

_CHUNK_BYTES: Final = 65536
_CHECK_S: Final = 0.2


def events(response: urllib3.BaseHTTPResponse, *, over: Callable[[], bool], quiet_s: float) -> Iterator[WatchEvent]:
    """Yield the events of a watch's response until the server ends it, is silent for too long, or `over` is true.

    Args:
        response: its body is still to be read.
        over: asked every 0.2 s, from another thread.
        quiet_s: silence after which the connection counts as half-open: a new watch tells.

    Raises:
        Gone: the version is too old.
        Unavailable: the stream broke.
    """
    sock: socket.socket | None = getattr(response.connection, "sock", None)
    if sock is not None:
        sock.settimeout(quiet_s)
    done = threading.Event()
    threading.Thread(target=_interrupt, args=(response, over, done), name="watch's end", daemon=True).start()
    try:
        for line in _lines(response):
            if over():
                return
            yield _event(line)
    except (urllib3.exceptions.ReadTimeoutError, TimeoutError):
        logger.info("watch silent, ended", extra={"quiet_s": quiet_s})
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        if not over():
            raise Unavailable(f"the watch broke: {error}") from error
    finally:
        done.set()
        response.close()


def text_lines(response: urllib3.BaseHTTPResponse) -> Iterator[str]:
    """Yield the lines of a log as they come.

    Raises:
        Unavailable: the stream broke.
    """
    try:
        for line in _lines(response):
            yield line.decode(errors="replace")
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unavailable(f"the log broke: {error}") from error
    finally:
        response.close()


def _interrupt(response: urllib3.BaseHTTPResponse, over: Callable[[], bool], done: threading.Event) -> None:
    """Wake the reader, which blocks in its socket, when the watch is over."""
    while not done.wait(_CHECK_S):
        if over():
            # Released already, by the reader: nothing is left to wake.
            with contextlib.suppress(RuntimeError, ValueError, OSError):
                response.shutdown()
            return


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    partial = b""
    for chunk in response.stream(_CHUNK_BYTES):
        *whole, partial = (partial + chunk).split(b"\n")
        yield from whole
    if partial:
        yield partial


def _event(line: bytes) -> WatchEvent:
    event = json.loads(line)
    if not isinstance(event, dict) or not event.keys() >= {"type", "object"}:
        raise ValueError(f"not an event: {line[:200]!r}")
    if event["type"] == "ERROR":
        status = event["object"]
        raise error_of(status.get("code", 500), status, status.get("message", "the watch failed"))
    return WatchEvent(type=event["type"], object=event["object"])
