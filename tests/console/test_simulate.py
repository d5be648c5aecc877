"""Playing customers against a real HTTP server that stands for gateway and detector."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from clients.errors import RefusedError
from clients.settings import Settings
from console import fault
from console.player import Answer, Player
from console.simulate import measure_answers, summarise
from tenure.project import Project, load_project
from tenure.simulation.stream import Visit

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project() -> Project:
    return load_project(ROOT / "projects" / "telco.yaml")


def make_visits(project: Project, phase: Any = "before") -> Iterator[Visit]:
    features = {column.name: None for column in project.contract.features}
    for number in count():
        yield Visit(
            number, f"c-{number:06d}", features, number % 2 == 0, "Yes", phase, 1 + number % 3, 3 + number % 5
        )


class World:
    """A gateway and a detector in one: knows what it was asked and told, and can be told to fail."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.labels: list[dict[str, Any]] = []
        self.hosts: set[str] = set()
        self.gateway_status = 200
        self.detector_status = 200

    async def infer(self, request: Request) -> Response:
        if self.gateway_status != 200:
            return PlainTextResponse("no healthy upstream", self.gateway_status)
        body = await request.json()
        tensors = {one["name"]: one["data"][0] for one in body["inputs"]}
        assert request.headers["x-customer-id"] == tensors["customer_id"]
        self.asked.append(tensors)
        self.hosts.add(request.headers["host"])
        outputs = [{"name": "churn_probability", "data": [0.25]}, {"name": "churn", "data": [False]}]
        return JSONResponse({"model_version": "abc", "outputs": outputs})

    async def add_labels(self, request: Request) -> Response:
        if self.detector_status != 200:
            return PlainTextResponse("the ledger cannot commit", self.detector_status)
        labels = await request.json()
        self.labels += labels
        return JSONResponse({"accepted": len(labels), "refused": []})


