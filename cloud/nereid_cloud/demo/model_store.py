# SPDX-License-Identifier: Apache-2.0
"""Where the served models of the demo come from: their files behind an HTTP server, good versions and broken ones."""

import contextlib
import functools
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from nereid_cloud import data
from nereid_cloud.demo.traffic import Golden

FIRST, SECOND, WRONG_DIGEST, WRONG_MODEL = "1", "2", "3", "4"
_FILES: Final = {FIRST: "little/little.tflite", SECOND: "big/big.tflite", WRONG_MODEL: "wrong/big.tflite"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The model's versions.

    Attributes:
        manifest: as an InferenceModel names them. `FIRST` and `SECOND` are good; of `WRONG_DIGEST` the server has
            another file than the digest says, and `WRONG_MODEL` is not the model that its card describes.
        golden: what the good ones answer.
    """

    manifest: list[dict[str, str]]
    golden: Golden


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """Lay out the files below `folder` and serve them on a free port of this machine while the context lasts."""
    models = data.path("examples") / "digits" / "models"
    for name in ("little", "big"):
        shutil.copytree(models / name, folder / name)
    _write_wrong_model(folder)
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="models", daemon=True)
        thread.start()
        try:
            root = f"http://127.0.0.1:{server.server_port}"
            cards = {version: (folder / _FILES[version]).with_name("model.json") for version in (FIRST, SECOND)}
            yield Store(manifest=_manifest(folder, root), golden=Golden.load(cards))
        finally:
            server.shutdown()
            thread.join()


def _manifest(folder: Path, root: str) -> list[dict[str, str]]:
    def version(name: str, file: str, sha256: str) -> dict[str, str]:
        return {"version": name, "downloadURL": f"{root}/{file}", "sha256sum": sha256}

    digests = {name: hashlib.sha256((folder / file).read_bytes()).hexdigest() for name, file in _FILES.items()}
    good = [version(name, _FILES[name], digests[name]) for name in (FIRST, SECOND)]
    wrong_digest = version(WRONG_DIGEST, _FILES[SECOND], digests[FIRST])
    return [*good, wrong_digest, version(WRONG_MODEL, _FILES[WRONG_MODEL], digests[WRONG_MODEL])]


def _write_wrong_model(folder: Path) -> None:
    """Put the little model under the big one's card: tensors that fit, and another model's answers."""
    wrong = (folder / _FILES[WRONG_MODEL]).parent
    shutil.copytree(folder / "big", wrong)
    shutil.copyfile(folder / _FILES[FIRST], folder / _FILES[WRONG_MODEL])
    card: dict[str, Any] = json.loads((wrong / "model.json").read_text())
    # Written by someone who believed that it is: only the self-test can tell.
    content = (folder / _FILES[WRONG_MODEL]).read_bytes()
    card["file"] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (wrong / "model.json").write_text(json.dumps(card))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: standard error is for the demo's progress."""
