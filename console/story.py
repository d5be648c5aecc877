"""What the demonstrations tell while they wait: each wait names what it waits for, and ends in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from rich.text import Text

from clients.names import route_name
from clients.runs import Run, Runs
from clients.services import Services
from clients.settings import Settings, load_settings
from clients.store import Store
from clients.tracking import CHALLENGER, CHAMPION, Tracking
from console import display
from console.errors import FAILED, REFUSED, ConsoleError
from console.platform import call_platform
from console.standing import State, describe_service
from console.training import check_run, follow_run, submit
from tenure.project import Project

T = TypeVar("T")

MADE = "tenure.dev/demonstration"
"""Annotation of an InferenceService that a demonstration made, and so may take away."""

_POLL_SECONDS = 0.2
_LINE_SECONDS = 5.0
_GONE_SECONDS = 60.0


@dataclass
class Story:
    """A demonstration under way: the platform's clients, and its clock."""

    settings: Settings
    project: Project
    services: Services
    runs: Runs
    store: Store
    tracking: Tracking
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def begin(cls, project: Project) -> Story:
        """Start the platform and connect to it."""
        started = time.monotonic()
        _print(started, "starting the platform")
        if call_platform("up").returncode:
            raise ConsoleError("the platform did not start; the lines above say why", FAILED)
        settings = load_settings()
        return cls(
            settings,
            project,
            Services.connect(settings),
            Runs.connect(settings),
            Store.connect(settings),
            Tracking.connect(settings),
            started,
        )

    @property
    def service(self) -> str:
        """The InferenceService's name."""
        return self.project.rollout.service

    def tell(self, text: str) -> None:
        """Print what happens now, with the time since the start."""
        _print(self.started, text)

    def read(self) -> State:
        """Return who serves now, and how much."""
        return describe_service(
            self.services.inference.get(self.service),
            self.services.routes.find(route_name(self.service)),
        )

    def wait(
        self,
        find: Callable[[], T | None],
        what: str,
        seconds: float,
        *,
        look: str,
        describe: Callable[[], str] = str,
    ) -> T:
        """Poll until `find` finds something and return it; tell every 5 s what is still awaited.

        Args:
            find: Returns None as long as there is nothing.
            what: What is awaited, as in "waiting for WHAT".
            seconds: How long at most.
            look: Where a person should look when it does not come.
            describe: Says how far it is.

        Raises:
            ConsoleError: Time is up.
        """
        deadline, told = time.monotonic() + seconds, time.monotonic()
        while (found := find()) is None:
            now = time.monotonic()
            if now > deadline:
                raise ConsoleError(
                    f"{what} did not come within {seconds:.0f} s{_join(describe())}; look at {look}", FAILED
                )
            if now - told >= _LINE_SECONDS:
                told = now
                display.err.print(Text(f"          waiting for {what}{_join(describe())}", "dim"))
            time.sleep(_POLL_SECONDS)
        return found

    def train(self, project: Project, source: str, title: str) -> Run:
        """Run the pipeline on a source, show its steps, and return the finished run."""
        run_id = submit(self.runs, project, source=source, name=title, reason=title)
        return self.follow(run_id)

    def follow(self, run_id: str) -> Run:
        """Show a run's steps until it is done; raises ConsoleError when it failed."""
        run = follow_run(self.runs, run_id, timeout=900)
        check_run(self.runs, run)
        return run

    def begin_anew(self, anew: bool) -> None:
        """Take away what serves, if a demonstration made it: the next model is a first one again.

        Raises:
            ConsoleError: Somebody else made it, and `anew` is false.
        """
        found = self.services.inference.find(self.service)
        if found is not None:
            if not anew and MADE not in (found["metadata"].get("annotations") or {}):
                raise ConsoleError(
                    f"{self.service} serves already, and no demonstration made it. With --anew the "
                    "demonstration takes it away and begins with a model of its own; `tenure simulate` plays "
                    "customers on it as it is",
                    REFUSED,
                )
            self.tell(f"taking away what served before as {self.service}: the story begins anew")
            self.services.inference.delete(self.service)
        self.wait(
            lambda: None if self._exists() else True,
            "the end of the service before",
            _GONE_SECONDS,
            look="`tenure logs pilot`",
        )
        for alias in (CHAMPION, CHALLENGER):
            if self.tracking.find_alias(self.project.name, alias) is not None:
                self.tracking.delete_alias(self.project.name, alias)

    def _exists(self) -> bool:
        services = self.services
        return (
            services.inference.find(self.service) is not None
            or services.routes.find(route_name(self.service)) is not None
        )

    def claim(self) -> None:
        """Note that the service is a demonstration's."""
        self.services.inference.patch(self.service, {"metadata": {"annotations": {MADE: "true"}}})

    def upload_exports(self, share: float) -> tuple[str, str]:
        """Put two exports of the source into the store, as a customer system would: an older and a newer one.

        Each demonstration's older export is a customer shorter than the one before: the story is told with
        models of its own, of which nothing is remembered yet.
        """
        path = Path(self.project.source.uri)
        if "://" in self.project.source.uri or path.suffix != ".csv":
            raise ConsoleError(
                f"the demo needs a project whose source is a CSV file, not {self.project.source.uri}"
            )
        lines = path.read_bytes().splitlines(keepends=True)
        number = 0
        while self.store.exists(older := self._name_export(number, "older")):
            number += 1
        uris = (older, self._name_export(number, "newer"))
        for uri, rows in zip(uris, (int(share * (len(lines) - 1)), len(lines) - 1), strict=True):
            self.store.put_bytes(b"".join(lines[: 1 + rows - number]), uri)
        return uris

    def _name_export(self, number: int, age: str) -> str:
        return f"s3://{self.settings.s3_bucket}/landing/{self.project.name}-{number:03d}-{age}.csv"

    def wait_for_split(self) -> State:
        """Wait until the split that is asked for is the split in effect."""

        def find() -> State | None:
            state = self.read()
            return state if all(one.weight == one.asked for one in state.variants) else None

        return self.wait(find, "the split to be in effect", 30, look="`tenure logs pilot`")

    def wait_for_promotion(self, digest: str, seconds: float) -> None:
        """Wait until the pilot has made a bundle the stable one, telling each of its steps.

        Raises:
            ConsoleError: It was taken back, replaced, or nothing was decided in time.
        """
        shown: set[tuple[str, int]] = set()

        def find() -> bool | None:
            state = self.read()
            if state.variants[0].digest == digest and len(state.variants) == 1:
                return True
            canary = next((one for one in state.variants if one.digest == digest), None)
            if canary is None:
                raise ConsoleError(
                    f"{digest[:12]} is neither canary nor stable any more: {describe_last(state)}", FAILED
                )
            if (canary.name, canary.weight) not in shown:
                shown.add((canary.name, canary.weight))
                self.tell(f"the canary {canary.version} gets {canary.weight} % of the customers")
            return None

        self.wait(
            find,
            "the pilot's promotion",
            seconds,
            look="`tenure rollout status` and `tenure logs pilot`",
            describe=self.describe_rollout,
        )

    def describe_rollout(self) -> str:
        """Return what the pilot says that it sees and waits for."""
        flight = self.read().flight
        return flight.text if flight is not None else ""


def describe_last(state: State) -> str:
    """Say what the pilot did last and why."""
    transition = state.transition or {}
    words = [transition.get("outcome", "nothing is recorded").replace("_", " "), transition.get("reason", "")]
    return ": ".join(word for word in words if word)


def _print(started: float, text: str) -> None:
    display.err.print(Text(f"[{time.monotonic() - started:5.1f} s] ", "dim") + Text(text, "bold"))


def _join(text: str) -> str:
    return f" ({text})" if text else ""
