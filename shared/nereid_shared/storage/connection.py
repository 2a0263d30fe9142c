# SPDX-License-Identifier: Apache-2.0
"""HTTP as a download needs it: no scheme but http and https, and reads that end when told to or when nothing comes."""

import functools
import http.client
import io
import socket
import ssl
import time
import urllib.request
from collections.abc import Mapping
from typing import Any, Final

from nereid_shared.storage.patience import LOOK_EVERY_S, Patience

_CONNECT_S: Final = 10.0
_BUFFER_BYTES: Final = 64 * 1024


def opened(url: str, headers: Mapping[str, str], patience: Patience) -> http.client.HTTPResponse:
    """Return the answer to a GET, its body still to be read.

    Raises:
        urllib.error.HTTPError: the server refused; OSError, http.client.HTTPException: there is no answer.
        Stopped: `patience` says so, here and while the body is read.
    """
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", **headers})  # noqa: S310 - the opener knows http and https only
    answer = _opener(patience).open(request, timeout=min(patience.stall_s, _CONNECT_S))
    assert isinstance(answer, http.client.HTTPResponse)  # noqa: S101 - urllib's type for what has no other here
    return answer


def _opener(patience: Patience) -> urllib.request.OpenerDirector:
    # Not the default one: it would follow a redirect to ftp, and open file: and data: URLs.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Http(patience),
        _Https(patience),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


class _Http(urllib.request.HTTPHandler):
    def __init__(self, patience: Patience) -> None:
        super().__init__()
        self._patience = patience

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)

    def _connection(self, host: str, **options: Any) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(host, **options)
        connection.response_class = functools.partial(_Response, patience=self._patience)  # type: ignore[assignment]
        return connection


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, patience: Patience) -> None:
        super().__init__()
        self._patience = patience

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)

    def _connection(self, host: str, **options: Any) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(host, context=_tls(), **options)
        connection.response_class = functools.partial(_Response, patience=self._patience)  # type: ignore[assignment]
        return connection


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads all certificates of the system: 20 ms


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, patience: Patience, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_PatientReader(sock, self.fp, patience), _BUFFER_BYTES)


class _PatientReader(io.RawIOBase):
    """A socket's bytes. A timeout of the socket alone could not be used: after one its own file refuses to go on."""

    def __init__(self, sock: socket.socket, keeps_open: io.BufferedIOBase, patience: Patience) -> None:
        super().__init__()
        self._socket, self._keeps_open, self._patience = sock, keeps_open, patience
        sock.settimeout(min(LOOK_EVERY_S, patience.stall_s))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # the buffer protocol has no type before Python 3.12
        silent_since = time.monotonic()
        while True:
            self._patience.check()
            try:
                return self._socket.recv_into(buffer)
            except TimeoutError:
                if time.monotonic() - silent_since >= self._patience.stall_s:
                    raise TimeoutError(f"nothing came for {self._patience.stall_s:g} s") from None

    def close(self) -> None:
        if not self.closed:
            self._keeps_open.close()
        super().close()
