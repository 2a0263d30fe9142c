# SPDX-License-Identifier: Apache-2.0
"""``python -m nereid_shared.datasets PATH FORMAT``: the sums over a dataset as JSON, for a process that has no room.

Exit code 2: it cannot be read; then the JSON has the ``reason`` and a ``message``.
"""

import sys

import msgspec

from nereid_shared.datasets import Dataset, read
from nereid_shared.errors import UserError

MOST_LOOKS = 10_000


def main(path: str, format_: str) -> int:
    """Read, and return the exit code."""
    try:
        said: object = read(Dataset(path, format_), most_looks=MOST_LOOKS)
        code = 0
    except UserError as error:
        said, code = {"reason": error.reason or "DatasetInvalid", "message": str(error)}, 2
    except OSError as error:
        said, code = {"reason": "DatasetUnreadable", "message": f"{path}: {error.strerror}"}, 2
    sys.stdout.buffer.write(msgspec.json.encode(said))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
