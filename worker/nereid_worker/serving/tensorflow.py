# SPDX-License-Identifier: Apache-2.0
"""TensorFlow Serving's REST bodies: predict in rows and columns, classify, status and metadata; no sockets.

https://www.tensorflow.org/tfx/serving/api_rest. The model has one signature, ``serving_default``. A picture is
``{"b64": "…"}`` in a figure's place.
"""

from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from msgspec import Raw, Struct

from nereid_shared.complaints import complaint
from nereid_shared.errors import RequestRefused
from nereid_worker.litert import TensorSpec
from nereid_worker.serving.model import Rows, ServedModel
from nereid_worker.serving.openinference import figures
from nereid_worker.serving.tensors import PICTURE, pictures_of_base64, rows_of_json
from nereid_worker.serving.versions import State

SIGNATURE: Final = "serving_default"
_METHOD: Final = "tensorflow/serving/predict"
_DTYPES: Final = {"float32": "DT_FLOAT", "uint8": "DT_UINT8", "int8": "DT_INT8"}
_STATES: Final = {"ready": "AVAILABLE", "loading": "LOADING", "failed": "END"}
_NOT_GIVEN: Final = Raw(b"")


class _Request(Struct):
    signature_name: str = SIGNATURE


class _Predict(_Request):
    instances: Raw = _NOT_GIVEN
    inputs: Raw = _NOT_GIVEN


class _Classify(_Request, kw_only=True):
    examples: list[dict[str, Raw]]


class _File(Struct):
    b64: str


S = TypeVar("S", bound=_Request)
T = TypeVar("T")


class Asked(Struct, frozen=True, kw_only=True):
    """A request, read: the model's input, and whether it came in columns."""

    rows: Rows
    columns: bool


def read_predict(body: bytearray, model: ServedModel) -> Asked:
    """Return what a body of ``:predict`` asks for.

    Raises:
        RequestRefused: it is wrong, or not for this model.
    """
    request = _parsed(body, _Predict)
    if (request.instances is _NOT_GIVEN) == (request.inputs is _NOT_GIVEN):
        raise RequestRefused("Missing 'inputs' or 'instances' key; one of them has the tensors, not both")
    if request.instances is not _NOT_GIVEN:
        return Asked(rows=_of_rows(_each(request.instances, "instances"), model), columns=False)
    data = request.inputs
    if _begins(data, b"{"):
        named = _decoded(data, dict[str, Raw], "inputs")
        data = data if named.keys() == {"b64"} else _only(named, model)
    if _begins(data, b"{"):
        return Asked(rows=_pictures([data], model), columns=True)
    values = _each(data, "inputs")
    if values and _begins(values[0], b"{"):
        return Asked(rows=_pictures(values, model), columns=True)
    return Asked(rows=rows_of_json(data, model), columns=True)


def answer_predict(asked: Asked, output: np.ndarray) -> bytes:
    """Return the body that answers ``:predict``, in the format of the request.

    Raises:
        RequestRefused: 500, the figures cannot be said in JSON.
    """
    figures(output.ravel())
    return msgspec.json.encode({"outputs" if asked.columns else "predictions": output.tolist()})


def read_classify(body: bytearray, model: ServedModel) -> Rows:
    """Return the model's input of ``:classify``: one feature an example, a picture or the input's figures.

    Raises:
        RequestRefused: it is wrong, or not for this model.
    """
    if not model.labels:
        raise RequestRefused("the model has no card (model.json) that names its classes")
    request = _parsed(body, _Classify)
    values = [_only(one, model) for one in request.examples]
    if not values:
        raise RequestRefused("examples are none")
    return _of_rows(values, model)


def answer_classify(output: np.ndarray, model: ServedModel) -> bytes:
    """Return the body that answers ``:classify``: for each example all classes with their probabilities, best first.

    Raises:
        BadSample: the model's answer is no distribution.
    """
    result = []
    for row in output:
        values = model.prediction(row).values
        result.append(sorted(zip(model.labels, values, strict=True), key=lambda pair: -pair[1]))
    return msgspec.json.encode({"result": result})


def status(states: list[State]) -> bytes:
    """Return the body that says how versions are."""
    return msgspec.json.encode(
        {
            "model_version_status": [
                {
                    "version": one.version, "state": _STATES[one.status],
                    "status": {
                        "error_code": "UNKNOWN" if one.status == "failed" else "OK",
                        "error_message": f"{one.reason}: {one.message}" if one.status == "failed" else "",
                    },
                }
                for one in states
            ]
        }
    )  # fmt: skip


def metadata(*, name: str, version: str, model: ServedModel) -> bytes:
    """Return the body that says what a version takes and gives."""
    signature = {
        "inputs": {model.input.name: _tensor(model.input, model.input.dtype)},
        "outputs": {model.output.name: _tensor(model.output, "float32")},
        "method_name": _METHOD,
    }
    return msgspec.json.encode(
        {
            "model_spec": {"name": name, "signature_name": "", "version": version},
            "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
        }
    )


def _of_rows(values: list[Raw], model: ServedModel) -> Rows:
    """Return the rows of `instances`: figures, pictures, or objects with the one input's name."""
    if values and _begins(values[0], b"{"):
        named = [_decoded(value, dict[str, Raw], "instances") for value in values]
        if any(one.keys() != {"b64"} for one in named):
            values = [_only(one, model) for one in named]
        if _begins(values[0], b"{"):
            return _pictures(values, model)
    # Kept as text until its type is known: a list of Python figures would be made twice.
    return rows_of_json(b"[" + b",".join(map(bytes, values)) + b"]", model)


def _only(named: dict[str, Raw], model: ServedModel) -> Raw:
    """Return what an object gives for the model's one input."""
    known = {model.input.name, PICTURE, f"{PICTURE}_bytes"}
    if len(named) != 1 or not named.keys() <= known:
        raise RequestRefused(f"the inputs are {sorted(named)}; the model has one, {model.input.name!r}")
    return next(iter(named.values()))


def _pictures(values: list[Raw], model: ServedModel) -> list[bytes]:
    return pictures_of_base64([_decoded(value, _File, "a picture").b64 for value in values], model)


def _parsed(body: bytearray, kind: type[S]) -> S:
    try:
        request = msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise RequestRefused(f"JSON Parse error: {complaint(error, kind)}") from error
    except (RecursionError, UnicodeDecodeError) as error:
        raise RequestRefused(f"JSON Parse error: {error}") from error
    name = request.signature_name
    if name not in {"", SIGNATURE}:
        raise RequestRefused(f'Serving signature name: "{name}" not found in signature def')
    return request


def _decoded(value: Raw | bytes, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(value, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RequestRefused(f"{where}: {error}") from error


def _each(value: Raw, where: str) -> list[Raw]:
    values = _decoded(value, list[Raw], where)
    if not values:
        raise RequestRefused(f"{where} are none")
    return values


def _begins(value: Raw | bytes, sign: bytes) -> bool:
    return bytes(memoryview(value)[:32]).lstrip(b" \t\r\n")[:1] == sign


def _tensor(spec: TensorSpec, dtype: str) -> dict[str, Any]:
    sizes = [-1, *spec.shape[1:]]
    return {
        "name": spec.name, "dtype": _DTYPES[dtype],
        "tensor_shape": {"dim": [{"size": str(size), "name": ""} for size in sizes], "unknown_rank": False},
    }  # fmt: skip
