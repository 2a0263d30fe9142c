# SPDX-License-Identifier: Apache-2.0
"""Files in memory: the worker's page and spool."""

import errno
import mmap
import os
from pathlib import Path


def open_mapped(path: Path, size: int) -> tuple[int, mmap.mmap]:
    """Return a file's descriptor and the map of its first `size` bytes; it is made, or made longer, where it has to be.

    All of it has its place on the disk: a store into a hole of a full disk would end the process with SIGBUS.

    Raises:
        OSError: it cannot be opened, or the disk is full; names the file.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _reserve(file, size)
        return file, mmap.mmap(file, size)
    except OSError as error:
        os.close(file)
        raise OSError(error.errno, error.strerror, str(path)) from error


def _reserve(file: int, size: int) -> None:
    present, disk = os.fstat(file), os.statvfs(file)
    # Asked first: fallocate takes the last block before it says that there are too few.
    if size - present.st_blocks * 512 > disk.f_bavail * disk.f_frsize:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        os.posix_fallocate(file, 0, size)
    except OSError:
        os.ftruncate(file, present.st_size)
        raise
