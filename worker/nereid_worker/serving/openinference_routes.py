# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol's routes, readiness among them."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import msgspec
from aiohttp import web

from nereid_shared.errors import RequestRefused
from nereid_worker.serving import openinference as protocol
from nereid_worker.serving.neighbour import OWNER, READY_PATH
from nereid_worker.serving.server import MAX_JSON_BYTES, Answer, Handler, Server
from nereid_worker.serving.versions import Loaded, Versions

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_MODEL: Final = "/v2/models/{model}"
_VERSION: Final = "/v2/models/{model}/versions/{version}"


class OpenInference:
    """See `nereid_worker.serving.server.Frontend`."""

    name = "v2"

    def __init__(self, server: Server, versions: Versions) -> None:
        self._server, self._versions = server, versions

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Return method, path and handler."""
        return [
            ("POST", f"{_MODEL}/infer", self._infer),
            ("POST", f"{_VERSION}/infer", self._infer),
            ("GET", READY_PATH, self._ready),
            ("GET", "/v2/health/live", self._live),
            ("GET", f"{_MODEL}/ready", self._model_ready),
            ("GET", f"{_VERSION}/ready", self._model_ready),
            ("GET", _MODEL, self._model),
            ("GET", _VERSION, self._model),
            ("GET", "/v2", self._about),
        ]

    def refusal(self, error: RequestRefused) -> bytes:
        """Return the body that says why a request failed."""
        return msgspec.json.encode({"error": str(error)})

    async def _infer(self, request: web.Request, body: bytearray) -> Answer:
        header = request.headers.get(HEADER_LENGTH)
        if header is not None and not (header.isascii() and header.isdecimal() and len(header) < 12):
            raise RequestRefused(f"{HEADER_LENGTH} is {header!r}, not a number of bytes")
        # From here to `submit` nothing is awaited: the version that is found is the one that answers.
        loaded = self._found(request)
        asked = protocol.read(
            body, header_bytes=None if header is None else int(header), model=loaded.model,
            max_json_bytes=MAX_JSON_BYTES,
        )  # fmt: skip
        output = await loaded.batcher.submit(asked.rows)
        said, json_bytes = protocol.answer(
            asked, output, name=loaded.name, version=loaded.version, model=loaded.model
        )  # fmt: skip
        if json_bytes is None:
            return Answer(said, loaded=loaded)
        headers = {HEADER_LENGTH: str(json_bytes)}
        return Answer(said, loaded=loaded, headers=headers, content_type="application/octet-stream")

    async def _live(self, _request: web.Request, _body: bytearray) -> Answer:
        return Answer(b'{"live":true}')

    async def _ready(self, _request: web.Request, _body: bytearray) -> Answer:
        """Answer whether requests are, and what is wrong with versions that should be here."""
        task, default = self._versions.task, self._versions.default
        body = {
            OWNER: task.uid if task else "", "ready": self._server.ready, "draining": self._server.draining,
            "serving_version": default.version if default else "", "target_version": task.target if task else "",
            "versions": [
                {"version": one.version, "status": one.status, "reason": one.reason, "message": one.message}
                for one in self._versions.states()
            ],
        }  # fmt: skip
        return Answer(msgspec.json.encode(body), status=200 if self._server.ready else 503)

    async def _model_ready(self, request: web.Request, _body: bytearray) -> Answer:
        loaded = self._found(request)
        if self._server.draining:
            raise RequestRefused("the server is draining", status=503)
        return Answer(msgspec.json.encode({"name": loaded.name, "version": loaded.version, "ready": True}))

    async def _model(self, request: web.Request, _body: bytearray) -> Answer:
        loaded = self._found(request)
        labels = [one.version for one in self._versions.loaded]
        return Answer(protocol.metadata(name=loaded.name, versions=labels, model=loaded.model))

    async def _about(self, _request: web.Request, _body: bytearray) -> Answer:
        return Answer(
            msgspec.json.encode({"name": "nereid", "version": _version(), "extensions": list(protocol.EXTENSIONS)})
        )

    def _found(self, request: web.Request) -> Loaded:
        """Return the version that a path means.

        Raises:
            RequestRefused: 404 where there is no such model or version, 503 where it is not loaded.
        """
        model, wanted = request.match_info["model"], request.match_info.get("version", "")
        loaded = self._versions.find(wanted)
        if loaded is not None and loaded.name == model:
            return loaded
        task = self._versions.task
        if task is None or model != task.model_name:
            raise RequestRefused(f"Request for unknown model: {model!r} is not found", status=404)
        state = next((one for one in self._versions.states() if one.version == (wanted or task.target)), None)
        if state is None:
            raise RequestRefused(f"Request for unknown model: {model!r} version {wanted!r} is not found", status=404)
        why = f"{state.reason}: {state.message}" if state.reason else "it is being loaded"
        raise RequestRefused(f"model {model!r} version {state.version!r} is not ready: {why}", status=503)


def _version() -> str:
    try:
        return version("nereid-ai")
    except PackageNotFoundError:  # an image that has the packages' files alone
        return ""
