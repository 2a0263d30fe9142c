# SPDX-License-Identifier: Apache-2.0
"""Sums of ledgers over nodes, and the metrics that a service's status shows of them."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec.structs import replace

from nereid_shared import histogram
from nereid_shared.messages import Ledger

# Status key by Ledger field: the seeds' spelling of names.
_COUNTS: Final[Mapping[str, str]] = {
    "seen": "seen", "easy": "easy", "hard": "hard", "skipped": "skipped", "sent": "sent", "resent": "resent",
    "answered": "answered", "late": "late", "changed": "changed", "corrected": "corrected",
    "undelivered": "undelivered", "degraded": "degraded", "pending": "pending", "bytes_up": "bytesUp",
    "bytes_down": "bytesDown",
}  # fmt: skip
_PERCENTILES: Final = (("50", 0.5), ("99", 0.99))


def total(ledgers: Iterable[Ledger]) -> Ledger:
    """Return the sum of ledgers; its identities hold where each one's do."""
    counts = dict.fromkeys(_COUNTS, 0)
    failed: dict[str, int] = {}
    dropped: dict[str, int] = {}
    latency: dict[str, dict[int, int]] = {}
    for ledger in ledgers:
        for name in counts:
            counts[name] += getattr(ledger, name)
        _add(failed, ledger.failed)
        _add(dropped, ledger.dropped)
        for tier, buckets in ledger.latency.items():
            histogram.add(latency.setdefault(tier, {}), buckets)
    return replace(Ledger(failed=failed, dropped=dropped, latency=latency), **counts)


def retired(ledger: Ledger) -> Ledger:
    """Return the ledger of a node that let its task go: what was pending there will have no answer."""
    if not ledger.pending:
        return ledger
    dropped = {**ledger.dropped, "removed": ledger.dropped.get("removed", 0) + ledger.pending}
    return replace(ledger, pending=0, dropped=dropped)


def metrics_of(ledger: Ledger) -> list[dict[str, str]]:
    """Return the status's metrics: decimal strings, latencies in milliseconds."""
    inferences = ledger.easy + ledger.hard
    values = {key: str(getattr(ledger, name)) for name, key in _COUNTS.items()}
    values |= {f"failed.{reason}": str(count) for reason, count in sorted(ledger.failed.items())}
    values |= {f"dropped.{reason}": str(count) for reason, count in sorted(ledger.dropped.items())}
    values["inferenceNumber"] = str(inferences)
    values["hardExampleNumber"] = str(ledger.hard)
    values["uploadCloudRatio"] = f"{ledger.answered / inferences:.4f}" if inferences else "0"
    for tier, buckets in sorted(ledger.latency.items()):
        for name, share in _PERCENTILES:
            seconds = histogram.percentile_s(buckets, share)
            if seconds is not None:
                values[f"{tier}LatencyP{name}Ms"] = f"{seconds * 1000:.2f}"
    return [{"key": key, "value": value} for key, value in values.items()]


def is_behind(fresh: Ledger, stored: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a sum is lower in some count than the metrics that a status already shows."""
    shown = {metric["key"]: metric["value"] for metric in stored}
    present = {metric["key"]: metric["value"] for metric in metrics_of(fresh)}
    grows = [key for name, key in _COUNTS.items() if name != "pending"]
    grows += [key for key in shown if key.startswith(("failed.", "dropped."))]
    return any(_count(present.get(key)) < _count(shown.get(key)) for key in grows)


def _count(value: str | None) -> int:
    return int(value) if value is not None and value.isdecimal() else 0


def _add(totals: dict[str, int], more: Mapping[str, int]) -> None:
    for reason, count in more.items():
        totals[reason] = totals.get(reason, 0) + count
