# SPDX-License-Identifier: Apache-2.0
"""How fast datasets are read: CSV counting against pyarrow.csv, in turns, of the same files; the rest for information.

pyarrow streams the file in blocks and counts rows. It parses all columns, which a count does not need: the ratio says
what a user gets, not who has the better parser. Measured is CPU time, of all threads: on a machine that others use,
too, it is the steadier figure, and with one thread on a quiet one it is the time that passes.
"""

import csv
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pyarrow.csv

from bench.figures import Figure
from nereid_shared.datasets import Dataset, read

BYTES: Final = 100_000_000
QUICK_BYTES: Final = 20_000_000
ROUNDS: Final = 5
QUICK_ROUNDS: Final = 1
RATIO: Final = 0.5
MB_PER_S: Final = 80.0
_MB: Final = 1e6


def run(*, quick: bool) -> list[Figure]:
    """Return rates in MB/s, and the ratio to pyarrow's."""
    rounds, size = (QUICK_ROUNDS, QUICK_BYTES) if quick else (ROUNDS, BYTES)
    figures = []
    with tempfile.TemporaryDirectory() as made:
        for name, write, target in (
            ("plain", _plain, RATIO),
            ("texts of several lines", _texts, RATIO),
            ("short fields, all quoted", _quoted, None),
        ):
            file = Path(made) / "d.csv"
            rows = write(file, size)
            figures += _csv(name, file, rows, rounds, target)
        index = Path(made) / "index.csv"
        _index(index, size)
        figures.append(_rate("csv, an index with classes: statistics", index, "csv", rounds))
        coco = Path(made) / "d.json"
        _coco(coco, size)
        figures.append(_rate("coco: statistics", coco, "coco", rounds))
    return figures


def _csv(name: str, file: Path, rows: int, rounds: int, target: float | None) -> list[Figure]:
    ours, theirs = list[float](), list[float]()
    for _ in range(rounds):
        ours.append(_timed(lambda: Dataset(str(file), "csv").count(), rows))
        theirs.append(_timed(lambda: _by_pyarrow(file), rows))
    size = file.stat().st_size / _MB
    ratio = statistics.median(other / own for own, other in zip(ours, theirs, strict=True))
    note = f"pyarrow.csv: {size / statistics.median(theirs):.0f} MB/s"
    return [
        Figure(name=f"csv, {name}: counting", value=size / statistics.median(ours), unit="MB/s", target=MB_PER_S),
        Figure(name=f"csv, {name}: counting / pyarrow.csv", value=ratio, unit="", target=target, note=note),
    ]


def _rate(name: str, file: Path, form: str, rounds: int) -> Figure:
    spent = [_timed(lambda: read(Dataset(str(file), form), most_looks=0)) for _ in range(rounds)]
    return Figure(
        name=name, value=file.stat().st_size / _MB / statistics.median(spent), unit="MB/s", note="sha256 in it"
    )


def _by_pyarrow(file: Path) -> int:
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    options = pyarrow.csv.ReadOptions(use_threads=False, block_size=1 << 20)
    with pyarrow.csv.open_csv(file, read_options=options, parse_options=parse) as batches:
        return sum(batch.num_rows for batch in batches)


def _timed(call: Callable[[], object], wanted: int | None = None) -> float:
    began = time.process_time()
    found = call()
    spent = time.process_time() - began
    assert wanted is None or found == wanted, (found, wanted)
    return spent


def _plain(file: Path, size: int) -> int:
    rows = size // 50
    with file.open("w") as out:
        out.write("time,station,temperature,pressure,note\n")
        out.writelines(
            f"{number:012},s{number % 97:03},{number % 400 / 10},10{number % 37:02}.5,all is well\n"
            for number in range(rows)
        )
    return rows


def _texts(file: Path, size: int) -> int:
    text = 'a "quoted" word, and more of them; this is how comments look, which people write,\nin lines. '
    rows = size // 150
    with file.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["id", "user", "text", "stars"])
        writer.writerows(
            [number, f"user {number % 997}", f"{text}Number {number}, {text[:30]}", 5] for number in range(rows)
        )
    return rows


def _quoted(file: Path, size: int) -> int:
    rows = size // 60
    with file.open("w", newline="") as out:
        writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(["id", "user", "text"])
        writer.writerows(
            [f"{number:09}", f"user {number % 997}", f'a "word",\nand line {number}'] for number in range(rows)
        )
    return rows


def _index(file: Path, size: int) -> None:
    with file.open("w") as out:
        out.write("path,label\n")
        out.writelines(
            f"images/{number % 1000:03}/{number:09}.jpg,class {number % 80}\n" for number in range(size // 40)
        )


def _coco(file: Path, size: int) -> None:
    images, each = size // 2000, 5
    annotation = {"area": 1.0, "iscrowd": 0, "segmentation": [[number + 0.5 for number in range(24)]]}
    with file.open("w") as out:
        out.write('{"images": [\n')
        out.write(
            ",\n".join(
                f'{{"id": {one}, "file_name": "{one:012}.jpg", "width": 640, "height": 480}}' for one in range(images)
            )
        )
        out.write('\n], "categories": [{"id": 1, "name": "one"}], "annotations": [\n')
        out.write(",\n".join(
            json.dumps({"id": one, "image_id": one // each, "category_id": 1, "bbox": [1, 2, 3.5, 4.5], **annotation})
            for one in range(images * each)
        ))  # fmt: skip
        out.write("\n]}")
