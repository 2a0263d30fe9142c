# SPDX-License-Identifier: Apache-2.0
"""``nereid version``."""

import json
import platform
import sys
from importlib import metadata
from typing import Annotated, Literal

import typer


def version(
    output: Annotated[Literal["text", "json"], typer.Option("-o", "--output", help="text or json.")] = "text",
) -> None:
    """Print the version of Nereid and of the Python that runs it."""
    found = {"nereid": metadata.version("nereid-ai"), "python": platform.python_version()}
    if output == "json":
        sys.stdout.write(json.dumps(found) + "\n")
    else:
        sys.stdout.write(f"nereid {found['nereid']} (Python {found['python']})\n")
