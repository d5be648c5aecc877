"""Room for a canary: an unfinished one before it is taken away first, in an order that loses no request."""

from __future__ import annotations

import json
import logging

from clients import names
from clients.services import Collection
from components.proof import Deadline
from components.variant import Document, get_annotations, list_canaries

logger = logging.getLogger("tenure.rollout")


def make_room(services: Collection, service: str, uri: str, deadline: Deadline) -> list[Document]:
    """Have canaries taken away that customers meet, or that may get copies of their requests.

    That is the pilot's to do, for its route must leave them before the platform ends their Services. Those
    that nobody asks yet can simply be replaced, and stay.

    Args:
        services: The InferenceServices.
        service: Which one.
        uri: The bundle that needs the room.
        deadline: Bounds the wait for the pilot.

    Returns:
        The predictors that had to go.

    Raises:
        clients.errors.UnreachableError: The pilot has not acted when time was up.
    """
    gone: dict[str, Document] = {}

    def look() -> str | None:
        document = services.get(service)
        marks = get_annotations(document)
        proven = json.loads(marks.get(names.PROVEN, "{}")).get("digest")
        others = [
            entry["predictor"]
            for entry in list_canaries(document)
            if _is_met(entry, proven) and entry["predictor"]["model"].get("storageUri") != uri
        ]
        if not others:
            return None
        gone.update((predictor["name"], predictor) for predictor in others)
        name = others[0]["name"]
        if marks.get(names.SUPERSEDE) != name:
            services.patch(service, {"metadata": {"annotations": {names.SUPERSEDE: name}}})
            logger.info("asked the pilot to take canary %s away", name)
        return f"canary {name} is still there: the pilot has not taken it away"

    deadline.wait(f"{service}: waiting for the room of an unfinished canary", look)
    return list(gone.values())


def _is_met(entry: Document, proven: str | None) -> bool:
    """Whether a canary has customers, or is the pilot's, which may let it see copies of requests."""
    uri = entry["predictor"]["model"].get("storageUri", "")
    return bool(entry.get("trafficPercent")) or (proven is not None and proven in uri)
