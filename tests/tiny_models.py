# SPDX-License-Identifier: Apache-2.0
"""Real ``.tflite`` files with known outputs, written in milliseconds and without TensorFlow.

LiteRT's bundled schema and flatbuffers suffice. Everything in a model is float32; quantised inputs and outputs are put
around it with DEQUANTIZE and QUANTIZE, as converters do.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

Width = Literal["float32", "uint8", "int8"]

_TYPES: dict[str, int] = {
    "float32": schema.TensorType.FLOAT32,
    "uint8": schema.TensorType.UINT8,
    "int8": schema.TensorType.INT8,
    "int32": schema.TensorType.INT32,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantised:
    """real = scale · (stored - zero_point), stored as `dtype`."""

    dtype: Literal["uint8", "int8"] = "uint8"
    scale: float = 1 / 255
    zero_point: int = 0


@dataclass(slots=True)
class _Graph:
    """A model in the making: buffer 0 stays empty, as the format wants."""

    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    codes: list[Any] = field(default_factory=list)
    operators: list[Any] = field(default_factory=list)

    def tensor(
        self,
        shape: tuple[int, ...],
        *,
        dtype: str = "float32",
        data: np.ndarray | None = None,
        quantised: Quantised | None = None,
        open_batch: bool = False,
    ) -> int:
        made = schema.TensorT()
        made.shape, made.name = list(shape), f"t{len(self.tensors)}".encode()
        made.type = _TYPES[quantised.dtype if quantised else dtype]
        made.buffer = 0
        if open_batch:
            made.shapeSignature = [-1, *shape[1:]]
        if quantised:
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [quantised.scale], [quantised.zero_point]
        if data is not None:
            stored = schema.BufferT()
            stored.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            made.buffer = len(self.buffers)
            self.buffers.append(stored)
        self.tensors.append(made)
        return len(self.tensors) - 1

    def operator(
        self, name: str, inputs: list[int], output: int, options: Any = None, *, kind: int = 0, version: int = 1
    ) -> int:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = version
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = len(self.codes), inputs, [output]
        made.builtinOptions, made.builtinOptionsType = options, kind
        self.codes.append(code)
        self.operators.append(made)
        return output

    def bytes(self, inputs: list[int], outputs: list[int]) -> bytes:
        subgraph = schema.SubGraphT()
        subgraph.name = b"main"
        subgraph.tensors, subgraph.inputs, subgraph.outputs = self.tensors, inputs, outputs
        subgraph.operators = self.operators
        model = schema.ModelT()
        model.version, model.description = 3, b"tiny"
        model.operatorCodes, model.subgraphs, model.buffers = self.codes, [subgraph], self.buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def _fully_connected(graph: _Graph, source: int, weights: np.ndarray, bias: np.ndarray, *, open_batch: bool) -> int:
    """Add weights @ flattened source + bias; `weights` is (outputs, inputs)."""
    kernel = graph.tensor(weights.shape, data=weights.astype(np.float32))
    offset = graph.tensor(bias.shape, data=bias.astype(np.float32))
    output = graph.tensor((1, len(bias)), open_batch=open_batch)
    return graph.operator(
        "FULLY_CONNECTED",
        [source, kernel, offset],
        output,
        schema.FullyConnectedOptionsT(),
        kind=schema.BuiltinOptions.FullyConnectedOptions,
    )


def _convolution(graph: _Graph, source: int, kernel: np.ndarray, *, open_batch: bool) -> int:
    """Add a 'same' convolution with stride 1 and ReLU; `kernel` is (outputs, height, width, inputs)."""
    _, height, width, _ = graph.tensors[source].shape
    weights = graph.tensor(kernel.shape, data=kernel.astype(np.float32))
    bias = graph.tensor((len(kernel),), data=np.zeros(len(kernel), np.float32))
    output = graph.tensor((1, height, width, len(kernel)), open_batch=open_batch)
    options = schema.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.SAME, 1, 1
    options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    return graph.operator("CONV_2D", [source, weights, bias], output, options, kind=schema.BuiltinOptions.Conv2DOptions)


def dense(
    weights: np.ndarray,
    bias: np.ndarray,
    input_shape: tuple[int, ...],
    *,
    softmax: bool = False,
    quantised_input: Quantised | None = None,
    quantised_output: Quantised | None = None,
    batch_resizable: bool = True,
    convolutions: tuple[np.ndarray, ...] = (),
) -> bytes:
    """Return a model: weights @ x + bias, then softmax if asked.

    Args:
        weights: (classes, flattened input); bias: (classes,).
        input_shape: without the batch, such as (8, 8, 1).
        batch_resizable: False fixes the batch to 1 by a RESHAPE, as some exporters do.
        convolutions: kernels (outputs, height, width, inputs) that run first, each 'same' with ReLU.
    """
    graph, open_batch = _Graph(), batch_resizable
    source = graph.tensor((1, *input_shape), quantised=quantised_input, open_batch=open_batch)
    last = source
    if quantised_input:
        last = graph.operator("DEQUANTIZE", [last], graph.tensor((1, *input_shape), open_batch=open_batch), version=2)
    for kernel in convolutions:
        last = _convolution(graph, last, kernel, open_batch=open_batch)
    if not batch_resizable:
        flat = (1, weights.shape[1])
        shape = graph.tensor((2,), dtype="int32", data=np.array(flat, np.int32))
        last = graph.operator("RESHAPE", [last, shape], graph.tensor(flat))
    last = _fully_connected(graph, last, weights, bias, open_batch=open_batch)
    if softmax:
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        output = graph.tensor((1, len(bias)), open_batch=open_batch)
        last = graph.operator("SOFTMAX", [last], output, options, kind=schema.BuiltinOptions.SoftmaxOptions)
    if quantised_output:
        output = graph.tensor((1, len(bias)), quantised=quantised_output, open_batch=open_batch)
        last = graph.operator("QUANTIZE", [last], output, version=2 if quantised_output.dtype == "int8" else 1)
    return graph.bytes([source], [last])


def brightness(
    *,
    side: int = 8,
    channels: int = 1,
    softmax: bool = False,
    quantised_input: Quantised | None = None,
    quantised_output: Quantised | None = None,
    batch_resizable: bool = True,
) -> bytes:
    """Return a two-class model: the logits are (4·(1 - 2m), 4·(2m - 1)) for the mean m of its input (0..1).

    A black image is "dark" with p = 0.99966, a white one "bright", and m = 0.5 is a tie.
    """
    size = side * side * channels
    ones = np.full(size, 8 / size)
    return dense(
        np.stack([-ones, ones]),
        np.array([4.0, -4.0]),
        (side, side, channels),
        softmax=softmax,
        quantised_input=quantised_input,
        quantised_output=quantised_output,
        batch_resizable=batch_resizable,
    )


def busy(*, side: int = 48, filters: int = 16, layers: int = 9, classes: int = 10, seed: int = 1) -> bytes:
    """Return a model of about a millisecond on one core: 3x3 convolutions over an RGB image, logits out."""
    rng = np.random.default_rng(seed)
    kernels, channels = [], 3
    for _ in range(layers):
        kernels.append(rng.normal(scale=(2 / (9 * channels)) ** 0.5, size=(filters, 3, 3, channels)))
        channels = filters
    size = side * side * filters
    return dense(
        rng.normal(scale=size**-0.5, size=(classes, size)),
        np.zeros(classes),
        (side, side, 3),
        convolutions=tuple(kernels),
    )


def two_outputs() -> bytes:
    """Return a model whose input is both of its outputs."""
    graph = _Graph()
    source = graph.tensor((1, 8, 8, 1), open_batch=True)
    copies = [graph.operator("FLOOR", [source], graph.tensor((1, 8, 8, 1), open_batch=True)) for _ in range(2)]
    return graph.bytes([source], copies)


def mixing(*, side: int = 8) -> bytes:
    """Return `brightness` with a flaw: each row's answer is that of the whole batch's mean."""
    graph = _Graph()
    source = graph.tensor((1, side, side, 1), open_batch=True)
    axis = graph.tensor((1,), dtype="int32", data=np.array([0], np.int32))
    options = schema.ReducerOptionsT()
    options.keepDims = True
    mean = graph.operator(
        "MEAN", [source, axis], graph.tensor((1, side, side, 1)), options, kind=schema.BuiltinOptions.ReducerOptions
    )
    # x·0 + mean keeps the batch's size, so that only the figures tell.
    zero = graph.tensor((1,), data=np.zeros(1, np.float32))
    nothing = graph.operator(
        "MUL",
        [source, zero],
        graph.tensor((1, side, side, 1), open_batch=True),
        schema.MulOptionsT(),
        kind=schema.BuiltinOptions.MulOptions,
    )
    mixed = graph.operator(
        "ADD",
        [nothing, mean],
        graph.tensor((1, side, side, 1), open_batch=True),
        schema.AddOptionsT(),
        kind=schema.BuiltinOptions.AddOptions,
    )
    ones = np.full(side * side, 8 / side**2)
    last = _fully_connected(graph, mixed, np.stack([-ones, ones]), np.array([4.0, -4.0]), open_batch=True)
    return graph.bytes([source], [last])
