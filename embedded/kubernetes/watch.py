"""Streams of changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from embedded.kubernetes import errors
from embedded.kubernetes.resources import Resource
from embedded.kubernetes.selectors import Predicate
from embedded.kubernetes.storage import Change, ExpiredError, Storage
from embedded.kubernetes.tables import render_table

Document = dict[str, Any]

BOOKMARK_SECONDS = 30.0
DEFAULT_SECONDS = 1800.0


@dataclass(frozen=True)
class WatchOptions:
    """What a client wants to see.

    Attributes:
        resource: The kind.
        namespace: One namespace, or None for all.
        matches: The selectors.
        version: Where to start: after this resourceVersion; None to begin with what there is.
        initial: Begin with what there is, and say with a bookmark where that ends.
        bookmarks: Whether bookmarks may be sent.
        seconds: When the stream ends.
        table: `includeObject` of a Table, or None for whole objects.
    """

    resource: Resource
    namespace: str | None
    matches: Predicate
    version: int | None
    initial: bool
    bookmarks: bool
    seconds: float
    table: str | None


class Watch:
    """One client's stream of JSON lines."""

    def __init__(self, storage: Storage, options: WatchOptions) -> None:
        self._storage = storage
        self._options = options
        self._header = True

    async def stream(self, stopping: asyncio.Event) -> AsyncIterator[bytes]:
        """Yield events until the time is over, `stopping` is set, or the history has a gap."""
        options = self._options
        loop = asyncio.get_running_loop()
        woken = asyncio.Event()

        def notify(change: Change) -> None:
            if change.resource == options.resource.key:
                loop.call_soon_threadsafe(woken.set)

        unsubscribe = self._storage.subscribe(notify)
        try:
            deadline = loop.time() + options.seconds
            position = options.version
            if position is None or options.initial:
                bodies, position = self._storage.list_all(options.resource.key, options.namespace)
                for body in bodies:
                    if options.matches(body):
                        yield self._render("ADDED", body)
                if options.initial and options.bookmarks:
                    yield self._render_bookmark(position, {"k8s.io/initial-events-end": "true"})
            while not stopping.is_set():
                woken.clear()
                try:
                    # Taken before the changes: a bookmark may promise only what has been sent.
                    latest = self._storage.version
                    changes = self._storage.changes_since(options.resource.key, position)
                except ExpiredError as error:
                    gone = errors.expired(f"too old resource version: {error}")
                    yield _encode({"type": "ERROR", "object": gone.to_status()})
                    return
                for change in changes:
                    event = self._select(change)
                    if event is not None:
                        yield self._render(*event)
                position = max([latest, position, *(change.version for change in changes)])
                left = deadline - loop.time()
                if left <= 0:
                    break
                woke = await _wait_any(min(left, BOOKMARK_SECONDS), woken, stopping)
                if not woke and options.bookmarks:
                    yield self._render_bookmark(position)
        finally:
            unsubscribe()

    def _select(self, change: Change) -> tuple[str, Document] | None:
        """Return the event that this client sees of a change: an object may enter or leave its selection."""
        options = self._options
        if options.namespace is not None and change.body["metadata"].get("namespace") != options.namespace:
            return None
        after = change.type != "DELETED" and options.matches(change.body)
        before = change.previous is not None and options.matches(change.previous)
        if after:
            return ("MODIFIED" if before else "ADDED"), change.body
        return ("DELETED", change.body) if before else None

    def _render(self, kind: str, body: Document) -> bytes:
        if self._options.table is None:
            return _encode({"type": kind, "object": body})
        version = body["metadata"]["resourceVersion"]
        table = render_table(self._options.resource, [body], version, self._options.table, self._header)
        self._header = False
        return _encode({"type": kind, "object": table})

    def _render_bookmark(self, version: int, annotations: dict[str, str] | None = None) -> bytes:
        metadata: Document = {"resourceVersion": str(version), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        resource = self._options.resource
        body: Document
        if self._options.table is None:
            body = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        else:
            # A Table's own metadata has no annotations: they travel with its only, empty row.
            partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
            cells = ["" for _ in resource.columns]
            body = render_table(resource, [], str(version), self._options.table, self._header)
            body["rows"] = [{"cells": cells, "object": partial}]
        return _encode({"type": "BOOKMARK", "object": body})


def _encode(event: Document) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


async def _wait_any(seconds: float, *events: asyncio.Event) -> bool:
    """Wait until one of the events is set; return whether one was within `seconds`."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return bool(done)
