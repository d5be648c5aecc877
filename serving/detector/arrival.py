"""New objects under the address that a project watches: each is a cause of its own."""

from __future__ import annotations

import logging
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from serving.detector.cause import Cause, identify, name_object, read_causes
from tenure.snapshot import SUFFIXES

if TYPE_CHECKING:
    from clients.ledger.reader import Ledger
    from clients.store import Store, Stored
    from serving.detector.champion import Champion
    from serving.detector.writer import Writer

logger = logging.getLogger("tenure.detector")


class Arrivals:
    """Opens a cause for each new object. One thread at a time uses it.

    What was there when a watch began is no news: it is written into the ledger together with that beginning,
    so that whatever comes while no detector runs is found by the next one.

    Args:
        ledger: For reading.
        writer: For the table of causes.
        store: Where the objects are.
    """

    def __init__(self, ledger: Ledger, writer: Writer, store: Store) -> None:
        self._ledger = ledger
        self._writer = writer
        self._store = store
        self._known: dict[tuple[str, str], set[str]] = {}

    def look(self, champion: Champion) -> list[Cause]:
        """List the watched address and open causes for what is new; returns these.

        Raises:
            ClientError: Store or ledger do not answer.
            LedgerError: The ledger cannot be written.
        """
        watch = champion.project.retraining.watch
        if watch is None:
            return []
        found = [stored for stored in self._store.list(watch) if is_data(stored.uri)]
        known = self._recall(champion.service, watch, found)
        new = [name_object(champion.service, stored) for stored in found]
        return [cause for cause in new if cause.id not in known and self._save(cause, known)]

    def take(self, champion: Champion, uri: str) -> Cause | None:
        """Open a cause for an object that somebody has told of, if it is below the watched address and new.

        Raises:
            ClientError: Store or ledger do not answer.
            LedgerError: The ledger cannot be written.
        """
        watch = champion.project.retraining.watch
        if watch is None or not is_data(uri) or not uri.startswith(watch.rstrip("/") + "/"):
            return None
        # A listing's times are finer than those of a single object, and part of the cause's id.
        listed = self._store.list(uri.rsplit("/", 1)[0])
        stored = next((stored for stored in listed if stored.uri == uri), None)
        if stored is None:
            return None  # it is gone again, or a poll will see it
        cause = name_object(champion.service, stored)
        return cause if self._save(cause, self._known.get((champion.service, watch), set())) else None

    def clear(self) -> None:
        """Ask the ledger anew what is known."""
        self._known.clear()

    def _save(self, cause: Cause, known: set[str]) -> bool:
        saved = self._writer.save_cause(**cause.to_row())
        known.add(cause.id)
        if saved:
            logger.info("%s: cause %s: %s", cause.service, cause.id, cause.reason)
        return saved

    def _recall(self, service: str, watch: str, found: list[Stored]) -> set[str]:
        """Return the ids of the objects that are no news; at first all that were `found`."""
        key = (service, watch)
        if key not in self._known:
            name = identify(service, "watch", watch)
            ids = [name_object(service, stored).id for stored in found]
            begin = Cause(
                id=name,
                service=service,
                kind="watch",
                reason=f"watches {watch}",
                detail={"watch": watch, "known": ids},
                state="dropped",
                note=f"{len(ids)} objects were there before",
            )
            self._writer.save_cause(**begin.to_row())
            causes = read_causes(self._ledger, service)
            known = {cause.id for cause in causes if cause.kind == "data"}
            for cause in causes:
                if cause.id == name:
                    known.update(cause.detail["known"])
            self._known[key] = known
        return self._known[key]


def is_data(uri: str) -> bool:
    """Whether the address says that an object holds customers: by its suffix, as `ingest` reads it."""
    return PurePosixPath(uri).suffix.lower() in SUFFIXES
