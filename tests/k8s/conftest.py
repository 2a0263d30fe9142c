# SPDX-License-Identifier: Apache-2.0
"""Rendered overlays."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from tests.cluster import building
from tests.cluster.fixtures import go_without

K8S = Path(__file__).parents[2] / "k8s"
OVERLAYS = ("kubeedge", "single-node", "dev")
MISSING = "no kubectl: install it (https://kubernetes.io/docs/tasks/tools), or Go to build the tests' own"

Object = dict[str, Any]


def kubectl() -> list[str]:
    """Return a kubectl that can render, or skip the test."""
    installed = shutil.which("kubectl")
    if installed:
        return [installed]
    program = building.binary()
    if program is None:
        go_without("cluster", MISSING)
    return [str(program), "kubectl"]


@cache
def rendered(folder: Path) -> str:
    """Return what `kubectl kustomize` makes of a folder."""
    argv = [*kubectl(), "kustomize", str(folder)]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


def objects(overlay: str) -> list[Object]:
    """Return the objects of an overlay."""
    return list(yaml.safe_load_all(rendered(K8S / "overlays" / overlay)))


def with_component(folder: Path, component: str, overlay: str = "kubeedge") -> list[Object]:
    """Return the objects of an overlay of one's own, written to a folder, that adds a component to one of ours."""
    own = folder / component
    own.mkdir()
    # Kustomize takes components by relative paths only.
    k8s = "../" * len(own.parts[1:]) + str(K8S)[1:]
    text = {"resources": [f"{k8s}/overlays/{overlay}"], "components": [f"{k8s}/components/{component}"]}
    (own / "kustomization.yaml").write_text(yaml.safe_dump(text))
    return list(yaml.safe_load_all(rendered(own)))


def one(found: list[Object], kind: str, name: str) -> Object:
    """Return the only object of that kind and name; generated names count without their hash."""
    (obj,) = (
        obj
        for obj in found
        if obj["kind"] == kind and (obj["metadata"]["name"] == name or _stem(obj["metadata"]["name"]) == name)
    )
    return obj


def pod_of(obj: Object) -> Object:
    """Return the Pod's spec of a workload."""
    spec: Object = obj["spec"]["template"]["spec"]
    return spec


def _stem(name: str) -> str:
    return name.rpartition("-")[0]
