# SPDX-License-Identifier: Apache-2.0
"""From a request's figures to rows of a model's input: nothing is cast silently, and a complaint says what is right."""

import base64
import binascii
import functools
import math
from typing import Any, Final

import msgspec
import numpy as np

from nereid_shared.errors import RequestRefused
from nereid_worker.litert import TensorSpec
from nereid_worker.serving.model import ServedModel

PICTURE: Final = "image"
"""The name under which a request may give encoded pictures, beside the input tensor's own."""

DATATYPES: Final = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip
"""From numpy's names to the Open Inference Protocol's."""

MAX_ROWS: Final = 4096
MAX_PICTURES: Final = 64
"""A few bytes of a row, or of a picture, can mean much work, which is another bound than the body's size."""


def rows_of_bytes(data: "memoryview | bytes", shape: list[int], model: ServedModel) -> np.ndarray:
    """Return the rows that a tensor's bytes are, without a copy.

    Raises:
        RequestRefused: they are not `shape`, or that is not the model's.
    """
    check_shape(shape, model.input)
    dtype = np.dtype(model.input.dtype)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise RequestRefused(
            f"input {model.input.name!r} has {len(data)} bytes; {DATATYPES[dtype.name]} of shape {shape} has "
            f"{math.prod(shape) * dtype.itemsize}"
        )
    return np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)


def rows_of_json(data: bytes | msgspec.Raw, model: ServedModel, *, shape: list[int] | None = None) -> np.ndarray:
    """Return the rows that JSON's figures are: nested as the input is, or flat too where `shape` is given.

    Raises:
        RequestRefused: they are not numbers, not as many, or not within the input's type.
    """
    spec = model.input
    kind = np.dtype(spec.dtype).kind
    number = {"f": float, "b": bool}.get(kind, int)
    nested = _nested(number, len(spec.shape))
    try:
        if shape is None:
            rows = _array(msgspec.json.decode(data, type=nested), spec)
            check_shape(list(rows.shape), spec)
            return rows
        check_shape(shape, spec)
        try:
            figures = msgspec.json.decode(data, type=_nested(number, 1))
        except msgspec.ValidationError:
            figures = msgspec.json.decode(data, type=nested)
    except (msgspec.DecodeError, RecursionError) as error:
        raise RequestRefused(f"input {spec.name!r}: {error}; it takes {describe(spec)}") from error
    rows = _array(figures, spec)
    if rows.size != math.prod(shape):
        raise RequestRefused(f"input {spec.name!r} has {rows.size} figures; the shape {shape} has {math.prod(shape)}")
    return rows.reshape(shape)


def pictures_of_base64(texts: list[str], model: ServedModel) -> list[bytes]:
    """Return encoded pictures.

    Raises:
        RequestRefused: one is not base64, there are none or too many, or the model takes no pictures.
    """
    try:
        return pictures([base64.b64decode(text, validate=True) for text in texts], model)
    except (binascii.Error, ValueError) as error:
        raise RequestRefused(f"a picture is not base64: {error}") from error


def pictures(files: list[bytes], model: ServedModel) -> list[bytes]:
    """Return the files of a request after checking that the model takes pictures, and so many.

    Raises:
        RequestRefused: it does not.
    """
    if not model.takes_pictures:
        raise RequestRefused("the model has no card (model.json) that says how a picture becomes its input")
    if not 1 <= len(files) <= MAX_PICTURES:
        raise RequestRefused(f"{len(files)} pictures; a request has 1 to {MAX_PICTURES}")
    return files


def check_shape(shape: list[int], spec: TensorSpec) -> None:
    """Return where a request's shape is the model's but for the batch, which is bounded.

    Raises:
        RequestRefused: it is another.
    """
    if len(shape) != len(spec.shape) or tuple(shape[1:]) != spec.shape[1:]:
        raise RequestRefused(f"input {spec.name!r} has the shape {shape}; it takes {describe(spec)}")
    if not 1 <= shape[0] <= MAX_ROWS:
        raise RequestRefused(f"input {spec.name!r} has {shape[0]} rows; a request has 1 to {MAX_ROWS}")


def describe(spec: TensorSpec) -> str:
    """Return a tensor's type and shape, for people."""
    return f"{DATATYPES[spec.dtype]} of shape [-1, {', '.join(map(str, spec.shape[1:]))}]"


def _array(figures: list[Any], spec: TensorSpec) -> np.ndarray:
    """Return figures in the tensor's type; none may change by more than the type's own rounding."""
    dtype = np.dtype(spec.dtype)
    try:
        if dtype.kind == "f":
            with np.errstate(over="ignore"):
                rows = np.array(figures, np.float64).astype(dtype)
            if not np.isfinite(rows).all():
                raise RequestRefused(f"input {spec.name!r}: a figure is too large for {DATATYPES[dtype.name]}")
            return rows
        wide = np.array(figures, np.int64)
    except (ValueError, OverflowError) as error:
        raise RequestRefused(f"input {spec.name!r} is ragged or too large; it takes {describe(spec)}") from error
    if dtype.kind != "b" and wide.size:
        bounds = np.iinfo(dtype)
        if wide.min() < bounds.min or wide.max() > bounds.max:
            raise RequestRefused(f"input {spec.name!r}: {DATATYPES[dtype.name]} runs from {bounds.min} to {bounds.max}")
    return wide.astype(dtype)


@functools.cache
def _nested(number: type, depth: int) -> Any:
    return number if depth == 0 else list[_nested(number, depth - 1)]  # type: ignore[misc]
