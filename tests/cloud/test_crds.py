# SPDX-License-Identifier: Apache-2.0
"""The generated CRDs: equal to k8s/crds, true to the seeds, and within what an API server takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nereid_cloud import crds, data
from nereid_shared.errors import NotFound
from nereid_shared.resources import KINDS, rules_of

SEEDS = Path(__file__).parents[1] / "seeds"
NAMES = sorted(f"{kind.plural}.{kind.group}" for kind in KINDS.values())


def generated(name: str) -> dict[str, Any]:
    (crd,) = (crd for crd in crds.load() if crd["metadata"]["name"] == name)
    return crd


def seed(name: str) -> dict[str, Any]:
    crd: dict[str, Any] = yaml.safe_load((SEEDS / f"crd-{name}.yaml").read_text())
    return crd


def version(crd: dict[str, Any]) -> dict[str, Any]:
    (only,) = crd["spec"]["versions"]
    assert isinstance(only, dict)
    return only


def leaves(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from leaves(child, f"{path}.{name}")
    if "items" in schema:
        yield from leaves(schema["items"], f"{path}[]")


def test_the_files_are_what_the_models_generate() -> None:
    files = {file.name: file.read_text() for file in data.path("crds").glob("*.yaml")}
    assert files == crds.generate(), "run: python -m nereid_cloud.crds"


def test_writing_them_removes_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("")
    assert {file.name for file in crds.write(tmp_path)} == {"old.yaml", *crds.generate()}
    assert {file.name for file in tmp_path.iterdir()} == set(crds.generate())
    assert list(crds.write(tmp_path)) == []


@pytest.mark.parametrize("name", NAMES)
def test_names_are_the_seeds(name: str) -> None:
    ours, theirs = generated(name)["spec"], seed(name)["spec"]
    assert {key: ours[key] for key in ("group", "scope")} == {key: theirs[key] for key in ("group", "scope")}
    assert {key: ours["names"][key] for key in theirs["names"]} == theirs["names"]
    assert ours["names"]["categories"] == ["nereid"]
    assert version(generated(name))["name"] == version(seed(name))["name"]
    assert version(generated(name))["subresources"]["status"] == {}


def test_what_has_replicas_scales() -> None:
    scale = version(generated("inferencemodels.sedna.io"))["subresources"]["scale"]
    assert scale == {
        "specReplicasPath": ".spec.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }


def columns(crd: dict[str, Any]) -> list[dict[str, str]]:
    # The seeds' JIS and Model CRDs have them in the version, the Dataset's beside a blank line: the same place.
    found = version(crd)["additionalPrinterColumns"]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_seeds_columns_come_first_unchanged(name: str) -> None:
    theirs = columns(seed(name))
    assert columns(generated(name))[: len(theirs)] == theirs


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_the_seeds_is_there_with_its_type(name: str) -> None:
    ours = dict(leaves(version(generated(name))["schema"]["openAPIV3Schema"]))
    for path, theirs in leaves(version(seed(name))["schema"]["openAPIV3Schema"]):
        assert ours[path]["type"] == theirs["type"], path
        if "format" in theirs:
            assert ours[path]["format"] == "date-time", path


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_required_that_the_seeds_do_not_have(name: str) -> None:
    theirs = dict(leaves(version(seed(name))["schema"]["openAPIV3Schema"]))
    for path, ours in leaves(version(generated(name))["schema"]["openAPIV3Schema"]):
        if path in theirs:
            assert set(ours.get("required", ())) <= set(theirs[path].get("properties", ())), path


@pytest.mark.parametrize("name", NAMES)
def test_a_default_below_takes_effect(name: str) -> None:
    """A default counts only where each optional parent has one too."""
    for path, node in leaves(version(generated(name))["schema"]["openAPIV3Schema"]["properties"]["spec"]):
        for child, schema in node.get("properties", {}).items():
            defaults_below = any("default" in leaf for p, leaf in leaves(schema) if p and "[]" not in p)
            if schema["type"] == "object" and defaults_below and child not in node.get("required", ()):
                assert schema["default"] == {}, f"{path}.{child}"


@pytest.mark.parametrize("name", NAMES)
def test_a_status_reads_back_as_it_was_written(name: str) -> None:
    status = version(generated(name))["schema"]["openAPIV3Schema"]["properties"]["status"]
    assert [path for path, node in leaves(status) if "default" in node] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_text_in_a_spec_is_bounded(name: str) -> None:
    for path, node in leaves(version(generated(name))["schema"]["openAPIV3Schema"]["properties"]["spec"]):
        if node["type"] == "string" and "enum" not in node:
            assert node["maxLength"] <= 2048, path
        if node["type"] == "array":
            assert node["maxItems"] <= 256, path
        assert node["type"] != "number", f"{path}: a spec holds no floats"


@pytest.mark.parametrize("name", NAMES)
def test_a_crd_is_small(name: str) -> None:
    assert len(yaml.safe_dump(generated(name))) < crds.MAX_BYTES


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_stands_in_its_schema(kind: str) -> None:
    name = f"{KINDS[kind].plural}.{KINDS[kind].group}"
    nodes = dict(leaves(version(generated(name))["schema"]["openAPIV3Schema"]))
    for rule in rules_of(kind):
        assert {"rule": rule.cel, "message": rule.message} in nodes[f".{rule.path}"]["x-kubernetes-validations"]


def test_files_that_do_not_ship_are_named() -> None:
    with pytest.raises(NotFound, match="lacks its nonsense files"):
        data.path("nonsense")
