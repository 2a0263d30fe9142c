# SPDX-License-Identifier: Apache-2.0
"""``python -m bench [NAME…] [--json] [--quick]``: run measurements and print their figures.

Exit code 0 where every target is met, 1 where one is missed.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Final

from bench.figures import Figure, as_json, as_table

# From a name to the module whose `run(quick=…)` returns its figures.
BENCHES: Final[dict[str, str]] = {
    "api": "bench.api",
    "datasets": "bench.datasets",
    "edge-loop": "bench.edge_loop",
    "fetch": "bench.fetch",
    "footprint": "bench.footprint",
    "local-cluster": "bench.local_cluster",
    "round-trip": "bench.round_trip",
    "scale": "bench.scale",
    "serving": "bench.serving",
    "swap": "bench.swap",
    "wire-bytes": "bench.wire_bytes",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}; all by default")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout instead of the table")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: to see that it runs, not to judge by")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(BENCHES)):
        parser.error(f"no measurement {unknown[0]!r}; there are {', '.join(BENCHES)}")
    results: dict[str, list[Figure]] = {}
    for name in given.names or BENCHES:
        print(f"measuring {name}", file=sys.stderr)
        results[name] = importlib.import_module(BENCHES[name]).run(quick=given.quick)
    print(as_json(results) if given.json else as_table(results))
    return int(any(one.holds is False for rows in results.values() for one in rows))


if __name__ == "__main__":
    sys.exit(main())
