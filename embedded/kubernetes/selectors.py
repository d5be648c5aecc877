"""labelSelector and fieldSelector."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from embedded.kubernetes.errors import bad_request
from embedded.kubernetes.resources import Resource

Predicate = Callable[[dict[str, Any]], bool]

_SET = re.compile(r"^\s*(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)\s*$")
_EQUAL = re.compile(r"^\s*(?P<key>[^\s=!]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^\s=!]*)\s*$")
_EXISTS = re.compile(r"^\s*(?P<absent>!)?\s*(?P<key>[^\s=!()]+)\s*$")
# A comma separates requirements, except inside the brackets of a set.
_COMMA = re.compile(r",(?![^()]*\))")


def compile_selectors(resource: Resource, labels: str | None, fields: str | None) -> Predicate:
    """Return the test that says whether an object is selected.

    Raises:
        ApiError: 400, for a selector that cannot be read or a field that nothing can be selected by.
    """
    by_label = [_compile_label(text) for text in _COMMA.split(labels)] if labels else []
    by_field = [_compile_field(resource, text) for text in fields.split(",")] if fields else []

    def matches(body: dict[str, Any]) -> bool:
        found = body["metadata"].get("labels") or {}
        return all(test(found) for test in by_label) and all(test(body) for test in by_field)

    return matches


def _compile_label(text: str) -> Callable[[Mapping[str, str]], bool]:
    """Return the test of one requirement: k=v, k==v, k!=v, k in (a,b), k notin (a,b), k, !k."""
    if match := _SET.match(text):
        key = match["key"]
        values = {value.strip() for value in match["values"].split(",")}
        if match["operator"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUAL.match(text):
        key, value = match["key"], match["value"]
        if match["operator"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _EXISTS.match(text):
        key, absent = match["key"], match["absent"] is not None
        return lambda labels: (key in labels) is not absent
    raise bad_request(f"the label selector {text!r} cannot be read: use k=v, k!=v, k in (a,b), k or !k")


def _compile_field(resource: Resource, text: str) -> Predicate:
    match = _EQUAL.match(text)
    if match is None:
        raise bad_request(f"the field selector {text!r} cannot be read: use metadata.name=NAME")
    key, value, negated = match["key"], match["value"], match["operator"] == "!="
    if key not in ("metadata.name", "metadata.namespace") and resource.fields is None:
        raise bad_request(
            f"field label not supported: {key}; {resource.plural} are selected by metadata.name and "
            "metadata.namespace"
        )

    def matches(body: dict[str, Any]) -> bool:
        fields = {
            "metadata.name": body["metadata"]["name"],
            "metadata.namespace": body["metadata"].get("namespace", ""),
        }
        if resource.fields is not None:
            fields |= resource.fields(body)
        return (fields.get(key, "") == value) is not negated

    return matches
