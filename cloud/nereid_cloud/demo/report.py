# SPDX-License-Identifier: Apache-2.0
"""The ledger as the resource's status shows it, as one object and as a table."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from nereid_cloud.cluster.port import Object
from nereid_cloud.demo.evaluation import Accuracy

COUNTS: Final = (
    "seen", "easy", "hard", "skipped", "sent", "resent", "answered", "changed", "late", "degraded", "corrected",
    "undelivered", "pending",
)  # fmt: skip
LATENCIES: Final = {
    "edge_p50": "edgeLatencyP50Ms", "edge_p99": "edgeLatencyP99Ms",
    "cloud_p50": "cloudLatencyP50Ms", "cloud_p99": "cloudLatencyP99Ms",
}  # fmt: skip


def ledger_of(service: Object) -> dict[str, Any]:
    """Return the counts of a service's ``status.metrics``, in the words of the ledger."""
    metrics = metrics_of(service)
    return {
        **{name: int(metrics.get(name, "0")) for name in COUNTS},
        "failed": _by_reason(metrics, "failed."),
        "dropped": _by_reason(metrics, "dropped."),
        "bytes_up": int(metrics.get("bytesUp", "0")),
        "bytes_down": int(metrics.get("bytesDown", "0")),
        "upload_ratio": float(metrics.get("uploadCloudRatio", "0")),
        "latency_ms": {name: float(metrics[key]) if key in metrics else None for name, key in LATENCIES.items()},
    }


def metrics_of(service: Object) -> dict[str, str]:
    """Return ``status.metrics`` by key."""
    return {metric["key"]: metric["value"] for metric in service.get("status", {}).get("metrics", [])}


def _by_reason(metrics: Mapping[str, str], prefix: str) -> dict[str, int]:
    return {key.removeprefix(prefix): int(value) for key, value in metrics.items() if key.startswith(prefix)}


def broken_identities(ledger: Mapping[str, Any], *, samples: int) -> list[str]:
    """Return what does not add up (protocol, "Samples"); empty where all does."""
    seen, hard, answered, pending = (ledger[name] for name in ("seen", "hard", "answered", "pending"))
    easy, late, changed = (ledger[name] for name in ("easy", "late", "changed"))
    failed, dropped = sum(ledger["failed"].values()), sum(ledger["dropped"].values())
    checks = (
        (f"seen {seen} = {samples} samples streamed", seen == samples),
        (f"seen {seen} = easy {easy} + hard {hard} + failed {failed}", seen == easy + hard + failed),
        (
            f"hard {hard} = answered {answered} + dropped {dropped} + pending {pending}",
            hard == answered + dropped + pending,
        ),
        (f"late {late} <= answered {answered}", late <= answered),
        (f"changed {changed} <= answered {answered}", changed <= answered),
    )
    return [text for text, holds in checks if not holds]


def unsettled(ledger: Mapping[str, Any]) -> list[str]:
    """Return which answers have not come where they belong; empty where all have."""
    pending, late = ledger["pending"], ledger["late"]
    told = ledger["corrected"] + ledger["undelivered"]
    checks = (
        (f"{pending} hard samples still wait for the cloud's answer", pending == 0),
        (f"{late - told} of {late} late answers have not reached their worker", told >= late),
    )
    return [text for text, holds in checks if not holds]


def as_object(ledger: Mapping[str, Any], accuracy: Accuracy, service: Object) -> dict[str, Any]:
    """Return what ``--json`` prints."""
    return {**ledger, "accuracy": asdict(accuracy), "service": service}


def show(console: Console, ledger: Mapping[str, Any], accuracy: Accuracy) -> None:
    """Print the ledger and the accuracies."""
    counts = Table(title="Ledger", show_header=False, title_justify="left")
    for name in COUNTS:
        counts.add_row(name, str(ledger[name]))
    for name in ("failed", "dropped"):
        counts.add_row(name, ", ".join(f"{reason} {count}" for reason, count in ledger[name].items()) or "0")
    counts.add_row("bytes up / down", f"{ledger['bytes_up']:,} / {ledger['bytes_down']:,}")
    counts.add_row("upload ratio", f"{ledger['upload_ratio']:.1%}")
    for tier in ("edge", "cloud"):
        latency = ledger["latency_ms"]
        counts.add_row(f"{tier} latency p50 / p99", f"{_ms(latency[f'{tier}_p50'])} / {_ms(latency[f'{tier}_p99'])}")
    console.print(counts)

    shares = Table(title="Accuracy", title_justify="left")
    for head in (
        "little model alone",
        "big model alone",
        "joint, at the deadline",
        "joint, with corrections",
        "gap recovered",
    ):
        shares.add_column(head, justify="right")
    gap = "-" if accuracy.gap_recovered is None else f"{accuracy.gap_recovered:.0%}"
    shares.add_row(
        f"{accuracy.edge:.1%}", f"{accuracy.cloud:.1%}", f"{accuracy.joint_live:.1%}", f"{accuracy.joint:.1%}", gap
    )
    console.print(shares)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} ms"