@pytest.fixture
def world() -> Iterator[SimpleNamespace]:
    state = World()
    app = Starlette(
        routes=[
            Route("/v2/models/telco-churn/infer", state.infer, methods=["POST"]),
            Route("/labels", state.add_labels, methods=["POST"]),
        ]
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = Settings(
            _env_file=None,
            runs_url=url,
            s3_url=url,
            s3_access_key="k",
            s3_secret_key="s",
            tracking_url=url,
            gateway_url=url,
            detector_url=url,
        )
        yield SimpleNamespace(state=state, settings=settings)
        server.should_exit = True
        thread.join()


def poll(condition: Callable[[], Any], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        pause.wait(0.01)


def test_visits_leave_at_the_rate_and_outcomes_follow(world: Any, project: Project) -> None:
    visits = make_visits(project)
    with Player(world.settings, project, visits, rate=200, day_seconds=0.05, limit=100) as player:
        poll(lambda: not player.sending and not player.labels_waiting, "the end")
    assert (player.sent, player.answered, player.failed) == (100, 100, 0)
    assert 0.45 < max(answer.at for answer in player.answers) < 5
    assert world.state.hosts == {"telco-churn-default.tenure.example.com"}
    assert {one["customer_id"] for one in world.state.asked} == {f"c-{n:06d}" for n in range(100)}
    assert len(world.state.labels) == player.labels_sent == 100
    for label in world.state.labels:
        true_at, known_at = (datetime.fromisoformat(label[name]) for name in ("true_at", "known_at"))
        assert known_at >= true_at
        assert known_at.timestamp() <= time.time()
        assert label["service"] == "telco-churn"
        assert label["outcome"] == "Yes"


def test_a_detector_that_does_not_answer_gets_the_outcomes_later(world: Any, project: Project) -> None:
    world.state.detector_status = 503
    visits = make_visits(project)
    with Player(world.settings, project, visits, rate=500, day_seconds=0.001, limit=20) as player:
        poll(lambda: player.sink_problem, "the problem")
        assert "503" in str(player.sink_problem)
        assert player.labels_sent == 0
        world.state.detector_status = 200
        poll(lambda: player.labels_sent == 20, "the delivery")
    assert sorted(one["customer_id"] for one in world.state.labels) == [f"c-{n:06d}" for n in range(20)]
    assert player.sink_problem is None


def test_a_refusal_of_outcomes_ends_the_player(world: Any, project: Project) -> None:
    world.state.detector_status = 400
    with (
        pytest.raises(RefusedError, match="refuses labels: 400"),
        Player(world.settings, project, make_visits(project), rate=500, day_seconds=0, limit=20) as player,
    ):
        poll(lambda: not player.sending and not player.labels_waiting, "the end")


def test_failures_are_counted_by_reason_and_have_no_outcome(world: Any, project: Project) -> None:
    world.state.gateway_status = 503
    with Player(world.settings, project, make_visits(project), rate=500, day_seconds=0, limit=10) as player:
        poll(lambda: player.failed == 10, "the failures")
    assert player.failures == {"503: no healthy upstream": 10}
    assert summarise(player)["models"] == []
    assert not world.state.labels


def test_other_visits_take_over_while_it_plays(world: Any, project: Project) -> None:
    with Player(world.settings, project, make_visits(project), rate=300, day_seconds=0.001) as player:
        poll(lambda: player.answered > 20, "the first")
        player.change(make_visits(project, "during"))
        poll(lambda: player.answers[-1].visit.phase == "during", "the change")
        player.stop()
        poll(lambda: not player.sending, "the stop")
    summary = summarise(player)
    assert [one["phase"] for one in summary["models"]] == ["before", "during"]
    assert sum(one["answers"] for one in summary["models"]) == player.answered
    assert summary["models"][0]["roc_auc"] == 0.5


def test_without_leavers_nothing_is_said_of_the_ranking(project: Project) -> None:
    visits = [next(make_visits(project)) for _ in range(3)]
    measured = measure_answers([Answer(visit, "abc", 0.9, 0.0, 0.01) for visit in visits])
    assert measured == {"answers": 3, "left": 1.0, "mean_score": 0.9, "roc_auc": None, "log_loss": None}


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A process that counts on its standard output, and a platform that calls it the canary."""
    code = "import itertools\nfor n in itertools.count(): print(n, flush=True)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    document = {"spec": {"canary": [{"predictor": {"name": "b0123456789"}}]}}
    processes = [
        {"name": "telco-churn-b0123456789-predictor-5f-0", "kind": "model", "pid": process.pid},
        {"name": "telco-churn-predictor-77-0", "kind": "model", "pid": 1},
        {"name": "pilot", "kind": "service", "pid": 1},
    ]
    listing = SimpleNamespace(stdout=json.dumps({"services": processes}))
    monkeypatch.setattr(fault, "call_platform", lambda *_, **__: listing)
    monkeypatch.setattr(fault, "_LOOK_SECONDS", 0.05)
    services = SimpleNamespace(inference=SimpleNamespace(get=lambda _: document, namespace="default"))
    yield SimpleNamespace(process=process, services=services)
    process.kill()
    process.wait()


def test_only_the_canary_is_found(canary: Any) -> None:
    assert fault.find_canary_pids(canary.services, "telco-churn", "default") == {canary.process.pid}
    assert fault.find_canary_pids(canary.services, "telco-churn", "elsewhere") == set()


def test_a_failing_canary_is_killed(canary: Any, project: Project) -> None:
    with fault.Fault("failing-canary", canary.services, project):
        assert canary.process.wait(20) == -9


def test_a_slow_canary_runs_on_when_the_fault_ends(canary: Any, project: Project) -> None:
    def read_state() -> str:
        return Path(f"/proc/{canary.process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    with fault.Fault("slow-canary", canary.services, project):
        poll(lambda: read_state() == "T", "the stop")
    poll(lambda: read_state() != "T", "the continuation", 5)
    assert canary.process.poll() is None
