# SPDX-License-Identifier: Apache-2.0
"""Manifests in files: each document with its place, so that whatever is wrong in it can be pointed at by line."""

import sys
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, Final

import yaml

from nereid_shared.errors import UserError

SUFFIXES: Final = (".yaml", ".yml", ".json")
_PATH_SEPARATORS: Final = str.maketrans({"[": ".", "]": None})
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc] # libyaml's loader where PyYAML has it, else the Python one
    """The safe loader without timestamps: to Kubernetes an unquoted date is a text."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, Any]]]] = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in _Base.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One object of a file.

    Attributes:
        file: as the user named it, or the file found in the folder that the user named; ``-`` for stdin.
        number: 1 for the file's first document.
        obj: the manifest: an object, once it was checked.
        node: where everything in it stands.
    """

    file: str
    number: int
    obj: Any
    node: yaml.Node

    def where(self, field: str = "") -> str:
        """Return file, line and document of a field; the line of the nearest one around it, where it is absent."""
        name = (self.obj.get("metadata") or {}).get("name", "") if isinstance(self.obj.get("metadata"), dict) else ""
        what = f"{self.obj.get('kind', 'no kind')} {name}".strip()
        line = _line(self.node, field) + 1
        return f"{self.file}:{line}: document {self.number} ({what})"


def documents(places: Iterable[str]) -> list[Document]:
    """Return the documents of files, of folders' files in the order of their names, and of stdin (``-``).

    Raises:
        UserError: one cannot be read, is no YAML, or is no manifest.
    """
    found = [document for place in places for file in _files(place) for document in _documents(file)]
    if not found:
        raise UserError("no objects passed to apply", where=", ".join(places), mend="Write a manifest into the file")
    return found


def _files(place: str) -> list[str]:
    if place == "-":
        return [place]
    path = Path(place)
    if path.is_dir():
        files = sorted(str(file) for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
        if not files:
            raise UserError("no manifests in this folder", where=place, mend=f"They end in {', '.join(SUFFIXES)}")
        return files
    if not path.exists():
        raise UserError("the path does not exist", where=place, mend="Give a file, a folder or - for stdin")
    return [place]


def _documents(file: str) -> Iterator[Document]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", where=file, mend="Give a readable text file") from error
    loader = _Loader(text)
    number = 0
    try:
        while loader.check_node():
            node = loader.get_node()
            number += 1
            _refuse_doubles(node, file)
            value = loader.construct_document(node)
            if value is None:
                continue
            for obj, place in _objects(_as_json(value, f"{file}: document {number}"), node):
                yield _checked(Document(file=file, number=number, obj=obj, node=place))
    except yaml.YAMLError as error:
        raise _not_yaml(error, file) from error
    finally:
        loader.dispose()


def _objects(value: Any, node: yaml.Node) -> Iterator[tuple[Any, yaml.Node]]:
    """Yield a document's object, or those of a List."""
    items = value.get("items") if isinstance(value, dict) and str(value.get("kind", "")).endswith("List") else None
    if not isinstance(items, list):
        yield value, node
        return
    nodes = next(child for key, child in node.value if key.value == "items").value
    yield from zip(items, nodes, strict=True)


def _checked(document: Document) -> Document:
    """Return the document if it is a manifest.

    Raises:
        UserError: it lacks what every manifest has.
    """
    if not isinstance(document.obj, dict):
        where = f"{document.file}:{document.node.start_mark.line + 1}: document {document.number}"
        raise UserError("this is no manifest", where=where, mend="Begin it with apiVersion, kind, metadata and spec")
    for field in ("apiVersion", "kind"):
        if not isinstance(document.obj.get(field), str):
            raise UserError(f"{field} is not set", where=document.where(field), mend=f"Set {field}")
    metadata = document.obj.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise UserError("metadata.name is not set", where=document.where("metadata"), mend="Give the object a name")
    return document


def _as_json(value: Any, where: str) -> Any:
    """Return a YAML value as JSON has it.

    Raises:
        UserError: JSON cannot have it.
    """
    if isinstance(value, dict):
        return {_key(key): _as_json(child, where) for key, child in value.items()}
    if isinstance(value, list):
        return [_as_json(child, where) for child in value]
    if value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and isfinite(value)):
        return value
    raise UserError(f"{value!r} is no value that the API knows", where=where, mend="Write it as text, in quotes")


def _key(key: Hashable) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(key)


def _refuse_doubles(node: yaml.Node, file: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if key.value in seen and isinstance(key, yaml.ScalarNode) and key.value != "<<":
                raise UserError(
                    f'"{key.value}" stands there twice, first in line {seen[key.value]}',
                    where=f"{file}:{line}",
                    mend="Remove one of them",
                )
            if isinstance(key, yaml.ScalarNode):
                seen[key.value] = line
            _refuse_doubles(child, file)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_doubles(child, file)


def _not_yaml(error: yaml.YAMLError, file: str) -> UserError:
    mark = getattr(error, "problem_mark", None)
    where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
    problem = getattr(error, "problem", None) or str(error)
    return UserError(f"this is not YAML: {problem}", where=where, mend="Mend the line, or the indentation around it")


def _line(node: yaml.Node, field: str) -> int:
    line = node.start_mark.line
    for part in filter(None, field.translate(_PATH_SEPARATORS).split(".")):
        child = _child(node, part)
        if child is None:
            break
        line, node = child
    return line


def _child(node: yaml.Node, part: str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        return next(((key.start_mark.line, child) for key, child in node.value if key.value == part), None)
    if isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
        return node.value[int(part)].start_mark.line, node.value[int(part)]
    return None
