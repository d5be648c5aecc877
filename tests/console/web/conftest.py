"""The page as a browser meets it: a server with a board of the test's, and Chromium by its debugging port."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from websocket import WebSocket, create_connection

from clients.errors import NotFoundError, UnreachableError
from clients.ledger.records import Share, Tally, TransitionRecord, VerdictRecord
from clients.run import Run, Step
from console.standing import describe_service
from console.web.reading import LedgerReading, LedgersReading, Reader, ServiceReading
from console.web.server import Sources, make_application
from console.web.source import Metrics
from console.web.view import Links
from tenure.drift.verdict import Finding, Verdict

STABLE, CANARY = "a" * 64, "b" * 64
REPORT = "0123456789abcdef" * 2
NOW = datetime.now(UTC).replace(microsecond=0)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

SIGNAL = {"name": "errors", "low": -0.001, "high": 0.004, "tolerance": 0.03, "n": 1465, "text": ""}


def make_service(
    name: str = "telco-churn", weights: tuple[int, ...] = (80, 20), **signal: Any
) -> ServiceReading:
    """Return a service with a canary, whose evidence is one signal."""
    predictors = [
        {"model": {"storageUri": f"s3://tenure/bundles/{STABLE}"}},
        {"name": "bbbbbbbbbbb", "model": {"storageUri": f"s3://tenure/bundles/{CANARY}"}},
    ]
    canary = [{"trafficPercent": weights[1], "predictor": predictors[1]}] if len(weights) > 1 else []
    signals = [{**SIGNAL, "estimate": 0.0, "harm": False, "safe": True, **signal}]
    progress = {"step": 0, "since": NOW.isoformat()}
    judgement = {"action": "wait", "text": "waits for 280 more answers", "signals": signals}
    document = {
        "metadata": {
            "name": name,
            "namespace": "default",
            "annotations": {"tenure.dev/rollout": json.dumps({"progress": progress, "judgement": judgement})},
        },
        "spec": {"predictor": predictors[0], "canary": canary},
        "status": {
            "conditions": [{"type": "PredictorReady", "status": "True"}],
            "canaryStatuses": [{"name": "bbbbbbbbbbb", "ready": True}],
        },
    }
    names = (f"{name}-predictor", f"{name}-bbbbbbbbbbb-predictor")
    backends = [{"name": one, "weight": weight} for one, weight in zip(names, weights, strict=False)]
    state = describe_service(document, {"spec": {"rules": [{"backendRefs": backends}]}})
    return ServiceReading(state, f"{name}-default.tenure.example.com", "telco", (20, 50), None)


def make_verdict(
    number: int, family: str = "inputs", alarm: bool = False, column: str = "price"
) -> VerdictRecord:
    """Return a verdict over one column, with a performance."""
    until = NOW - timedelta(minutes=40 - number)
    finding = Finding(
        column=column,
        kind="covariate",
        p_value=0.0001 if alarm else 0.5,
        level=0.001,
        effect=0.3 if alarm else 0.02,
        measure="psi",
        threshold=0.1,
        scale=1,
        since=until - timedelta(minutes=1),
        significant=alarm,
        material=alarm,
    )
    interval = {"value": 0.8 + 0.001 * number, "low": 0.75, "high": 0.85}
    verdict = Verdict(
        service="telco-churn",
        version="a" * 12,
        family=family,
        number=number,
        rows=500,
        since=until - timedelta(minutes=1),
        until=until,
        findings=(finding,),
        estimate={"roc_auc": interval, "precision": interval},
    )
    return VerdictRecord(
        id=number,
        service="telco-churn",
        version="a" * 12,
        family=family,
        number=number,
        first_seq=1,
        last_seq=500,
        since=verdict.since,
        until=until,
        rows=500,
        alarm=alarm,
        verdict=verdict,
        report_uri=f"runs:/{REPORT}/report.html" if alarm else None,
        created_at=until,
    )


def make_ledger(column: str = "price", reason: str = "covariate drift: price") -> LedgerReading:
    """Return a ledger with thirty windows, the last one an alarm that has caused a run."""
    return LedgerReading(
        verdicts={
            "inputs": [make_verdict(n, alarm=n == 30, column=column) for n in range(1, 31)],
            "outcomes": [make_verdict(n, "outcomes", column=column) for n in range(1, 11)],
        },
        causes=[
            {
                "id": "c",
                "kind": "drift",
                "reason": reason,
                "state": "running",
                "note": "",
                "run_id": "1" * 8 + "-0000-0000-0000-" + "1" * 12,
                "created_at": NOW - timedelta(minutes=5),
            }
        ],
        transitions=[
            TransitionRecord(
                "t", "telco-churn", NOW - timedelta(minutes=20), "promoted", {"a" * 12: 100}, reason, {}
            )
        ],
        tally=Tally((Share("a" * 12, 12649, 4378, 0.263), Share("b" * 12, 1518, 476, 0.264)), 13122),
        lost=0,
    )


RUNS = [
    Run(
        id="1" * 8 + "-0000-0000-0000-" + "1" * 12,
        name="drift of telco-churn",
        state="RUNNING",
        created=NOW - timedelta(minutes=5),
        steps=(
            Step("ingest", "SUCCEEDED", NOW - timedelta(minutes=5), NOW - timedelta(minutes=4)),
            Step("tune", "RUNNING", NOW - timedelta(minutes=4)),
        ),
    )
]


@dataclass
class Stage(Reader):
    """A reader of what a test says; an exception in place of a value is raised."""

    services: Any = field(default_factory=lambda: [make_service()])
    ledger: Any = field(default_factory=lambda: LedgersReading({"telco-churn": make_ledger()}, 0))
    detector: Any = field(default_factory=lambda: {"watcher": {"leads": True, "unpublished": 0}})
    runs: Any = field(default_factory=lambda: list(RUNS))
    reports: dict[str, str] = field(default_factory=dict)

    def read_services(self) -> list[ServiceReading]:
        return _give(self.services)

    def read_ledger(self, services: Any) -> LedgersReading:
        return _give(self.ledger)

    def read_detector(self) -> dict[str, Any]:
        return _give(self.detector)

    def read_runs(self) -> list[Run]:
        return _give(self.runs)

    def read_report(self, run_id: str) -> str:
        if run_id not in self.reports:
            raise NotFoundError("the report is gone")
        return self.reports[run_id]

    def change_shares(self, *weights: int) -> None:
        """Let the route have other weights."""
        self.services = [make_service(weights=weights)]

    def write(self, text: str) -> None:
        """Let a text stand where people and customers may write."""
        self.ledger = LedgersReading({"telco-churn": make_ledger(text, text)}, 0)
        self.runs = [replace(run, name=text, error=text) for run in RUNS]
        self.detector = {"watcher": {"problem": text, "services": {"telco-churn": {"problem": text}}}}
        self.services = [make_service(text=text, name=text)]

    def report(self, text: str) -> None:
        """Let the newest alarm have a report."""
        self.reports[REPORT] = text

    def fail(self) -> None:
        """Let every source fail."""
        self.services = self.ledger = self.detector = self.runs = UnreachableError("nobody is there")

    def empty(self) -> None:
        """Let there be nothing yet."""
        self.services, self.runs = [], []
        self.ledger, self.detector = LedgersReading({}, 0), {}


def _give(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def wait() -> Callable[..., Any]:
    """Wait for a condition, at most as long as some refreshes take."""
    return lambda condition: poll(condition, "what the page should show")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def sources(stage: Stage, registry: CollectorRegistry) -> Sources:
    return Sources.connect(stage, Metrics(registry))


@pytest.fixture
def application(stage: Stage, sources: Sources, registry: CollectorRegistry) -> Any:
    links = Links("http://kubeflow.example.com", "http://mlflow.example.com", None)
    return make_application(
        sources, stage, {"namespace": "default", "links": links}, ("console.example.com",), registry
    )


@pytest.fixture
def server(application: Any) -> uvicorn.Server:
    return uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off"))


@pytest.fixture
def url(server: uvicorn.Server) -> Iterator[str]:
    """The page served on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{sock.getsockname()[1]}"
        poll(lambda: server.started, "the server")
        yield address
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def stop(server: uvicorn.Server) -> Callable[[], None]:
    """End the server, as if the console had been."""

    def stop() -> None:
        server.force_exit = server.should_exit = True

    return stop


