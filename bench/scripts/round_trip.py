# SPDX-License-Identifier: Apache-2.0
"""An edge worker's script: hard samples' round trips and bare echoes in turn, one after the other."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from bench.echo import DECODED, DOWN, SHORT, WHOLE, BareClient, decode
from nereid_worker import Answer, JointInference

PAUSE_S = 0.02

service = JointInference.from_task()
given = service.parameters
frame = Path(given["frame"]).read_bytes()
port, codec = int(given["edge_port"]), given["codec"] == "both"
echo, alone = BareClient(port, DOWN), BareClient(port, "bench/alone")
began = 0.0


def begin(_: Answer | None = None) -> None:
    """Start the clock: without the codec, once the edge has answered and the sample goes on its way."""
    global began
    began = time.perf_counter()


def product() -> None:
    """Let one hard sample be answered by the cloud."""
    begin()
    [answer] = service.stream([frame], on_edge=None if codec else begin)
    assert answer.tier == "cloud", answer


def echoed(topic: str) -> Callable[[], None]:
    """Return what echoes the frame through both brokers."""

    def trip() -> None:
        begin()
        if topic == DECODED:
            decode(frame)
        echo.publish(topic, frame)
        echo.receive()

    return trip


def floor() -> None:
    """Let one broker hand the frame back."""
    begin()
    alone.publish("bench/alone", frame)
    alone.receive()


ways = {"product": product, "floor": floor}
ways |= {"decoded": echoed(DECODED)} if codec else {"whole": echoed(WHOLE), "short": echoed(SHORT)}
seconds: dict[str, list[float]] = {name: [] for name in ways}
for number in range(-5, int(given["rounds"])):
    for name, way in ways.items():
        for _ in range(int(given["segment"])):
            way()
            if number >= 0:
                seconds[name].append(time.perf_counter() - began)
        # What a way leaves behind, such as a commit, is not the next one's.
        time.sleep(PAUSE_S)
out = Path(given["out"])
out.with_suffix(".part").write_text(json.dumps(seconds))
out.with_suffix(".part").replace(out)
while True:
    service.look_after()
