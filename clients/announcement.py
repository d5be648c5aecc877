"""Kubernetes events: what happened to a resource, where `kubectl describe` shows it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from clients.errors import ConflictError
from clients.services import Collection, Document

COMPONENT = "tenure-pilot"
"""Who is said to have seen it."""

_TEXT = 1000
"""Most characters of a message: the API server refuses more than 1,024."""

_NAME = 46
"""Most characters of the resource's name in an event's own, which has at most 63."""


class Announcer:
    """Writes events about the resources of a collection."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    def announce(
        self,
        about: Mapping[str, Any],
        identity: str,
        reason: str,
        message: str,
        at: datetime,
        kind: Literal["Normal", "Warning"] = "Normal",
    ) -> None:
        """Write an event; the same `identity` again is the same event.

        Args:
            about: The resource.
            identity: Hexadecimal digits that only this event has.
            reason: What happened, in one CamelCase word.
            message: What happened, in a sentence.
            at: When.
            kind: Whether somebody should look.

        Raises:
            clients.errors.ClientError: The API server refused, or did not answer.
        """
        metadata = about["metadata"]
        time = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        involved = {
            "apiVersion": self._collection.resource.api_version,
            "kind": self._collection.resource.kind,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata.get("uid", ""),
        }
        event: Document = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name'][:_NAME]}-{identity[:16]}",
                "namespace": metadata["namespace"],
            },
            "involvedObject": involved,
            "reason": reason,
            "message": message if len(message) <= _TEXT else message[: _TEXT - 1] + "…",
            "type": kind,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": "",
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        }
        try:
            self._collection.create_event(event)
        except ConflictError:
            return  # it was written before
