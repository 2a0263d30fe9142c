# SPDX-License-Identifier: Apache-2.0
"""Whether a process listens on a port: on one machine, an answer from there may be another container's.

Replicas of one server share a port (SO_REUSEPORT), and a Pod that is about to serve would otherwise be called ready for
what the one that it replaces answers.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LISTEN: Final = "0A"  # TCP_LISTEN in /proc/net/tcp (proc_net_tcp(5))
_TABLES: Final = ("net/tcp", "net/tcp6")


def listens(pid: int, port: int) -> bool:
    """Whether a process, or one that it started, listens on a TCP port of its network."""
    inodes = set(_listeners(pid, port))
    return bool(inodes) and any(_holds(one, inodes) for one in _family(pid))


def _listeners(pid: int, port: int) -> Iterator[str]:
    """Yield the inodes of the sockets that listen on a port."""
    for table in _TABLES:
        try:
            lines = Path(f"/proc/{pid}/{table}").read_text().splitlines()[1:]
        except OSError:
            continue  # without IPv6, or the process has ended
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]


def _holds(pid: int, inodes: set[str]) -> bool:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    try:
        links = list(os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return False
    for link in links:
        try:
            if os.readlink(link.path) in wanted:  # noqa: PTH115 - a socket's name is no path
                return True
        except OSError:
            continue  # closed meanwhile
    return False


def _family(pid: int) -> Iterator[int]:
    """Yield a process and all that descend from it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:
            continue
        for child in found:
            yield from _family(int(child))
