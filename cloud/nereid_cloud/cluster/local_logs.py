# SPDX-License-Identifier: Apache-2.0
"""The lines of a container's log, from the files that the PodRunner writes."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from nereid_cloud.cluster.port import Object
from nereid_shared.errors import NotFound, Unavailable

# Set on a Pod by the PodRunner: the folder of {container}.log and, of the run before, {container}.log.1.
LOG_FOLDER: Final = "nereid.io/log-dir"
_POLL_S: Final = 0.1


def container_log(pod: Object, container: str, *, previous: bool) -> Path:
    """Return the file of a container's log; the Pod's first container where none is named.

    Raises:
        NotFound: the Pod has no such container, or the container did not run before.
        Unavailable: the container has not started yet.
    """
    name = pod["metadata"]["name"]
    containers = [item["name"] for item in pod["spec"]["containers"]]
    chosen = container or containers[0]
    if chosen not in containers:
        raise NotFound(f'container {chosen} is not valid for pod "{name}"; it has {", ".join(containers)}')
    folder = (pod["metadata"].get("annotations") or {}).get(LOG_FOLDER)
    if folder is None:
        raise Unavailable(f'container "{chosen}" in pod "{name}" is waiting to start')
    file = Path(folder) / f"{chosen}.log{'.1' if previous else ''}"
    if not file.exists():
        if previous:
            raise NotFound(f'previous terminated container "{chosen}" in pod "{name}" not found')
        raise Unavailable(f'container "{chosen}" in pod "{name}" is waiting to start')
    return file


def lines(file: Path, *, tail: int | None, follow: bool, ended: Callable[[], bool]) -> Iterator[str]:
    """Yield the lines of a log without their ends.

    Args:
        file: the log.
        tail: how many of the last lines to begin with; all of them where it is None.
        follow: go on with what is appended until the container has ended or its log was rotated.
        ended: whether the container has ended.
    """
    with file.open(errors="replace", newline="\n") as stream:
        written = deque(stream, maxlen=tail) if tail is not None else stream
        partial = ""
        for line in written:
            if line.endswith("\n"):
                yield line.removesuffix("\n")
            else:
                partial = line
        while follow:
            over = ended() or _rotated(file, stream.fileno())
            while text := stream.readline():
                partial += text
                if partial.endswith("\n"):
                    yield partial.removesuffix("\n")
                    partial = ""
            if over:
                break
            time.sleep(_POLL_S)
        if partial:
            yield partial


def _rotated(file: Path, descriptor: int) -> bool:
    try:
        return not os.path.samestat(file.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return True
