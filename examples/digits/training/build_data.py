# SPDX-License-Identifier: Apache-2.0
"""Writes the demo's test stream: `digits.tar.gz` for workers, `labels.csv` for evaluators, a picture for readers.

The archive holds frames and `index.csv` with their paths, never a label. `--check` writes nothing and fails when the
archive or the labels would come out other than they are.
"""

import argparse
import hashlib
import io
import struct
import sys
import tarfile
import zlib

import numpy as np

from streams import FIRST_FAMILY, HOME, SECOND_FAMILY, Stream, encoded, stream


def _paths(test: Stream) -> list[str]:
    return [f"images/{n:04d}.png" for n in range(len(test.labels))]


def stored_gzip(data: bytes) -> bytes:
    """A gzip file of stored blocks: its bytes do not hang on the zlib at hand, and PNGs would not shrink anyway."""
    blocks = [data[at : at + 0xFFFF] for at in range(0, len(data), 0xFFFF)]
    body = b"".join(
        struct.pack("<BHH", n == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for n, block in enumerate(blocks)
    )
    header = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"  # no name, time 0, unknown system
    return header + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def archive(test: Stream) -> bytes:
    """`index.csv` and the frames as a tar of plain files in stream order, all of time 0 and owner 0."""
    paths = _paths(test)
    members = {"index.csv": "".join(f"{line}\n" for line in ["path", *paths]).encode()}
    members |= {path: encoded(image) for path, image in zip(paths, test.images, strict=True)}
    tar_bytes = io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    return stored_gzip(tar_bytes.getvalue())


def labels(test: Stream) -> bytes:
    """The truth of each frame and the scan that it came from."""
    rows = zip(_paths(test), test.labels, test.scans, strict=True)
    return "".join(["path,label,scan\n", *(f"{path},{label},{scan}\n" for path, label, scan in rows)]).encode()


def contact_sheet(test: Stream, other: Stream) -> bytes:
    """Two rows of each family, first the one that the demo streams."""
    columns, gap = 16, 2
    rows = []
    for frames in (
        test.images[:columns],
        test.images[columns : 2 * columns],
        other.images[:columns],
        other.images[columns : 2 * columns],
    ):
        cells = [np.pad(frame.repeat(2, axis=0).repeat(2, axis=1), gap, constant_values=255) for frame in frames]
        rows.append(np.hstack(cells))
    return encoded(np.vstack(rows))


def main() -> None:
    """Writes the three files, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the files that are there; write nothing")
    check = parser.parse_args().check
    test = stream("test", FIRST_FAMILY)
    files = {"digits.tar.gz": archive(test), "labels.csv": labels(test)}
    if not check:
        files["samples.png"] = contact_sheet(test, stream("test", SECOND_FAMILY))
    differing = []
    for name, data in files.items():
        if check and (HOME / name).read_bytes() != data:
            differing.append(name)
        elif not check:
            (HOME / name).write_bytes(data)
        print(f"{hashlib.sha256(data).hexdigest()}  {name}  {len(data)} bytes")
    if differing:
        sys.exit(f"these differ from what the scripts make: {', '.join(differing)}")


if __name__ == "__main__":
    main()
