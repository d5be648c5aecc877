"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902)."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from embedded.kubernetes.errors import bad_request


def apply_merge_patch(target: Any, patch: Any) -> Any:
    """Return `target` after a merge patch: objects merge, null removes, all else replaces (RFC 7386, 2)."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply_merge_patch(result.get(key), value)
    return result


def apply_json_patch(target: Any, operations: Any) -> Any:
    """Return `target` changed by a list of operations, all or nothing (RFC 6902, 4).

    Raises:
        ApiError: 400, naming the operation that does not fit.
    """
    if not isinstance(operations, list):
        raise bad_request("a JSON patch is a list of operations")
    document = {"": deepcopy(target)}
    for number, operation in enumerate(operations):
        where = f"JSON patch operation {number}"
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise bad_request(f"{where}: needs op and path")
        try:
            _apply_operation(document, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise bad_request(f"{where} ({operation.get('op')} {operation['path']}): {error}") from error
    return document[""]


def _apply_operation(document: dict[str, Any], operation: dict[str, Any]) -> None:
    kind, path = operation.get("op"), operation["path"]
    if kind == "add":
        _add(document, path, deepcopy(operation["value"]))
    elif kind == "remove":
        _remove(document, path)
    elif kind == "replace":
        _remove(document, path)
        _add(document, path, deepcopy(operation["value"]))
    elif kind == "move":
        _add(document, path, _remove(document, operation["from"]))
    elif kind == "copy":
        _add(document, path, deepcopy(_read(document, operation["from"])))
    elif kind == "test":
        found = _read(document, path)
        if found != operation["value"]:
            raise ValueError(f"the value there is {found!r}")
    else:
        raise ValueError("op is one of add, remove, replace, move, copy, test")


def _split(path: str) -> list[str]:
    """Return the keys of a JSON pointer, below the document that is held under the empty key."""
    if path and not path.startswith("/"):
        raise ValueError("a path starts with /")
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")]


def _index(container: list[Any], key: str, length: int) -> int:
    if not key.isdigit() or (key != "0" and key.startswith("0")) or int(key) >= length:
        raise IndexError(f"no element {key!r} in a list of {len(container)}")
    return int(key)


def _step(container: Any, key: str) -> Any:
    if isinstance(container, list):
        return container[_index(container, key, len(container))]
    if isinstance(container, dict) and key in container:
        return container[key]
    raise KeyError(f"there is no {key!r}")


def _read(document: Any, path: str) -> Any:
    for key in _split(path):
        document = _step(document, key)
    return document


def _find_parent(document: Any, path: str) -> tuple[Any, str]:
    keys = _split(path)
    for key in keys[:-1]:
        document = _step(document, key)
    return document, keys[-1]


def _add(document: Any, path: str, value: Any) -> None:
    parent, key = _find_parent(document, path)
    if isinstance(parent, list):
        position = len(parent) if key == "-" else _index(parent, key, len(parent) + 1)
        parent.insert(position, value)
    elif isinstance(parent, dict):
        parent[key] = value
    else:
        raise TypeError(f"{key!r} cannot be added to a {type(parent).__name__}")


def _remove(document: Any, path: str) -> Any:
    parent, key = _find_parent(document, path)
    value = _step(parent, key)
    if isinstance(parent, list):
        parent.pop(int(key))
    else:
        del parent[key]
    return value