def poll(condition: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """Return the condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
        time.sleep(0.02)
    return value


class Page:
    """A tab of the browser, with everything that it complained of."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the debugging protocol."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message)

    def show(self, url: str, width: int = 1280, dark: bool = False, scripts: bool = True) -> None:
        """Open an address and wait until it is there."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.call("Page.navigate", url=url)
        poll(lambda: self.ask("document.readyState + location.href") == f"complete{url}", url)

    def ask(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def save(self, file: Path) -> None:
        """Save the whole page as a picture."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        file.write_bytes(base64.b64decode(picture["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        if message["method"] == "Log.entryAdded":
            self.complaints.append(message["params"]["entry"]["text"])
        elif message["method"] == "Runtime.exceptionThrown":
            self.complaints.append(str(message["params"]["exceptionDetails"]))


@pytest.fixture(scope="session")
def browser() -> Iterator[str]:
    """Chromium's debugging address; skipped where there is none."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser here: install one of {', '.join(BROWSERS)} (Debian: apt install chromium)")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        process = subprocess.Popen(
            [
                found,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--hide-scrollbars",
                "--remote-debugging-port=0",
                f"--user-data-dir={home}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            file = Path(home) / "DevToolsActivePort"
            poll(lambda: file.exists() and file.read_text().strip(), "the browser", 60)
            yield f"http://127.0.0.1:{file.read_text().splitlines()[0]}"
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture
def page(browser: str) -> Iterator[Page]:
    """A new tab."""
    made = httpx.put(f"{browser}/json/new?about:blank", trust_env=False).json()
    with closing(create_connection(made["webSocketDebuggerUrl"], suppress_origin=True, timeout=30)) as socket:
        yield Page(socket)
    httpx.get(f"{browser}/json/close/{made['id']}", trust_env=False)
