# SPDX-License-Identifier: Apache-2.0
"""The custom resource definitions as they ship: read from their files, without the models that they were made of."""

from functools import lru_cache
from typing import Any

from nereid_cloud import data


def load() -> list[dict[str, Any]]:
    """Return the CRDs of k8s/crds as dictionaries, in the order of their files."""
    import yaml  # noqa: PLC0415 - who only reads objects needs neither definitions nor YAML

    # libyaml's loader is ten times faster where PyYAML was built with it.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    files = sorted(data.path("crds").glob("*.yaml"))
    return [yaml.load(file.read_text(), Loader=loader) for file in files]  # noqa: S506 - a safe loader


@lru_cache
def schema_of(resource: str) -> dict[str, Any] | None:
    """Return the schema of a kind of ours, by its plural with the group; None for any other."""
    for crd in load():
        if crd["metadata"]["name"] == resource:
            (version,) = (each for each in crd["spec"]["versions"] if each["storage"])
            schema: dict[str, Any] = version["schema"]["openAPIV3Schema"]
            return schema
    return None
