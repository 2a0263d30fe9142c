# SPDX-License-Identifier: Apache-2.0
"""Where the files are that ship beside the code: CRDs, samples, broker configurations, examples."""

from pathlib import Path

from nereid_shared.errors import NotFound

# Name -> place in a checkout; in the wheel each is under nereid_cloud/_data/{name} (force-include in pyproject.toml).
_IN_CHECKOUT = {"crds": "k8s/crds", "samples": "k8s/samples", "mosquitto": "mosquitto", "examples": "examples"}


def path(name: str) -> Path:
    """Return the folder of that name, whether the package runs from a checkout or from the wheel.

    Raises:
        NotFound: this installation does not have it.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "_data" / name, here.parent.parent / _IN_CHECKOUT.get(name, name)):
        if folder.is_dir():
            return folder
    raise NotFound(f"this installation of nereid-ai lacks its {name} files; install it again")
