"""What happened to objects, for `kubectl describe` and `kubectl get events`."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta

from embedded.kubernetes.objects import format_now
from embedded.kubernetes.resources import EVENTS
from embedded.kubernetes.storage import Document, Storage

DEFAULT_NAMESPACE = "default"
KEPT = timedelta(hours=1)
COMPONENT = "tenure-reconciler"


def record_event(storage: Storage, about: Document, kind: str, reason: str, message: str) -> None:
    """Note something about an object, for `kubectl describe`; the same thing again only counts up.

    Args:
        storage: Where events are kept.
        about: The object.
        kind: `Normal` or `Warning`.
        reason: What happened, in one CamelCase word.
        message: What happened, in a sentence.
    """
    metadata = about["metadata"]
    namespace = metadata.get("namespace", DEFAULT_NAMESPACE)
    text = "\0".join([metadata.get("uid", ""), kind, reason, message])
    name = f"{metadata['name']}.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    now = format_now()
    involved = {
        "apiVersion": about["apiVersion"],
        "kind": about["kind"],
        "name": metadata["name"],
        "namespace": namespace,
        "uid": metadata.get("uid", ""),
    }
    with storage.transaction():
        old = storage.get(EVENTS.key, namespace, name)
        event = old or {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": now,
            },
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": kind,
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": "",
            "firstTimestamp": now,
            "count": 0,
        }
        storage.put(EVENTS.key, {**event, "lastTimestamp": now, "count": event["count"] + 1})


def forget_events(storage: Storage) -> None:
    """Drop the events that are older than an hour."""
    limit = datetime.now(UTC) - KEPT
    for event in storage.list_all(EVENTS.key)[0]:
        if datetime.fromisoformat(event["lastTimestamp"]) < limit:
            metadata = event["metadata"]
            storage.delete(EVENTS.key, metadata["namespace"], metadata["name"])
