"""Objects as the `Table` that `kubectl get` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embedded.kubernetes.resources import Resource

Document = dict[str, Any]


def wants_table(accept: str) -> bool:
    """Return whether an `Accept` header asks for a `meta.k8s.io/v1` Table that we can give."""
    for media in accept.split(","):
        parts = [part.strip() for part in media.split(";")]
        if (
            parts[0] == "application/json"
            and "as=Table" in parts
            and "g=meta.k8s.io" in parts
            and "v=v1" in parts
        ):
            return True
    return False


def render_table(
    resource: Resource,
    bodies: Sequence[Document],
    version: str,
    include: str = "Metadata",
    header: bool = True,
) -> Document:
    """Return a Table of objects.

    Args:
        resource: Their kind.
        bodies: The objects.
        version: The resourceVersion that the table is true at.
        include: How much of each object goes along: `None`, `Metadata` or `Object`.
        header: Whether the columns are described (a watch describes them only once).
    """
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": version},
        "columnDefinitions": [
            {
                "name": column.name,
                "type": "string",
                "format": column.format,
                "description": column.description,
                "priority": 1 if column.wide else 0,
            }
            for column in resource.columns
        ]
        if header
        else None,
        "rows": [_render_row(resource, body, include) for body in bodies],
    }


def _render_row(resource: Resource, body: Document, include: str) -> Document:
    row: Document = {"cells": [column.read(body) for column in resource.columns]}
    if include == "Object":
        row["object"] = body
    elif include == "Metadata":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": body["metadata"],
        }
    return row
