# SPDX-License-Identifier: Apache-2.0
"""What the serving demo's clients take for right, wrong and failed."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.flow import patience

from nereid_cloud.demo.traffic import Golden, Traffic

GOLDEN = Golden(pictures=[b"a", b"b"], outputs={"1": [[1.0], [2.0]], "2": [[3.0], [4.0]]}, tolerance=0.01)


@pytest.mark.parametrize(
    ("version", "picture", "figures", "right"),
    [("1", 0, [1.005], True), ("1", 1, [1.0], False), ("2", 0, [1.0], False), ("2", 1, [4.0], True),
     ("1", 0, [1.0, 1.0], False), ("9", 0, [1.0], False), ("1", 0, [float("nan")], False)],
)  # fmt: skip
def test_an_answer_is_right_if_it_is_that_of_the_version_it_names(
    version: str, picture: int, figures: list[float], right: bool
) -> None:
    assert GOLDEN.is_right(version, picture, figures) is right


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    status, version, figures = 200, "1", 1.0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head = json.loads(body[: int(self.headers["Inference-Header-Content-Length"])])
        data = body[int(self.headers["Inference-Header-Content-Length"]) :]
        assert (
            head["inputs"][0]["parameters"]["binary_data_size"] == len(data) == 4 + int.from_bytes(data[:4], "little")
        )
        kind = type(self)
        figures = kind.figures + (data[4:] == b"b")
        answer = json.dumps({"model_version": kind.version, "outputs": [{"data": [figures]}]}).encode()
        self.send_response(kind.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Server], str]]:
    kind = type("Own", (Server,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield kind, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def test_answers_are_counted_by_what_they_are(server: tuple[type[Server], str]) -> None:
    kind, url = server
    with Traffic(url, model="m", golden=GOLDEN) as traffic:
        patience.until(lambda: traffic.tally().versions["1"] > 10, "answers")
        assert (traffic.tally().failed, traffic.tally().wrong) == (0, 0)
        kind.version = "2"
        patience.until(lambda: traffic.tally().wrong > 10, "answers of another version's figures")
        assert traffic.tally().failed == 0
        kind.status = 503
        patience.until(lambda: traffic.tally().failed > 3, "failures")
    told = traffic.tally()
    assert told.requests == told.versions.total() + told.failed == len(told.latencies_s) + told.failed
    assert told.failures[0].startswith("ValueError: 503")
    assert (told.percentile_ms(0.5) or 0) <= (told.percentile_ms(0.99) or 0)
