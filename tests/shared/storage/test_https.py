# SPDX-License-Identifier: Apache-2.0
"""Downloads over TLS, by processes whose environment names the server's certificate as one to trust."""

import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.shared.storage.file_server import CONTENT, SHA256, Server, serving

# Says why not, where it does not come; stopped once it was asked so often.
FETCH = """
import sys
from pathlib import Path
from nereid_shared.errors import NereidError
from nereid_shared.storage import fetch
looks = 0
def stop():
    global looks
    looks += 1
    return looks > int(sys.argv[5])
try:
    fetch(sys.argv[1], into=Path(sys.argv[2]), sha256=sys.argv[3], max_bytes=10**8, backoff_s=0.01,
          stall_timeout_s=float(sys.argv[4]), stop=stop)
except NereidError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", folder / "key.pem",
         "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem"


@pytest.fixture
def server(certificate: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with serving(context) as running:
        yield running


def fetch(server: Server, into: Path, trusted: Path | None, *, stall_s: float = 30, looks: int = 10**9) -> str:
    """Return what a process said that fetched the server's file."""
    command = [sys.executable, "-c", FETCH, server.url, str(into), SHA256, str(stall_s), str(looks)]
    env = {} if trusted is None else {"SSL_CERT_FILE": str(trusted)}
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


def test_a_file_comes_over_tls_through_cuts_and_stalls(server: Server, certificate: Path, tmp_path: Path) -> None:
    server.cuts = server.stalls = 1
    assert fetch(server, tmp_path, certificate, stall_s=0.3) == ""
    assert (tmp_path / "little.tflite").read_bytes() == CONTENT
    assert [int(asked["Range"][6:-1]) > 0 for asked in server.requests[1:]] == [True, True]


def test_a_silent_tls_connection_ends_when_it_is_told_to(server: Server, certificate: Path, tmp_path: Path) -> None:
    server.stalls = 1
    assert fetch(server, tmp_path, certificate, stall_s=1000, looks=32).startswith("Stopped")
    assert len(server.requests) == 1


def test_a_server_that_nobody_vouches_for_gives_nothing(server: Server, tmp_path: Path) -> None:
    assert "certificate verify failed" in fetch(server, tmp_path, None)
    assert not (tmp_path / "little.tflite").exists()
