# SPDX-License-Identifier: Apache-2.0
"""Real ``.onnx`` files with known outputs, written field by field: the format is protobuf, and little of it is needed.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

import numpy as np

_FLOAT, _INT_ATTRIBUTE = 1, 2


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _part(field: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, values: np.ndarray) -> bytes:
    dims = b"".join(_number(1, size) for size in values.shape)
    return dims + _number(2, _FLOAT) + _part(8, name) + _part(9, values.astype("<f4").tobytes())


def _value(name: str, shape: tuple[int | str, ...]) -> bytes:
    dims = b"".join(_part(1, _number(1, size) if isinstance(size, int) else _part(2, size)) for size in shape)
    return _part(1, name) + _part(2, _part(1, _number(1, _FLOAT) + _part(2, dims)))


def _node(kind: str, inputs: tuple[str, ...], output: str, **attributes: int) -> bytes:
    made = b"".join(_part(1, name) for name in inputs) + _part(2, output) + _part(4, kind)
    for name, value in attributes.items():
        made += _part(5, _part(1, name) + _number(3, value) + _number(20, _INT_ATTRIBUTE))
    return made


def dense(
    weights: np.ndarray, bias: np.ndarray, input_shape: tuple[int, ...], *, batch: int | str = "N", kind: str = "Gemm"
) -> bytes:
    """Return a model: weights @ flattened x + bias, from ``x`` to ``y``.

    Args:
        weights: (classes, flattened input); bias: (classes,).
        input_shape: without the batch, such as (8, 8, 1).
        batch: the batch's name where it is open, or its size.
        kind: another operator in Gemm's place, for a model that no runtime knows.
    """
    graph = (
        _part(1, _node("Flatten", ("x",), "flat", axis=1))
        + _part(1, _node(kind, ("flat", "w", "b"), "y", transB=1))
        + _part(2, "tiny")
        + _part(5, _tensor("w", weights))
        + _part(5, _tensor("b", bias))
        + _part(11, _value("x", (batch, *input_shape)))
        + _part(12, _value("y", (batch, len(bias))))
    )
    return _number(1, 8) + _part(7, graph) + _part(8, _part(1, "") + _number(2, 13))


def brightness(*, side: int = 8, batch: int | str = "N") -> bytes:
    """Return `tests.tiny_models.brightness`: the logits (4·(1 - 2m), 4·(2m - 1)) for the mean m of a picture."""
    size = side * side
    ones = np.full(size, 8 / size)
    return dense(np.stack([-ones, ones]), np.array([4.0, -4.0]), (side, side, 1), batch=batch)
