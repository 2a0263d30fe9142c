# SPDX-License-Identifier: Apache-2.0
"""Objects of a real S3 server, obtained by processes whose environment says how to reach it."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.shared.storage.file_server import CONTENT
from tests.shared.storage.s3_server import S3Server, s3_serving
from tests.shared.storage.test_cache import CARD

# Obtains, and says where it is or why not; killed by itself when so many bytes are there.
OBTAIN = """
import json, os, signal, sys
from pathlib import Path
from nereid_shared.errors import NereidError
from nereid_shared.storage import Cache, Wanted
root, url, sha256, deadly = sys.argv[1:5]
sys.modules.update(dict.fromkeys(sys.argv[5:]))
def progress(there, whole):
    if there >= int(deadly):
        os.kill(os.getpid(), signal.SIGKILL)
try:
    one = Cache(Path(root), max_bytes=10**9, backoff_s=0.01).obtain(
        Wanted(url=url, sha256=sha256, max_bytes=10**8, companions=True), progress=progress)
    print(json.dumps({"path": str(one.path), "digest": one.digest}))
except NereidError as error:
    print(json.dumps({"error": type(error).__name__, "reason": getattr(error, "reason", ""), "message": str(error)}))
"""
pytestmark = pytest.mark.slow  # Moto takes seconds to start

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("s3") / "log"


@pytest.fixture(scope="module")
def s3(log: Path) -> Iterator[S3Server]:
    with s3_serving(log) as server:
        server.put("/models")
        yield server


def obtain(
    server: S3Server, root: Path, url: str, *, sha256: str = "", deadly: int = 2**62, without: str = "", **env: str
) -> dict[str, Any]:
    """Return what another process came to; nothing where it was killed."""
    command = [sys.executable, "-c", OBTAIN, str(root), url, sha256, str(deadly), *([without] if without else [])]
    env = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", **(env or KEYS)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env, check=False, timeout=60)
    return dict(json.loads(done.stdout)) if done.stdout else {}


def test_a_model_comes_from_a_bucket_with_its_companions(s3: S3Server, tmp_path: Path) -> None:
    card = {**CARD, "golden": [{"input": "golden/größe 1.png", "output": [0, 1]}]}
    for name, content in (
        ("m 1.tflite", CONTENT),
        ("model.json", json.dumps(card).encode()),
        ("golden/größe 1.png", b"0"),
    ):
        s3.put(f"/models/a folder/{name}", content)
    one = obtain(s3, tmp_path, "s3://models/a folder/m 1.tflite")
    path = Path(one["path"])
    assert path.read_bytes() == CONTENT
    assert (path.name, one["digest"]) == ("m 1.tflite", hashlib.sha256(CONTENT).hexdigest())
    assert (path.parent / "golden" / "größe 1.png").read_bytes() == b"0"


@pytest.mark.parametrize("pinned", [True, False])
def test_a_download_from_a_bucket_goes_on_where_it_stopped(
    s3: S3Server, log: Path, tmp_path: Path, pinned: bool
) -> None:
    s3.put(f"/models/{pinned}.tflite", CONTENT)
    sha256 = hashlib.sha256(CONTENT).hexdigest() if pinned else ""
    url = f"s3://models/{pinned}.tflite"
    assert obtain(s3, tmp_path, url, sha256=sha256, deadly=len(CONTENT) // 2) == {}
    one = obtain(s3, tmp_path, url, sha256=sha256)
    assert Path(one["path"]).read_bytes() == CONTENT
    answers = [
        line.rsplit(" ", 2)[1] for line in log.read_text().splitlines() if f"GET /models/{pinned}.tflite" in line
    ]
    assert answers == ["200", "206"]


def test_an_object_that_changed_meanwhile_is_taken_whole(s3: S3Server, tmp_path: Path) -> None:
    s3.put("/models/changing.tflite", CONTENT)
    assert obtain(s3, tmp_path, "s3://models/changing.tflite", deadly=len(CONTENT) // 2) == {}
    s3.put("/models/changing.tflite", CONTENT[::-1])
    one = obtain(s3, tmp_path, "s3://models/changing.tflite")
    assert Path(one["path"]).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("url", ["s3://models/gone.tflite", "s3://no-such-bucket/gone.tflite"])
def test_an_object_that_is_not_there_is_missing(s3: S3Server, tmp_path: Path, url: str) -> None:
    said = obtain(s3, tmp_path, url)
    assert (said["error"], said["reason"]) == ("ModelInvalid", "ModelMissing")
    assert "secret" not in said["message"]
    assert "X-Amz" not in said["message"]


def test_without_credentials_it_says_which_to_set(s3: S3Server, tmp_path: Path) -> None:
    said = obtain(s3, tmp_path, "s3://models/m.tflite", AWS_METADATA_ENDPOINT="http://127.0.0.1:9")
    assert said["error"] == "Unavailable"
    assert "AWS_ACCESS_KEY_ID" in said["message"]


def test_without_the_extra_it_says_what_to_install(s3: S3Server, tmp_path: Path) -> None:
    said = obtain(s3, tmp_path, "s3://models/m.tflite", without="obstore")
    assert said["error"] == "UserError"
    assert "nereid-ai[s3]" in said["message"]


@pytest.mark.parametrize("url", ["s3://models/a//b", "s3://models/a/../b"])
def test_a_key_that_cannot_be_signed_is_the_users_to_mend(s3: S3Server, tmp_path: Path, url: str) -> None:
    assert "Rename the object" in obtain(s3, tmp_path, url)["message"]
