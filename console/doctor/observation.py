"""What was seen of a cluster: one document, gathered once, that every check reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, Field

from console.context import NAMESPACE
from console.doctor import places
from console.doctor.document import Document, name_of, namespace_of


class Trial(BaseModel):
    """Something that was asked of the API server as a dry run: nothing was stored.

    Attributes:
        name: What was to be created.
        status: HTTP status of the answer.
        message: The server's reason when it refused.
    """

    name: str
    status: int
    message: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the server would have created it."""
        return self.status < 300


class Answer(BaseModel):
    """What an address answered.

    Attributes:
        good: Whether it did what was asked.
        text: What it said, or what was wrong.
    """

    good: bool
    text: str = ""


class Layout(BaseModel):
    """In which namespaces things are looked for."""

    tenure: str = NAMESPACE
    runs: str = places.RUNS
    kserve: str = places.KSERVE
    gateway: str = places.GATEWAY
    certificates: str = places.CERTIFICATES
    system: str = places.SYSTEM

    def every(self) -> Sequence[str]:
        """Return every namespace once."""
        return list(dict.fromkeys(self.model_dump().values()))


class Cluster(BaseModel):
    """A cluster at one moment.

    Attributes:
        server: Address of its API.
        problem: Why the API could not be used, None when it could.
        version: What it calls its version.
        documents: Kind (its plural) -> resources.
        unread: Kind -> why it could not be listed.
        apis: GROUP/VERSION -> the plurals that are served.
        access: VERB PLURAL[.GROUP] [NAMESPACE] -> whether this user may.
        logs: NAMESPACE/POD/CONTAINER -> the last lines of a container that fails.
        answers: What the addresses said, by their name.
        ours: Name of the newest training pipeline here (`SHA[:12]`), None when it is not at hand.
    """

    context: str | None = None
    server: str = ""
    problem: str | None = None
    version: str = ""
    taken: datetime = Field(default_factory=lambda: datetime.now(UTC))
    layout: Layout = Layout()
    documents: dict[str, list[Document]] = {}
    unread: dict[str, str] = {}
    apis: dict[str, list[str]] = {}
    trials: list[Trial] = []
    access: dict[str, bool] = {}
    logs: dict[str, str] = {}
    answers: dict[str, Answer] = {}
    ours: str | None = None

    def every(self, kind: str, namespace: str | None = None) -> Sequence[Document]:
        """Return the resources of a kind, of one namespace or of all that were looked at."""
        found = self.documents.get(kind, [])
        return [one for one in found if namespace is None or namespace_of(one) == namespace]

    def find(self, kind: str, name: str, namespace: str | None = None) -> Document | None:
        """Return one resource, or None."""
        return next((one for one in self.every(kind, namespace) if name_of(one) == name), None)

    def serves(self, group_version: str, plural: str) -> bool:
        """Say whether the API serves resources of this kind."""
        return plural in self.apis.get(group_version, ())

    def has_read(self, kind: str) -> bool:
        """Say whether resources of this kind could be listed, wherever they were looked for."""
        return kind in self.documents and kind not in self.unread

    def find_events(self, kind: str, name: str, namespace: str) -> Sequence[Document]:
        """Return the warnings about a resource, the newest last."""
        found = [
            event
            for event in self.every("events", namespace)
            if event.get("type") == "Warning"
            and event["involvedObject"].get("kind") == kind
            and event["involvedObject"].get("name") == name
        ]
        return sorted(found, key=event_time)

    @property
    def settings(self) -> dict[str, str]:
        """The installation's `TENURE_*` settings; empty when there are none."""
        found = self.find("configmaps", "tenure-settings", self.layout.tenure)
        return dict((found or {}).get("data") or {})


def event_time(event: Document) -> str:
    """Return when an event was seen last, as its document spells it."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((str(time) for time in times if time), str(event["metadata"].get("creationTimestamp", "")))
