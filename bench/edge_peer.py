# SPDX-License-Identifier: Apache-2.0
"""What stands for the other machines in `bench.edge_loop`: accepts samples, and answers them where the cloud is up.

``python -m bench.edge_peer URL up|down``: the task comes as one line on stdin; ends with SIGTERM.
"""

import signal
import sys

from tests.worker.lc_peer import LcPeer, at_once, never

from nereid_shared.messages import Task


def main() -> int:
    """Serve until SIGTERM."""
    url, cloud = sys.argv[1:]
    task = Task.decode(sys.stdin.readline().encode(), max_bytes=1 << 20)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with LcPeer(url, task=task, behaviour=at_once if cloud == "up" else never):
        signal.sigwait({signal.SIGTERM})
    return 0


if __name__ == "__main__":
    sys.exit(main())
