# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol, spoken by Triton's client and by bodies from the protocol's own pages."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http.aio as triton
from tests import tiny_models, tiny_onnx
from tests.worker.serving.http import post
from tests.worker.serving.served import MODEL, model_in, png, serving, task_of, url, version_of
from tritonclient.utils import InferenceServerException


def pictures(*files: bytes, name: str = "image", binary: bool = True) -> triton.InferInput:
    given = triton.InferInput(name, [len(files)], "BYTES")
    given.set_data_from_numpy(np.array(files, np.object_), binary_data=binary)
    return given


def tensor(rows: np.ndarray, *, name: str = "t0", datatype: str = "FP32", binary: bool = True) -> triton.InferInput:
    given = triton.InferInput(name, list(rows.shape), datatype)
    given.set_data_from_numpy(rows, binary_data=binary)
    return given


def white(rows: int) -> np.ndarray:
    return np.linspace(0, 1, rows, dtype=np.float32)[:, None, None, None] * np.ones((1, 8, 8, 1), np.float32)


async def test_triton_s_client_sees_the_server_and_the_model(tmp_path: Path) -> None:
    async with (
        serving(task_of(version_of(model_in(tmp_path), "4"))) as process,
        triton.InferenceServerClient(url(process).removeprefix("http://")) as client,
    ):
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(MODEL)
        assert await client.is_model_ready(MODEL, "4")
        assert not await client.is_model_ready(MODEL, "5")
        assert not await client.is_model_ready("other")
        assert "binary_tensor_data" in (await client.get_server_metadata())["extensions"]
        said = await client.get_model_metadata(MODEL)
    assert (said["name"], said["versions"]) == (MODEL, ["4"])
    assert said["inputs"] == [{"name": "t0", "datatype": "FP32", "shape": [-1, 8, 8, 1]}]
    assert said["outputs"] == [{"name": "t3", "datatype": "FP32", "shape": [-1, 2]}]


@pytest.mark.parametrize("asked", ["binary", "json"])
@pytest.mark.parametrize("rows", [1, 11])
async def test_triton_s_client_gets_what_a_tensor_means(tmp_path: Path, asked: str, rows: int) -> None:
    binary = asked == "binary"
    async with (
        serving(task_of(version_of(model_in(tmp_path, shift=1.0), "1"))) as process,
        triton.InferenceServerClient(url(process).removeprefix("http://")) as client,
    ):
        result = await client.infer(
            MODEL, [tensor(white(rows), binary=binary)], request_id="r-7",
            outputs=[triton.InferRequestedOutput("t3", binary_data=binary)],
        )  # fmt: skip
        said = result.get_response()
        mean = white(rows)[:, 0, 0, 0]
        np.testing.assert_allclose(result.as_numpy("t3"), np.stack([-8 * mean, 8 * mean + 1], 1), atol=1e-5)
    assert (said["model_name"], said["model_version"], said["id"]) == (MODEL, "1", "r-7")


async def test_triton_s_client_compresses_what_it_sends(tmp_path: Path) -> None:
    async with (
        serving(task_of(version_of(model_in(tmp_path), "1"))) as process,
        triton.InferenceServerClient(url(process).removeprefix("http://")) as client,
    ):
        for algorithm in ("gzip", "deflate"):
            result = await client.infer(MODEL, [tensor(white(2))], request_compression_algorithm=algorithm)
            np.testing.assert_allclose(result.as_numpy("t3")[1], [-8, 8], atol=1e-5)


@pytest.mark.parametrize("name", ["image", "t0"])
async def test_encoded_pictures_are_prepared_as_the_card_says(tmp_path: Path, name: str) -> None:
    async with (
        serving(task_of(version_of(model_in(tmp_path), "1"))) as process,
        triton.InferenceServerClient(url(process).removeprefix("http://")) as client,
    ):
        result = await client.infer(MODEL, [pictures(png(0), png(255), name=name)])
        np.testing.assert_allclose(result.as_numpy("t3"), [[0, 0], [-8, 8]], atol=1e-5)


