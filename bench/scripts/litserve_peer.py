# SPDX-License-Identifier: Apache-2.0
"""LitServe with the same model and the same preprocessing: ``litserve_peer.py MODEL PORT``."""

import base64
import sys
from pathlib import Path
from typing import Any

import litserve

from nereid_worker.classifier import Classifier


class Api(litserve.LitAPI):  # type: ignore[misc] # it has no types
    """What its documentation asks for: setup, decode, predict, encode."""

    def setup(self, device: str) -> None:
        """Load the model; `device` is not looked at."""
        self._model = Classifier.load(Path(sys.argv[1]))

    def decode_request(self, request: dict[str, Any]) -> bytes:
        """Return the picture's file."""
        return base64.b64decode(request["b64"])

    def predict(self, x: bytes) -> list[float]:
        """Return the output tensor."""
        rows = self._model.preprocessor.one(x)
        output: list[float] = self._model.interpreter.run(rows)[0].tolist()
        return output

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        """Return the body."""
        return {"predictions": [output]}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", devices=1, workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="error", access_log=False)
