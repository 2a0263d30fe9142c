# SPDX-License-Identifier: Apache-2.0
"""The routes of TensorFlow Serving's REST: by default, by version, and by the one label that there is, ``stable``."""

from collections.abc import Sequence
from typing import Final

import msgspec
from aiohttp import web

from nereid_shared.errors import RequestRefused
from nereid_worker.serving import tensorflow as protocol
from nereid_worker.serving.server import MAX_JSON_BYTES, Answer, Handler
from nereid_worker.serving.versions import Loaded, Versions

STABLE: Final = "stable"
"""The label of the version that answers by default."""

_MODEL: Final = "/v1/models/{model:[^/:]+}"


class TensorFlowServing:
    """See `nereid_worker.serving.server.Frontend`."""

    name = "tensorflow"

    def __init__(self, versions: Versions) -> None:
        self._versions = versions

    def routes(self) -> Sequence[tuple[str, str, Handler]]:
        """Return method, path and handler."""
        bases = (_MODEL, f"{_MODEL}/versions/{{version:[^/:]+}}", f"{_MODEL}/labels/{{label:[^/:]+}}")
        return [
            *(("POST", f"{base}:predict", self._predict) for base in bases),
            *(("POST", f"{base}:classify", self._classify) for base in bases),
            *(("GET", f"{base}/metadata", self._metadata) for base in bases),
            *(("GET", base, self._status) for base in bases),
        ]

    def refusal(self, error: RequestRefused) -> bytes:
        """Return the body that says why a request failed."""
        return msgspec.json.encode({"error": str(error)})

    async def _predict(self, request: web.Request, body: bytearray) -> Answer:
        loaded = self._found(request)
        _require_bounded(body)
        asked = protocol.read_predict(body, loaded.model)
        output = await loaded.batcher.submit(asked.rows)
        return Answer(protocol.answer_predict(asked, output), loaded=loaded)

    async def _classify(self, request: web.Request, body: bytearray) -> Answer:
        loaded = self._found(request)
        _require_bounded(body)
        output = await loaded.batcher.submit(protocol.read_classify(body, loaded.model))
        return Answer(protocol.answer_classify(output, loaded.model), loaded=loaded)

    async def _metadata(self, request: web.Request, _body: bytearray) -> Answer:
        loaded = self._found(request)
        return Answer(protocol.metadata(name=loaded.name, version=loaded.version, model=loaded.model))

    async def _status(self, request: web.Request, _body: bytearray) -> Answer:
        wanted = self._wanted(request)
        states = [one for one in self._versions.states() if not wanted or one.version == wanted]
        if not states:
            raise self._missing(request)
        return Answer(protocol.status(states))

    def _found(self, request: web.Request) -> Loaded:
        """Return the version that a path means.

        Raises:
            RequestRefused: 404 where there is none that answers.
        """
        loaded = self._versions.find(self._wanted(request))
        if loaded is None or loaded.name != request.match_info["model"]:
            raise self._missing(request)
        return loaded

    def _wanted(self, request: web.Request) -> str:
        """Return the version that a path names, "" for the default.

        Raises:
            RequestRefused: there is no such model or label.
        """
        task, given = self._versions.task, request.match_info
        label = given.get("label", STABLE)
        if task is None or given["model"] != task.model_name or label != STABLE:
            raise self._missing(request)
        return given.get("version", "")

    def _missing(self, request: web.Request) -> RequestRefused:
        given = request.match_info
        asked = given.get("version") or given.get("label")
        kind = "Specific" if "version" in given else "Label" if "label" in given else "Latest"
        which = f"{given['model']}, {asked}" if asked else given["model"]
        return RequestRefused(f"Servable not found for request: {kind}({which})", status=404)


def _require_bounded(body: bytearray) -> None:
    if len(body) > MAX_JSON_BYTES:
        raise RequestRefused(f"{len(body)} bytes of JSON exceed {MAX_JSON_BYTES}", status=413)
