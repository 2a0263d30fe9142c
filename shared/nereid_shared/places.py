# SPDX-License-Identifier: Apache-2.0
"""What the places in specs name: a path on the node, or something elsewhere."""

from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote

_OF_THIS_HOST: Final = ("file:///", "file://localhost/")


def node_path(place: str) -> PurePosixPath | None:
    """Return the path on the node that a place names; None for a URL of elsewhere, and for what is no place at all.

    Whatever was written is answered: specs are everybody's.
    """
    path = place
    if not place.startswith("/"):
        prefix = next((prefix for prefix in _OF_THIS_HOST if place.startswith(prefix)), None)
        if prefix is None:
            return None
        path = "/" + unquote(place.removeprefix(prefix).partition("?")[0].partition("#")[0])
    return None if "\0" in path else PurePosixPath(path)