async def test_the_classification_extension_names_the_best_classes(tmp_path: Path) -> None:
    async with (
        serving(task_of(version_of(model_in(tmp_path), "1"))) as process,
        triton.InferenceServerClient(url(process).removeprefix("http://")) as client,
    ):
        for binary in (True, False):
            result = await client.infer(
                MODEL, [pictures(png(255))],
                outputs=[triton.InferRequestedOutput("t3", binary_data=binary, class_count=1)],
            )  # fmt: skip
            said = result.as_numpy("t3").ravel()[0]
            assert (said.decode() if isinstance(said, bytes) else said) == "8.000000:1:bright"


async def test_a_quantised_model_takes_its_own_type(tmp_path: Path) -> None:
    file = model_in(tmp_path, quantised_input=tiny_models.Quantised())
    async with (
        serving(task_of(version_of(file, "1"))) as process,
        triton.InferenceServerClient(url(process).removeprefix("http://")) as client,
    ):
        rows = np.full((1, 8, 8, 1), 255, np.uint8)
        result = await client.infer(MODEL, [tensor(rows, datatype="UINT8")])
        np.testing.assert_allclose(result.as_numpy("t4"), [[-8, 8]], atol=1e-4)
        with pytest.raises(InferenceServerException, match="is FP32; it takes UINT8"):
            await client.infer(MODEL, [tensor(white(1))])


async def test_a_model_without_a_card_answers_tensors_only(tmp_path: Path) -> None:
    async with (
        serving(task_of(version_of(model_in(tmp_path, card=False), "1"))) as process,
        triton.InferenceServerClient(url(process).removeprefix("http://")) as client,
    ):
        result = await client.infer(MODEL, [tensor(white(2))])
        np.testing.assert_allclose(result.as_numpy("t3")[1], [-8, 8], atol=1e-5)
        with pytest.raises(InferenceServerException, match="no card"):
            await client.infer(MODEL, [pictures(png(0))])


def infer_body(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "t0", "shape": [1, 8, 8, 1], "datatype": "FP32", "data": [0.5] * 64} | changes]}


async def test_json_may_be_flat_or_nested_and_pictures_base64(tmp_path: Path) -> None:
    nested = [[[[0.5] for _ in range(8)] for _ in range(8)]]
    encoded = [base64.b64encode(png(255)).decode()]
    async with serving(task_of(version_of(model_in(tmp_path), "1"))) as process:
        path = url(process, f"/v2/models/{MODEL}/versions/1/infer")
        for body in (infer_body(), infer_body(data=nested)):
            status, said = await post(path, body)
            assert (status, said["outputs"][0]["shape"]) == (200, [1, 2])
            np.testing.assert_allclose(said["outputs"][0]["data"], [-4, 4], atol=1e-5)
        status, said = await post(path, infer_body(name="image", datatype="BYTES", shape=[1], data=encoded))
        np.testing.assert_allclose(said["outputs"][0]["data"], [-8, 8], atol=1e-5)


WRONG: list[tuple[str, bytes | dict[str, Any], dict[str, str], int, str]] = [
    ("not JSON", b"{", {}, 400, "not JSON"),
    ("no inputs", {"id": "1"}, {}, 400, "inputs: missing"),
    ("another input", infer_body(name="x"), {}, 400, "there is no input 'x'; the model has 't0'"),
    ("another type", infer_body(datatype="INT64"), {}, 400, "it takes FP32"),
    ("another shape", infer_body(shape=[1, 64]), {}, 400, "FP32 of shape [-1, 8, 8, 1]"),
    ("as many figures in another shape", infer_body(shape=[1, 4, 16, 1]), {}, 400, "FP32 of shape [-1, 8, 8, 1]"),
    ("no rows", infer_body(shape=[0, 8, 8, 1], data=[]), {}, 400, "0 rows"),
    ("too many rows", infer_body(shape=[10**9, 8, 8, 1], data=[]), {}, 400, "1 to 4096"),
    ("too few figures", infer_body(data=[1.0]), {}, 400, "1 figures"),
    ("texts", infer_body(data=["a"] * 64), {}, 400, "Expected"),
    ("a figure beyond the type", infer_body(data=[1e300] * 64), {}, 400, "too large"),
    ("two inputs", {"inputs": infer_body()["inputs"] * 2}, {}, 400, "2 inputs"),
    ("another output", infer_body() | {"outputs": [{"name": "y"}]}, {}, 400, "the model has one output, 't3'"),
    ("no picture", infer_body(name="image", datatype="BYTES", shape=[1], data=["AAAA"]), {}, 400, "not a picture"),
    ("no base64", infer_body(name="image", datatype="BYTES", shape=[1], data=["*"]), {}, 400, "base64"),
    ("a header beyond the body", b"{}", {"Inference-Header-Content-Length": "3"}, 400, "the body has 2 bytes"),
    ("a header that is no number", b"{}", {"Inference-Header-Content-Length": "-1"}, 400, "not a number"),
    ("bytes of nobody", b"{}xx", {"Inference-Header-Content-Length": "2"}, 400, "inputs"),
    ("deep nesting", b'{"inputs":' + b"[" * 5000, {}, 400, "not"),
]  # fmt: skip


