"""The parts of an object that every kind shares: names, labels, and who may write what."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from embedded.kubernetes import errors
from embedded.kubernetes.errors import Cause
from embedded.kubernetes.resources import Resource
from embedded.kubernetes.schemas import DNS_LABEL

Document = dict[str, Any]

_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
# Filled by the server; what clients send there is dropped.
SERVER_FIELDS = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
)


def format_now() -> str:
    """Return the time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def prepare_object(resource: Resource, namespace: str, body: Any) -> Document:
    """Return a copy of a client's object, without nulls, after the checks that need no schema."""
    if not isinstance(body, dict):
        raise errors.bad_request("the request's body is not a JSON object")
    for field, expected in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        found = body.get(field, expected)
        if found != expected:
            raise errors.bad_request(f"{field} is {found!r}, but this path takes {expected!r}")
    metadata = body.get("metadata", {})
    if not isinstance(metadata, dict):
        raise errors.bad_request("metadata is not an object")
    if resource.namespaced and metadata.get("namespace") not in (None, "", namespace):
        raise errors.bad_request(
            f"the namespace of the object ({metadata['namespace']}) does not match the namespace on the "
            f"request ({namespace})"
        )
    result: Document = _drop_nulls(body)
    result["apiVersion"], result["kind"] = resource.api_version, resource.kind
    result.setdefault("metadata", {})
    if resource.namespaced:
        result["metadata"]["namespace"] = namespace
    return result


def merge_object(old: Document, wanted: Document, status: bool) -> Document:
    """Return `old` with what `wanted` may change: only status, or all but status and server fields."""
    if status:
        new = dict(old)
        if "status" in wanted:
            new["status"] = wanted["status"]
        else:
            new.pop("status", None)
        return new
    new = dict(wanted)
    new["metadata"] = {key: value for key, value in wanted["metadata"].items() if key not in SERVER_FIELDS}
    new["metadata"] |= {key: value for key, value in old["metadata"].items() if key in SERVER_FIELDS}
    if "status" in old:
        new["status"] = old["status"]
    else:
        new.pop("status", None)
    return new


def check_metadata(metadata: Document) -> list[Cause]:
    """Check the name and the labels; the types are the schema's business."""
    causes = []
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        causes.append(Cause("metadata.name", "Required value: name or generateName", "FieldValueRequired"))
    elif not re.fullmatch(DNS_LABEL, name) or len(name) > 63:
        message = (
            f"Invalid value: {name!r}: a name has up to 63 lower-case letters, digits and dashes, begins "
            "with a letter and ends with a letter or digit"
        )
        causes.append(Cause("metadata.name", message))
    labels = metadata.get("labels")
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if not _LABEL_KEY.fullmatch(key) or not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            message = (
                f"Invalid value: {key}={value!r} is not a label (up to 63 letters, digits, '-', '_', '.')"
            )
            causes.append(Cause("metadata.labels", message))
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict) and sum(len(str(text)) for text in annotations.values()) > 262144:
        causes.append(
            Cause("metadata.annotations", "Too long: must have at most 262144 bytes", "FieldValueTooLong")
        )
    return causes


def _drop_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _drop_nulls(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_drop_nulls(entry) for entry in value]
    return value


def copy_object(body: Document) -> Document:
    """Return a copy that may be changed, without nulls."""
    copied: Document = _drop_nulls(body)
    return copied
