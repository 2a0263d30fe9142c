# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol v2 over REST, with the extensions for binary tensors and for classification.

Bodies in and out, no sockets: https://github.com/open-inference/open-inference-protocol (inference_rest), and Triton's
pages on extension_binary_data and extension_classification. Pictures are a BYTES tensor with one JPEG or PNG file a
row, under the input's own name or ``image``; in JSON they are base64.
"""

from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Raw, Struct, field

from nereid_shared.complaints import complaint
from nereid_shared.errors import BadSample, RequestRefused
from nereid_worker.litert import TensorSpec
from nereid_worker.serving.model import Rows, ServedModel
from nereid_worker.serving.tensors import (
    DATATYPES,
    PICTURE,
    pictures,
    pictures_of_base64,
    rows_of_bytes,
    rows_of_json,
)

EXTENSIONS: Final = ("binary_tensor_data", "classification")
_NOT_GIVEN: Final = Raw(b"")


class _Parameters(Struct):
    binary_data_size: int | None = None
    binary_data: bool | None = None
    binary_data_output: bool = False
    classification: int = 0


class _Input(Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters = field(default_factory=_Parameters)
    data: Raw = _NOT_GIVEN


class _Output(Struct):
    name: str
    parameters: _Parameters = field(default_factory=_Parameters)


class _Request(Struct):
    inputs: list[_Input]
    id: str = ""
    outputs: list[_Output] = field(default_factory=list)
    parameters: _Parameters = field(default_factory=_Parameters)


class Asked(Struct, frozen=True, kw_only=True):
    """A request, read.

    Attributes:
        rows: the model's input.
        classes: how many of the best classes are wanted instead of the output's figures; 0 for the figures.
        binary: whether the output is to follow the JSON as bytes.
    """

    id: str
    rows: Rows
    classes: int
    binary: bool


def read(body: bytes | bytearray, *, header_bytes: int | None, model: ServedModel, max_json_bytes: int) -> Asked:
    """Return what a request's body asks for.

    Args:
        body: the JSON, and behind it the tensors' bytes.
        header_bytes: the ``Inference-Header-Content-Length``; None where there is none, and all is JSON.
        model: who is to answer.
        max_json_bytes: more JSON is refused unread.

    Raises:
        RequestRefused: the request is wrong, or not for this model.
    """
    length = len(body) if header_bytes is None else header_bytes
    if not 0 <= length <= len(body):
        raise RequestRefused(f"Inference-Header-Content-Length is {length}, the body has {len(body)} bytes")
    if length > max_json_bytes:
        raise RequestRefused(
            f"{length} bytes of JSON exceed {max_json_bytes}; send tensors by the binary extension", status=413
        )
    view = memoryview(body)
    try:
        request = msgspec.json.decode(view[:length], type=_Request)
    except msgspec.DecodeError as error:
        raise RequestRefused(f"the request is not what the protocol says: {complaint(error, _Request)}") from error
    except (RecursionError, UnicodeDecodeError) as error:
        raise RequestRefused(f"the request is not JSON: {error}") from error
    if len(request.inputs) != 1:
        raise RequestRefused(f"{len(request.inputs)} inputs; the model has one, {model.input.name!r}")
    given = request.inputs[0]
    size = given.parameters.binary_data_size
    if size is not None and (given.data is not _NOT_GIVEN or size != len(body) - length):
        raise RequestRefused(f"input {given.name!r}: binary_data_size is {size}, {len(body) - length} bytes follow")
    if size is None and length != len(body):
        raise RequestRefused(f"{len(body) - length} bytes follow the JSON and belong to no input")
    rows = _rows(given, None if size is None else view[length:], model)
    classes, binary = _wanted(request, model)
    return Asked(id=request.id, rows=rows, classes=classes, binary=binary)


def answer(
    asked: Asked, output: np.ndarray, *, name: str, version: str, model: ServedModel
) -> tuple[bytes, int | None]:
    """Return the response's body, and the length of the JSON in it where bytes follow.

    Raises:
        RequestRefused: 500, the figures cannot be said in JSON.
    """
    spec = model.output
    tensor: dict[str, Any] = {"name": spec.name}
    head = {"model_name": name, "model_version": version, "outputs": [tensor]}
    if asked.id:
        head["id"] = asked.id
    data = b""
    if asked.classes:
        best = [_best(row, asked.classes, model.labels) for row in output.reshape(len(output), -1)]
        tensor |= {"datatype": "BYTES", "shape": [len(best), len(best[0])]}
        texts = [text for row in best for text in row]
        if asked.binary:
            data = b"".join(len(text).to_bytes(4, "little") + text for text in map(str.encode, texts))
        else:
            tensor["data"] = texts
    else:
        tensor |= {"datatype": DATATYPES[output.dtype.name], "shape": output.shape}
        if asked.binary:
            data = np.ascontiguousarray(output, output.dtype.newbyteorder("<")).tobytes()
        else:
            tensor["data"] = figures(output.ravel())
    if not asked.binary:
        return msgspec.json.encode(head), None
    tensor["parameters"] = {"binary_data_size": len(data)}
    text = msgspec.json.encode(head)
    return text + data, len(text)


def metadata(*, name: str, versions: list[str], model: ServedModel) -> bytes:
    """Return what the protocol says of a model; `parameters` adds what our pictures are and the classes' names."""
    said: dict[str, Any] = {
        "name": name, "versions": versions, "platform": model.platform,
        "inputs": [_tensor(model.input, model.input.dtype)], "outputs": [_tensor(model.output, "float32")],
    }  # fmt: skip
    if model.takes_pictures:
        said["parameters"] = {"picture_input": PICTURE, "labels": model.labels}
    return msgspec.json.encode(said)


