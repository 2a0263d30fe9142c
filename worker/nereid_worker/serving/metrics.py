# SPDX-License-Identifier: Apache-2.0
"""What Prometheus may scrape: requests, latencies, batches and queues, by model and version.

Label values are ours, never a client's: a request for a model or version that is not here has empty ones.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from nereid_worker.serving.batcher import Observer
from nereid_worker.serving.versions import Loaded

_LATENCY_S: Final = (.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10)  # fmt: skip
_ROWS: Final = (1, 2, 4, 8, 16, 32, 64, 128)
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The process's metrics; for the loop's thread.

    Attributes:
        batches, rows: how many there were, of all versions.
    """

    def __init__(self, loaded: Callable[[], Iterable[Loaded]], *, in_flight: Callable[[], int]) -> None:
        """Take what tells, at each scrape, all that is loaded, and the requests under way."""
        self.batches = self.rows = 0
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Counter(
            "nereid_serving_requests", "Requests answered, by HTTP status.", ("model", "version", "protocol", "code"),
            registry=self._registry,
        )  # fmt: skip
        self._latency = Histogram(
            "nereid_serving_request_seconds", "From a request's headers to its answer, inference only.",
            ("model", "version", "protocol"), buckets=_LATENCY_S, registry=self._registry,
        )  # fmt: skip
        self._rows = Histogram(
            "nereid_serving_batch_rows", "Rows that ran together.", ("model", "version"), buckets=_ROWS,
            registry=self._registry,
        )  # fmt: skip
        self._compute = Histogram(
            "nereid_serving_batch_seconds", "What a batch took, preprocessing included.", ("model", "version"),
            buckets=_LATENCY_S, registry=self._registry,
        )  # fmt: skip
        self._registry.register(_Queues(loaded, in_flight))
        # With its labels looked up once, a count costs a third.
        self._counter_of = functools.lru_cache(maxsize=256)(self._requests.labels)
        self._latency_of = functools.lru_cache(maxsize=256)(self._latency.labels)

    def request(self, *, model: str, version: str, protocol: str, code: int, spent_s: float | None) -> None:
        """Count one request; `spent_s` where it asked for an inference."""
        self._counter_of(model, version, protocol, str(code)).inc()
        if spent_s is not None:
            self._latency_of(model, version, protocol).observe(spent_s)

    def observer(self, model: str, version: str) -> Observer:
        """Return what takes the batches of one version."""
        return _Batches(self, self._rows.labels(model, version), self._compute.labels(model, version))

    def text(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self._registry)


class _Batches:
    """The batches of one version."""

    def __init__(self, all_: Metrics, rows: Histogram, compute: Histogram) -> None:
        self._all, self._rows, self._compute = all_, rows, compute

    def batch(self, rows: int, spent_s: float) -> None:
        self._all.batches += 1
        self._all.rows += rows
        self._rows.observe(rows)
        self._compute.observe(spent_s)


class _Queues(Collector):
    def __init__(self, loaded: Callable[[], Iterable[Loaded]], in_flight: Callable[[], int]) -> None:
        self._loaded, self._in_flight = loaded, in_flight

    def collect(self) -> Iterable[GaugeMetricFamily]:
        queue = GaugeMetricFamily(
            "nereid_serving_queue_rows", "Rows that wait for the model.", labels=("model", "version")
        )
        for one in self._loaded():
            queue.add_metric((one.name, one.version), one.batcher.waiting_rows)
        yield queue
        yield GaugeMetricFamily("nereid_serving_in_flight_requests", "Requests under way.", value=self._in_flight())
