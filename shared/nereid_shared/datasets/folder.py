# SPDX-License-Identifier: Apache-2.0
"""``folder``: pictures in a folder and the folders in it; a picture's class is the name of the folder that it lies in.

Pictures that lie in the dataset's folder itself have no class.
"""

import os
from pathlib import Path

from nereid_shared.datasets.pictures import is_picture
from nereid_shared.datasets.sample import Sample


def is_sample(name: str) -> bool:
    """Whether a file is a picture."""
    return is_picture(name)


def annotation(root: Path, name: str) -> str:
    """A picture's class needs no file."""
    del root, name
    return ""


def shared(root: Path) -> str:
    """Each picture stands for itself."""
    del root
    return ""


def sample(root: Path, name: str, *, whole: bool = False) -> Sample:
    """Return a picture under its folder's name."""
    del root, whole
    return Sample(name=name, label=os.path.basename(os.path.dirname(name)))  # noqa: PTH119, PTH120 - for each of many


def picture(root: Path, name: str) -> str:
    """Return the sample's own file."""
    del root
    return name
