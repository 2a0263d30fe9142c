# SPDX-License-Identifier: Apache-2.0
"""The entry point of ``nereid``: says what to install where the command's own libraries are missing."""

import sys
from importlib.util import find_spec
from typing import Final

NEEDED: Final = ("typer", "rich", "yaml", "kubernetes")
USERS_ERROR: Final = 2


def main() -> None:
    """Run the nereid command."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        sys.stderr.write(f"error: not installed: {', '.join(missing)}. pip install 'nereid-ai[cloud]'\n")
        sys.exit(USERS_ERROR)
    from nereid_cloud.cli import main as run  # noqa: PLC0415 - it needs what was looked for

    run()
