# SPDX-License-Identifier: Apache-2.0
"""A real S3 server, Moto's, in a process of its own."""

import contextlib
import http.client
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

_START = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"

# Moto wants to see that a request is signed, and does not verify it.
_CREDENTIAL = "key/20260101/us-east-1/s3/aws4_request"
_HEADERS = {
    "Authorization": f"AWS4-HMAC-SHA256 Credential={_CREDENTIAL}, SignedHeaders=host, Signature=0",
    "Content-Type": "application/octet-stream",
}


class S3Server:
    """Attributes: port: where it listens on 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.port = port

    def put(self, path: str, content: bytes = b"") -> None:
        """Make a bucket (``/bucket``), or an object in it (``/bucket/key``)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("PUT", quote(path), content, _HEADERS)
            assert connection.getresponse().status == 200


@contextlib.contextmanager
def s3_serving(log: Path) -> Iterator[S3Server]:
    with (
        log.open("wb") as output,
        subprocess.Popen([sys.executable, "-c", _START], stderr=output, stdout=output) as server,
    ):
        try:
            until = time.monotonic() + 60
            while not (said := re.search(rb"Running on http://127\.0\.0\.1:(\d+)", log.read_bytes())):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < until
                time.sleep(0.05)
            yield S3Server(int(said[1]))
        finally:
            server.terminate()
