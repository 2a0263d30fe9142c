# SPDX-License-Identifier: Apache-2.0
"""Server-side apply: which fields a manager applied, merging a new configuration, and removing what it dropped.

A field's path is a tuple of steps: ``.name`` into a mapping, ``{"name":"a"}`` to the item of that key in a keyed list,
``="x"`` to a member of a set. Lists that are neither are owned, and replaced, whole.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

Path = tuple[str, ...]
# From the names that lead to a list (without items) to its key fields; () is a set, None an atomic list.
ListKeys = Callable[[tuple[str, ...]], tuple[str, ...] | None]

_MISSING: Final = object()
_KEY_DEFAULTS: Final = {"protocol": "TCP"}
_BUILTIN_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "conditions": ("type",),
    "containers": ("name",),
    "env": ("name",),
    "finalizers": (),
    "imagePullSecrets": ("name",),
    "initContainers": ("name",),
    "ownerReferences": ("uid",),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}


def builtin_list_keys(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the key of a list in one of Kubernetes' own kinds."""
    if names[-1] == "ports":
        return ("containerPort" if "containers" in names else "port", "protocol")
    return _BUILTIN_KEYS.get(names[-1])


def schema_list_keys(schema: Mapping[str, Any]) -> ListKeys:
    """Return the lookup of a custom resource's list keys: its schema says them, its metadata is Kubernetes'."""

    def keys(names: tuple[str, ...]) -> tuple[str, ...] | None:
        if names[0] == "metadata":
            return builtin_list_keys(names)
        node = schema
        for name in names:
            node = node.get("items", node)
            node = node.get("properties", {}).get(name) or node.get("additionalProperties") or {}
        list_type = node.get("x-kubernetes-list-type")
        return tuple(node["x-kubernetes-list-map-keys"]) if list_type == "map" else () if list_type == "set" else None

    return keys


def owned_fields(config: Any, keys: ListKeys, names: tuple[str, ...] = (), path: Path = ()) -> Iterator[Path]:
    """Yield the paths that a manager owns by applying `config`."""
    if isinstance(config, Mapping) and config:
        for name, value in config.items():
            yield from owned_fields(value, keys, (*names, name), (*path, f".{name}"))
    elif isinstance(config, list) and names and keys(names) is not None:
        for item in config:
            step = _step(item, keys(names) or ())
            yield (*path, step)
            if isinstance(item, Mapping):
                yield from owned_fields(item, keys, names, (*path, step))
    elif path:
        yield path


def _step(item: Any, key: tuple[str, ...]) -> str:
    if not key:
        return f"={json.dumps(item, sort_keys=True)}"
    fields = item if isinstance(item, Mapping) else {}
    return json.dumps({name: fields.get(name, _KEY_DEFAULTS.get(name)) for name in key}, sort_keys=True)


def merged(live: Any, config: Any, keys: ListKeys, names: tuple[str, ...] = ()) -> Any:
    """Return `live` with `config` merged in, keyed lists by their keys."""
    if isinstance(config, Mapping):
        before = live if isinstance(live, Mapping) else {}
        changed = {name: merged(before.get(name), value, keys, (*names, name)) for name, value in config.items()}
        return {**before, **changed}
    key = keys(names) if isinstance(config, list) and names else None
    if key is None or not isinstance(live, list):
        return config
    items = {_step(item, key): item for item in live}
    for item in config:
        step = _step(item, key)
        items[step] = merged(items.get(step), item, keys, names)
    return list(items.values())


def without(live: Any, paths: Iterable[Path], keys: ListKeys, names: tuple[str, ...] = ()) -> Any:
    """Return `live` without the fields at `paths`, nor the mappings and lists that this empties."""
    ends, deeper = set[str](), dict[str, list[Path]]()
    for path in paths:
        if len(path) == 1:
            ends.add(path[0])
        else:
            deeper.setdefault(path[0], []).append(path[1:])
    if isinstance(live, Mapping):
        result = {}
        for name, value in live.items():
            step = f".{name}"
            if step in ends:
                continue
            kept = without(value, deeper[step], keys, (*names, name)) if step in deeper else value
            if kept is not _MISSING:
                result[name] = kept
        return result if result or not names else _MISSING
    key = keys(names) if isinstance(live, list) and names else None
    if key is None:
        return live
    items = []
    for item in live:
        step = _step(item, key)
        if step not in ends:
            items.append(without(item, deeper[step], keys, names) if step in deeper else item)
    return [item for item in items if item is not _MISSING] or _MISSING


def lookup(obj: Any, path: Path, keys: ListKeys, names: tuple[str, ...] = ()) -> Any:
    """Return what stands at a path, an item of a list as True, or a marker that is equal only to itself."""
    if not path:
        return obj
    step, rest = path[0], path[1:]
    if isinstance(obj, Mapping):
        name = step[1:]
        return lookup(obj[name], rest, keys, (*names, name)) if step[0] == "." and name in obj else _MISSING
    key = keys(names) if isinstance(obj, list) and names else None
    if key is None:
        return _MISSING
    for item in obj:
        if _step(item, key) == step:
            return lookup(item, rest, keys, names) if rest else True
    return _MISSING


def still_owned(applied: Mapping[str, Any], before: Any, after: Any, keys: ListKeys) -> dict[str, list[list[str]]]:
    """Return what each manager applied without the fields that somebody else has changed since."""
    return {
        manager: [path for path in paths if lookup(before, tuple(path), keys) == lookup(after, tuple(path), keys)]
        for manager, paths in applied.items()
    }


def applied_to(
    live: Any, config: Any, applied: Mapping[str, Any], *, manager: str, keys: ListKeys
) -> tuple[Any, dict[str, Any]]:
    """Return the object after `manager` applied `config` by force, and what each manager owns then."""
    mine = set(owned_fields(config, keys))
    others = {name: paths for name, paths in applied.items() if name != manager}
    kept = {tuple(path) for paths in others.values() for path in paths}
    dropped = {tuple(path) for path in applied.get(manager, ())} - mine - kept
    result = merged(without(live, dropped, keys), config, keys)
    owned = still_owned(others, live, result, keys)
    return result, {**owned, manager: sorted(list(path) for path in mine)}
