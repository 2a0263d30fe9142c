# SPDX-License-Identifier: Apache-2.0
"""Whatever a stranger sends is a request or is refused: no other error, and no row that the model would not take."""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.worker.serving.served import model_in

from nereid_shared.errors import RequestRefused
from nereid_worker.serving import openinference, tensorflow
from nereid_worker.serving.model import Rows, ServedModel
from nereid_worker.serving.tensors import MAX_PICTURES, MAX_ROWS

SIZES = st.one_of(st.integers(-2, 65), st.sampled_from([2**31, 2**63, 10**30, True, 1.5]))
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.just("AAAA"),
    st.just({"b64": "AAAA"}), st.just([0.5] * 64), st.just([[[[0.5]] * 8] * 8]), st.just([[[0.5]] * 8] * 8),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["t0", "image", "b64", "x", ""]), inner, max_size=3),
    ),
    max_leaves=8,
)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "binary_data_size": st.one_of(st.integers(-1, 300), st.just(256)), "binary_data": st.booleans(),
        "binary_data_output": st.booleans(), "classification": st.integers(-2, 5), "other": LEAVES,
    },
)  # fmt: skip
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["t0", "image", "x"]), "datatype": st.sampled_from(["FP32", "BYTES", "INT64", ""]),
        "shape": st.one_of(st.just([1, 8, 8, 1]), st.just([1]), st.just([2, 1]), st.lists(SIZES, max_size=5)),
    },
    optional={"data": VALUES, "parameters": PARAMETERS},
)  # fmt: skip
OUTPUTS = st.fixed_dictionaries({"name": st.sampled_from(["t3", "y"])}, optional={"parameters": PARAMETERS})
INFERS = st.fixed_dictionaries(
    {"inputs": st.one_of(st.lists(TENSORS, min_size=1, max_size=1), VALUES)},
    optional={"id": st.text(max_size=3), "parameters": PARAMETERS, "outputs": st.lists(OUTPUTS, max_size=2)},
)
PREDICTS = st.fixed_dictionaries(
    {},
    optional={
        "instances": VALUES, "inputs": VALUES, "examples": VALUES,
        "signature_name": st.sampled_from(["", "serving_default", "x"]),
    },
)  # fmt: skip
TAILS = st.one_of(st.just(b""), st.just(bytes(256)), st.just(b"\1\0\0\0a"), st.binary(max_size=300))


@functools.cache
def model() -> ServedModel:
    with tempfile.TemporaryDirectory() as folder:
        return ServedModel.load(model_in(Path(folder)), framework="tflite")


def check(rows: Rows) -> None:
    if isinstance(rows, np.ndarray):
        assert (rows.shape[1:], rows.dtype.name) == ((8, 8, 1), "float32")
        assert 1 <= len(rows) <= MAX_ROWS
    else:
        assert all(isinstance(one, bytes) for one in rows)
        assert 1 <= len(rows) <= MAX_PICTURES


def text_of(body: Any) -> bytes:
    return json.dumps(body).encode()


@given(INFERS, TAILS, st.booleans())
def test_an_infer_body_is_rows_or_a_refusal(body: dict[str, Any], tail: bytes, whole: bool) -> None:
    head = text_of(body)
    try:
        asked = openinference.read(
            head + tail, header_bytes=None if whole else len(head), model=model(), max_json_bytes=1 << 20
        )
    except RequestRefused as refused:
        assert 400 <= refused.status < 500  # noqa: PT017 - either is right
        return
    check(asked.rows)


@given(PREDICTS, st.booleans())
def test_a_predict_body_is_rows_or_a_refusal(body: dict[str, Any], classify: bool) -> None:
    data = bytearray(text_of(body))
    try:
        rows = tensorflow.read_classify(data, model()) if classify else tensorflow.read_predict(data, model()).rows
    except RequestRefused as refused:
        assert refused.status == 400  # noqa: PT017 - either is right
        return
    check(rows)


@given(st.binary(max_size=400), st.one_of(st.none(), st.integers(-1, 400)))
def test_bytes_that_are_no_body_are_refused(data: bytes, header_bytes: int | None) -> None:
    try:
        openinference.read(data, header_bytes=header_bytes, model=model(), max_json_bytes=1 << 20)
    except RequestRefused:
        pass
    else:
        raise AssertionError(data)