def figures(flat: np.ndarray) -> list[float]:
    """Return figures for JSON.

    Raises:
        RequestRefused: 500, one is not finite.
    """
    if not np.isfinite(flat).all():
        raise RequestRefused("the model's output is not finite, which JSON cannot say; ask for binary_data", status=500)
    plain: list[float] = flat.tolist()
    return plain


def refusal(error: RequestRefused | BadSample) -> bytes:
    """Return the protocol's body for a failed request."""
    return msgspec.json.encode({"error": str(error)})


def _rows(given: _Input, data: memoryview | None, model: ServedModel) -> Rows:
    spec = model.input
    if given.datatype == "BYTES" and given.name in {spec.name, PICTURE}:
        files = _strings(data) if data is not None else _texts(given.data, model)
        if given.shape not in ([len(files)], [len(files), 1]):
            raise RequestRefused(f"input {given.name!r} has the shape {given.shape} and {len(files)} pictures")
        return pictures(files, model)
    if given.name != spec.name:
        raise RequestRefused(f"there is no input {given.name!r}; the model has {spec.name!r}")
    if given.datatype != DATATYPES[spec.dtype]:
        raise RequestRefused(f"input {spec.name!r} is {given.datatype}; it takes {DATATYPES[spec.dtype]}")
    if data is not None:
        return rows_of_bytes(data, given.shape, model)
    if given.data is _NOT_GIVEN:
        raise RequestRefused(f"input {spec.name!r} has no data")
    return rows_of_json(given.data, model, shape=given.shape)


def _strings(data: memoryview) -> list[bytes]:
    """Return the elements of a BYTES tensor: each after its length in four bytes, little-endian."""
    found, at = [], 0
    while at < len(data):
        begin = at + 4
        at = begin + int.from_bytes(data[at:begin], "little")
        if begin > len(data) or at > len(data):
            raise RequestRefused("a BYTES tensor ends within an element")
        found.append(bytes(data[begin:at]))
    return found


def _texts(data: Raw, model: ServedModel) -> list[bytes]:
    try:
        texts = msgspec.json.decode(data, type=list[str])
    except msgspec.DecodeError as error:
        raise RequestRefused(f"pictures in JSON are a list of base64 texts: {error}") from error
    return pictures_of_base64(texts, model)


def _wanted(request: _Request, model: ServedModel) -> tuple[int, bool]:
    """Return how many classes are wanted, and whether as bytes."""
    if len(request.outputs) > 1 or (request.outputs and request.outputs[0].name != model.output.name):
        raise RequestRefused(f"the model has one output, {model.output.name!r}")
    parameters = request.outputs[0].parameters if request.outputs else _Parameters()
    if parameters.classification < 0:
        raise RequestRefused("classification is a number of classes")
    binary = parameters.binary_data
    return parameters.classification, request.parameters.binary_data_output if binary is None else binary


def _best(row: np.ndarray, classes: int, labels: tuple[str, ...]) -> list[str]:
    """Return the largest figures of a row as the extension has them: ``value:index[:label]``."""
    best = np.argsort(-row, kind="stable")[:classes]
    return [f"{row[i]:f}:{i}" + (f":{labels[i]}" if labels else "") for i in best]


def _tensor(spec: TensorSpec, dtype: str) -> dict[str, Any]:
    return {"name": spec.name, "datatype": DATATYPES[dtype], "shape": [-1, *spec.shape[1:]]}