async def test_a_wrong_request_is_told_what_is_right_and_disturbs_nobody(tmp_path: Path) -> None:
    async with serving(task_of(version_of(model_in(tmp_path), "1"))) as process:
        path = url(process, f"/v2/models/{MODEL}/infer")
        for what, body, headers, code, words in WRONG:
            status, said = await post(path, body, **headers)
            assert status == code, what
            assert words in said["error"], what
        assert (await post(path, infer_body()))[0] == 200


async def test_binary_tensors_are_as_long_as_they_say(tmp_path: Path) -> None:
    def body(size: int, data: bytes) -> tuple[bytes, dict[str, str]]:
        given = {"name": "t0", "shape": [1, 8, 8, 1], "datatype": "FP32", "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [given]}).encode()
        return head + data, {"Inference-Header-Content-Length": str(len(head))}

    async with serving(task_of(version_of(model_in(tmp_path), "1"))) as process:
        path = url(process, f"/v2/models/{MODEL}/infer")
        for size, data, words in (
            (256, bytes(255), "255 bytes follow"),
            (255, bytes(255), "255 bytes; FP32 of shape [1, 8, 8, 1] has 256"),
            (0, bytes(256), "256 bytes follow"),
        ):
            sent, headers = body(size, data)
            status, said = await post(path, sent, **headers)
            assert (status, words in said["error"]) == (400, True), said
        sent, headers = body(256, bytes(256))
        assert (await post(path, sent, **headers))[0] == 200


async def test_unknown_models_versions_and_paths_are_not_found(tmp_path: Path) -> None:
    async with serving(task_of(version_of(model_in(tmp_path), "1"))) as process:
        for path in ("/v2/models/other/infer", f"/v2/models/{MODEL}/versions/9/infer", "/v2/nothing", "/"):
            status, said = await post(url(process, path), infer_body())
            assert (status, bool(said["error"])) == (404, True), path


async def test_a_body_above_the_bound_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with serving(task_of(version_of(model_in(tmp_path), "1"))) as process:
        reader, writer = await asyncio.open_connection("127.0.0.1", process.server.port)
        writer.write(f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 413")
        writer.close()
        await writer.wait_closed()


async def test_more_json_than_the_bound_is_refused_unparsed(tmp_path: Path) -> None:
    async with serving(task_of(version_of(model_in(tmp_path), "1"))) as process:
        body = b" " * (16 * 1024 * 1024) + json.dumps(infer_body()).encode()
        status, said = await post(url(process, f"/v2/models/{MODEL}/infer"), body)
        assert status == 413
        assert "binary" in said["error"]


async def test_an_onnx_model_is_served_like_any_other(tmp_path: Path) -> None:
    model_in(tmp_path).rename(tmp_path / "former")
    (tmp_path / "bright.onnx").write_bytes(tiny_onnx.brightness())
    async with (
        serving(task_of(version_of(tmp_path, "1"), framework="onnx")) as process,
        triton.InferenceServerClient(url(process).removeprefix("http://")) as client,
    ):
        assert (await client.get_model_metadata(MODEL))["platform"] == "onnxruntime_onnx"
        for given in (tensor(white(9), name="x"), pictures(*[png(round(255 * n / 8)) for n in range(9)])):
            result = await client.infer(MODEL, [given])
            mean = white(9)[:, 0, 0, 0]
            np.testing.assert_allclose(result.as_numpy("y"), np.stack([4 - 8 * mean, 8 * mean - 4], 1), atol=0.02)
