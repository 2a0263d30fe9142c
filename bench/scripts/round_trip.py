# SPDX-License-Identifier: Apache-2.0
"""An edge worker's script: hard samples' round trips and bare echoes in turn, one after the other."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from bench.echo import DECODED, SELECT, SHORT, THREADS, WHOLE, BareClient, ThreadedClient, decode

from nereid_worker import JointInference

PAUSE_S = 0.02

service = JointInference.from_task()
given = service.parameters
frame = Path(given["frame"]).read_bytes()
port, codec = int(given["edge_port"]), given["codec"] == "both"
threads, turns = ThreadedClient(port, f"{THREADS}/down"), BareClient(port, f"{SELECT}/down")
alone = BareClient(port, "bench/alone")


def product() -> float:
    """Return how long the cloud's answer takes: without the codec, from the edge's own answer on."""
    began = [time.perf_counter()]
    [answer] = service.stream([frame], on_edge=None if codec else lambda _: began.append(time.perf_counter()))
    assert answer.tier == "cloud", answer
    return time.perf_counter() - began[-1]


def echoed(kind: str, client: ThreadedClient | BareClient = threads, way: str = THREADS) -> Callable[[], float]:
    """Return what echoes the frame through both brokers."""

    def trip() -> float:
        began = time.perf_counter()
        if kind == DECODED:
            decode(frame)
        client.publish(f"{way}/up/{kind}", frame)
        client.receive()
        return time.perf_counter() - began

    return trip


def floor() -> float:
    """Return how long one broker takes to hand the frame back."""
    began = time.perf_counter()
    alone.publish("bench/alone", frame)
    alone.receive()
    return time.perf_counter() - began


ways = {"product": product, "floor": floor}
if codec:
    ways["decoded"] = echoed(DECODED)
else:
    ways |= {"whole": echoed(WHOLE), "short": echoed(SHORT), "one thread": echoed(WHOLE, turns, SELECT)}
seconds: dict[str, list[float]] = {name: [] for name in ways}
for number in range(-5, int(given["rounds"])):
    for name, way in ways.items():
        for _ in range(int(given["segment"])):
            spent_s = way()
            if number >= 0:
                seconds[name].append(spent_s)
        # What a way leaves behind, such as a commit, is not the next one's.
        time.sleep(PAUSE_S)
out = Path(given["out"])
out.with_suffix(".part").write_text(json.dumps(seconds))
out.with_suffix(".part").replace(out)
while True:
    service.look_after()
