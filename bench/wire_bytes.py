# SPDX-License-Identifier: Apache-2.0
"""What a hard sample weighs on the cloud link, against its encoded picture.

Real edge worker and LocalController; the figures are those of the PUBLISH packets as the cloud broker hands them on:
body, and body with MQTT's header and topic. Names are as long as the demo's. The lower figure for a small picture is
what it has more than the picture.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from bench.echo import BareClient
from bench.figures import Figure
from bench.node import NODE, SERVICE, NodeRig, service, service_row
from bench.pictures import card, frame
from nereid_shared import topics
from nereid_shared.samples import Sample

SIZES: Final = (1_000, 2_000, 8_000, 20_000, 50_000, 200_000)
QUICK_SIZES: Final = (1_000, 8_000)
# Nobody answers here: all must fit into the LocalController's first window.
EACH: Final = 4
LARGE_BYTES: Final = 8_000
RATIO: Final = 1.05
MORE_BYTES: Final = 320
# Of the longest names that there can be: service, node, the caller's key, a label.
LONGEST_TOPIC: Final = topics.SAMPLES.of(service="s" * 57, node="n" * 64)


def run(*, quick: bool) -> list[Figure]:
    """Return the ratio for large pictures and the bytes more for small ones."""
    pictures = dict(_pictures(QUICK_SIZES if quick else SIZES))
    came = _measure(pictures)
    figures = []
    for size_bytes in sorted(pictures):
        bodies = came[size_bytes]
        body = max(map(len, bodies))
        topic = topics.SAMPLES.of(service=SERVICE, node=NODE)
        packet = body + header_bytes(topic, body)
        longest = body + header_bytes(LONGEST_TOPIC, body)
        name = f"{size_bytes} B {'PNG' if size_bytes < min(SIZES) else 'JPEG'}"
        if size_bytes >= LARGE_BYTES:
            figures.append(_figure(f"{name}: PUBLISH / picture", packet / size_bytes, "", RATIO, longest / size_bytes))
        else:
            figures.append(
                _figure(f"{name}: PUBLISH - picture", packet - size_bytes, "B", MORE_BYTES, longest - size_bytes)
            )
        figures.append(Figure(name=f"{name}: body alone", value=body, unit="B", note=f"largest of {len(bodies)}"))
    return figures


def header_bytes(topic: str, body_bytes: int) -> int:
    """Return what MQTT 5 adds to a PUBLISH of QoS 1 without properties."""
    rest = 2 + len(topic.encode()) + 2 + 1
    return 1 + next(n for n in range(1, 5) if rest + body_bytes < 128**n) + rest


def _figure(name: str, value: float, unit: str, target: float, longest: float) -> Figure:
    note = f"{longest:.4g} with the longest service and node names"
    return Figure(name=name, value=value, unit=unit, target=target, better="lower", note=note)


def _pictures(sizes: tuple[int, ...]) -> Iterator[tuple[int, bytes]]:
    digit = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 256, (8, 8), np.uint8), (0, 0), 1)
    png = bytes(cv2.imencode(".png", digit)[1].tobytes())
    yield len(png), png
    for size_bytes in sizes:
        yield size_bytes, frame(size_bytes)


def _measure(pictures: dict[int, bytes]) -> dict[int, list[bytes]]:
    """Return the bodies that came to the cloud broker, by the size of their pictures."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "frames").mkdir()
        for size_bytes, picture in pictures.items():
            (folder / "frames" / f"{size_bytes:06}.jpg").write_bytes(picture)
        model = card(folder)
        with NodeRig(folder) as rig:
            cloud = BareClient(rig.cloud.port, topics.SAMPLES.filter(service=SERVICE))
            row = service_row(
                model=model, script="many.py", folder=made, frames=str(folder / "frames"),
                each=str(EACH), phases="stored",
            )  # fmt: skip
            (folder / "stored.go").touch()
            rig.desire(service(row))
            rig.start_edge_worker()
            samples: dict[tuple[str, int], bytes] = {}
            while len(samples) < EACH * len(pictures):
                body = cloud.receive()
                sample = Sample.decode(body, max_bytes=topics.SAMPLES.max_bytes)
                samples[sample.stream, sample.seq] = body
        came: dict[int, list[bytes]] = {size_bytes: [] for size_bytes in pictures}
        for body in samples.values():
            came[len(Sample.decode(body, max_bytes=topics.SAMPLES.max_bytes).payload)].append(body)
        return came
