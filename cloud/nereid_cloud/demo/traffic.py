# SPDX-License-Identifier: Apache-2.0
"""Clients that ask a served model for the whole time, and know what each of its versions must answer.

The Open Inference Protocol, pictures by its binary extension. What is right is each version's card: its golden
pictures are the requests, its golden outputs the answers.
"""

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import urllib3

CLIENTS: Final = 2
TIMEOUT_S: Final = 30.0
SHOWN: Final = 3
"""Failures that are kept in words."""

Outputs = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """What a model answers.

    Attributes:
        pictures: the requests: PNG files.
        outputs: by version, for each picture the figures.
        tolerance: the largest difference that is none.
    """

    pictures: Sequence[bytes]
    outputs: Mapping[str, Outputs]
    tolerance: float

    @classmethod
    def load(cls, cards: Mapping[str, Path]) -> Self:
        """Return what the cards of a model's versions promise; they have the same pictures."""
        read = {version: json.loads(card.read_text())["golden"] for version, card in cards.items()}
        folder = next(iter(cards.values())).parent
        first = next(iter(read.values()))
        return cls(
            pictures=[(folder / one["input"]).read_bytes() for one in first],
            outputs={version: [one["output"] for one in golden] for version, golden in read.items()},
            tolerance=max(one["tolerance"] for golden in read.values() for one in golden),
        )

    def is_right(self, version: str, picture: int, figures: Sequence[float]) -> bool:
        """Whether a version answers a picture so."""
        expected = self.outputs[version][picture] if version in self.outputs else ()
        return len(figures) == len(expected) and all(
            abs(got - wanted) <= self.tolerance for got, wanted in zip(figures, expected, strict=True)
        )


@dataclass(slots=True)
class Tally:
    """What became of the requests.

    Attributes:
        versions: answers by the version that they name.
        failed: requests without an answer; `failures` says of some why.
        wrong: answers that are not those of the version that they name.
        latencies_s: of all answers.
    """

    versions: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    wrong: int = 0
    failures: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """How many were made."""
        return self.versions.total() + self.failed

    def percentile_ms(self, share: float) -> float | None:
        """Return the latency that `share` (0..1) of the answers did not exceed."""
        ordered = sorted(self.latencies_s)
        return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3, 3) if ordered else None


class Traffic:
    """A few clients of one model, each asking again as soon as it has its answer, while the context lasts.

    Nothing is asked twice: a request that fails is counted as failed.
    """

    def __init__(self, url: str, *, model: str, golden: Golden) -> None:
        self._where, self._golden = f"{url}/v2/models/{model}/infer", golden
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._tally = Tally()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)

    def tally(self) -> Tally:
        """Return the counts so far."""
        with self._lock:
            now = self._tally
            return Tally(Counter(now.versions), now.failed, now.wrong, list(now.failures), list(now.latencies_s))

    def _ask(self, number: int) -> None:
        pictures = self._golden.pictures
        with urllib3.PoolManager(maxsize=1, retries=False, timeout=urllib3.Timeout(TIMEOUT_S)) as pool:
            while not self._stop.is_set():
                picture = number % len(pictures)
                number += 1
                began = time.perf_counter()
                try:
                    version, figures = self._answer(pool, pictures[picture])
                except (urllib3.exceptions.HTTPError, ValueError, LookupError, TypeError) as error:
                    self._failed(f"{type(error).__name__}: {error}")
                else:
                    self._answered(
                        version, self._golden.is_right(version, picture, figures), time.perf_counter() - began
                    )

    def _answer(self, pool: urllib3.PoolManager, picture: bytes) -> tuple[str, Sequence[float]]:
        data = len(picture).to_bytes(4, "little") + picture
        size = {"binary_data_size": len(data)}
        head = json.dumps(
            {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": size}]}
        ).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        response = pool.request("POST", self._where, body=head + data, headers=headers)
        if response.status != 200:
            raise ValueError(f"{response.status} {response.data[:200].decode(errors='replace')}")
        answer = response.json()
        return str(answer["model_version"]), answer["outputs"][0]["data"]

    def _answered(self, version: str, is_right: bool, spent_s: float) -> None:
        with self._lock:
            self._tally.versions[version] += 1
            self._tally.wrong += not is_right
            self._tally.latencies_s.append(spent_s)

    def _failed(self, why: str) -> None:
        with self._lock:
            self._tally.failed += 1
            if len(self._tally.failures) < SHOWN:
                self._tally.failures.append(why)
