# SPDX-License-Identifier: Apache-2.0
"""Checks the figures of a demo's ``--json``: python -m tests.check_demo REPORT."""

import json
import sys
from pathlib import Path
from typing import Any

KEYS = {
    "seen", "easy", "hard", "failed", "sent", "resent", "answered", "changed", "late", "degraded", "corrected",
    "pending", "dropped", "bytes_up", "bytes_down", "upload_ratio", "accuracy", "latency_ms", "service",
}  # fmt: skip


def problems_of(report: dict[str, Any], *, samples: int | None) -> list[str]:
    """Return what is wrong with a report."""
    if missing := KEYS - set(report):
        return [f"keys are missing: {sorted(missing)}"]
    failed, dropped = sum(report["failed"].values()), sum(report["dropped"].values())
    metrics = {metric["key"]: metric["value"] for metric in report["service"]["status"]["metrics"]}
    accuracy = report["accuracy"]
    ratio = report["answered"] / max(1, report["easy"] + report["hard"])
    claims = {
        "seen = samples streamed": samples is None or report["seen"] == samples,
        "seen = easy + hard + failed": report["seen"] == report["easy"] + report["hard"] + failed,
        "hard = answered + dropped + pending": report["hard"] == report["answered"] + dropped + report["pending"],
        "nothing failed, nothing dropped, nothing pending": (failed, dropped, report["pending"]) == (0, 0, 0),
        "late and changed are among the answered": max(report["late"], report["changed"]) <= report["answered"],
        "each late answer became a correction": report["corrected"] == report["late"],
        "the status shows the ledger's counts": all(
            int(metrics[name]) == report[name] for name in ("seen", "easy", "hard", "sent", "answered", "late")
        ),
        "upload_ratio = answered / inferences": abs(report["upload_ratio"] - ratio) < 1e-3,
        "the budget of 20 % holds": 0.1 <= report["hard"] / report["seen"] <= 0.3,
        "the big model is better than the little one": accuracy["cloud"] > accuracy["edge"] + 0.05,
        "both together are better than the little one alone": accuracy["joint"] > accuracy["edge"] + 0.02,
        "the service ended Running": report["service"]["status"]["conditions"][-1]["type"] == "Running",
    }
    return [claim for claim, holds in claims.items() if not holds]


def main() -> int:
    """Print what is wrong; returns 1 where something is."""
    report = json.loads(Path(sys.argv[1]).read_text())
    problems = problems_of(report, samples=None)
    for problem in problems:
        sys.stderr.write(f"the demo's report does not hold: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
