"""Recurring runs, asked for as kfp.Client does it, and what becomes of them when the server dies."""

from __future__ import annotations

import json
import signal
import threading
import uuid
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import kfp_server_api
import pytest
import yaml

from embedded.runs.clock import write_time
from embedded.runs.creation import RunMaker
from embedded.runs.errors import MissingError
from embedded.runs.experiments import ExperimentCalls
from embedded.runs.pipelines import PipelineCalls
from embedded.runs.progress import SUCCEEDED
from embedded.runs.queue import RunQueue
from embedded.runs.records import Recurring, Run
from embedded.runs.scheduler import Scheduler
from embedded.runs.storage import Storage

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def client(shared_server):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield shared_server.client()


def list_runs(client, recurring_id: str) -> list[Any]:
    runs = client.list_runs(page_size=100, sort_by="scheduled_at asc").runs or []
    return [run for run in runs if run.recurring_run_id == recurring_id]


def test_a_version_runs_every_second_until_it_is_disabled(client, packages, unique, until):
    experiment = client.create_experiment(f"e-{unique}")
    pipeline = client.upload_pipeline(str(packages["branch"]), pipeline_name=f"p-{unique}")
    version = client.list_pipeline_versions(pipeline.pipeline_id).pipeline_versions[0]
    made = client.create_recurring_run(
        experiment.experiment_id,
        f"often-{unique}",
        cron_expression="* * * * * *",
        max_concurrency=2,
        no_catchup=True,
        params={"left": 3},
        pipeline_id=pipeline.pipeline_id,
        version_id=version.pipeline_version_id,
    )
    assert (made.status, made.mode, made.max_concurrency) == ("ENABLED", "ENABLE", "2")
    until(lambda: len(list_runs(client, made.recurring_run_id)) >= 2, 30)
    client.disable_recurring_run(made.recurring_run_id)
    assert client.get_recurring_run(made.recurring_run_id).status == "DISABLED"
    runs = list_runs(client, made.recurring_run_id)
    first = client.wait_for_run_completion(runs[0].run_id, 60, sleep_duration=0.1)
    assert first.state == "SUCCEEDED"
    assert first.display_name.startswith(f"often-{unique} 20")
    assert first.experiment_id == experiment.experiment_id
    assert first.pipeline_version_reference.pipeline_version_id == version.pipeline_version_id
    assert first.runtime_config.parameters == {"left": 3}
    assert len({run.scheduled_at for run in runs}) == len(runs)
    client.enable_recurring_run(made.recurring_run_id)
    until(lambda: len(list_runs(client, made.recurring_run_id)) > len(runs), 30)
    client.delete_recurring_run(made.recurring_run_id)
    with pytest.raises(kfp_server_api.ApiException) as caught:
        client.get_recurring_run(made.recurring_run_id)
    assert caught.value.status == 404


def test_a_package_is_scheduled_disabled_and_listed(client, packages, unique):
    experiment = client.create_experiment(f"e-{unique}")
    end = write_time(datetime.now(UTC) + timedelta(days=1))
    names = [f"a-{unique}", f"b-{unique}"]
    for name in names:
        client.create_recurring_run(
            experiment.experiment_id,
            name,
            interval_second=3600,
            end_time=end,
            pipeline_package_path=str(packages["branch"]),
            params={"left": 1},
            enabled=False,
        )
    page = client.list_recurring_runs(
        experiment_id=experiment.experiment_id, sort_by="display_name asc", page_size=1
    )
    assert [item.display_name for item in page.recurring_runs] == names[:1]
    page = client.list_recurring_runs(
        page_token=page.next_page_token,
        experiment_id=experiment.experiment_id,
        sort_by="display_name asc",
        page_size=1,
    )
    (item,) = page.recurring_runs
    assert (item.display_name, item.status, item.no_catchup) == (names[1], "DISABLED", False)
    assert item.trigger.periodic_schedule.interval_second == "3600"
    assert item.trigger.cron_schedule is None
    assert write_time(item.trigger.periodic_schedule.end_time) == end


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"cron_expression": "0 3 * * *"}, "six are needed"),
        ({"interval_second": -1}, "interval_second"),
        ({"cron_expression": "0 0 3 * * *", "params": {"lfet": 1}}, "'lfet' is not a parameter"),
        ({"cron_expression": "0 0 3 * * *", "max_concurrency": 11}, "less than or equal to 10"),
        (
            {
                "cron_expression": "0 0 3 * * *",
                "start_time": "2026-01-02T00:00:00Z",
                "end_time": "2026-01-01T00:00:00Z",
            },
            "end_time is not after",
        ),
    ],
)
def test_what_could_never_run_is_refused(client, packages, change: dict[str, Any], problem: str):
    arguments = {"params": {"left": 1}, "pipeline_package_path": str(packages["branch"]), **change}
    with pytest.raises(kfp_server_api.ApiException) as caught:
        client.create_recurring_run("", "never", **arguments)
    assert caught.value.status == 400
    assert problem in json.loads(caught.value.body)["message"]


def test_a_schedule_outlives_the_server_and_no_time_is_served_twice(make_server, packages, until):
    server = make_server()
    body = {
        "display_name": "often",
        "pipeline_spec": yaml.load(packages["branch"].read_text(), Loader=yaml.CSafeLoader),
        "runtime_config": {"parameters": {"left": 3}},
        "max_concurrency": 10,
        "trigger": {"periodic_schedule": {"interval_second": 1}},
        "mode": "ENABLE",
    }
    made = server.http.post("/apis/v2beta1/recurringruns", json=body)
    assert made.status_code == 200, made.text

    def list_times() -> list[str]:
        query = {"page_size": 200, "sort_by": "scheduled_at asc"}
        answer = server.http.get("/apis/v2beta1/runs", params=query).json()
        return [run["scheduled_at"] for run in answer["runs"]]

    for _ in range(3):
        seen = len(list_times())
        until(lambda seen=seen: len(list_times()) > seen, 30)
        before = list_times()
        server.end(signal.SIGKILL)
        server.start()
        until(lambda before=before: len(list_times()) > len(before), 30)
        times = list_times()
        assert times[: len(before)] == before
        assert len(set(times)) == len(times)
    path = f"/apis/v2beta1/recurringruns/{made.json()['recurring_run_id']}"
    assert server.http.delete(path).status_code == 200


class Clocked:
    """A scheduler over a storage whose clock stands still; its queue starts nothing."""

    def __init__(self, folder) -> None:
        self.now = START
        self.storage = Storage(folder / "runs.db")
        self.queue = RunQueue(self.storage, folder, dict)
        experiments = ExperimentCalls(self.storage)
        experiments.ensure_default_experiment()
        self.maker = RunMaker(self.storage, self.queue, experiments, PipelineCalls(self.storage))
        self.scheduler = Scheduler(self.storage, self.maker, lambda: self.now)

    def add(self, package, **change: Any) -> Recurring:
        values: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "display_name": "nightly",
            "created_at": write_time(START),
            "updated_at": write_time(START),
            "experiment_id": "",
            "spec": {"pipeline_spec": yaml.load(package.read_text(), Loader=yaml.CSafeLoader)},
            "parameters": {"left": 1},
            "max_concurrency": 1,
            "catch_up": False,
            "interval": 60,
            "enabled": True,
            **change,
        }
        recurring = Recurring(**values)
        self.storage.add(recurring)
        return recurring

    def tick(self, minutes: float) -> list[str]:
        """Let the clock go on and the scheduler look; return the minutes of all runs."""
        self.now += timedelta(minutes=minutes)
        self.scheduler.tick()
        return [run.scheduled_at[14:16] for run in self.storage.list_all(Run)]

    def finish(self) -> None:
        for run in self.storage.list_all(Run):
            self.storage.update(Run, run.id, lambda found: found.move(SUCCEEDED, write_time(self.now)))


@pytest.fixture
def clocked(tmp_path):
    made = Clocked(tmp_path)
    yield made
    made.storage.close()


def test_a_run_is_put_off_while_the_last_one_goes_on(clocked, packages):
    clocked.add(packages["branch"])
    assert clocked.tick(0.5) == []
    assert clocked.tick(0.5) == ["01"]
    assert clocked.tick(3) == ["01"]
    clocked.finish()
    assert clocked.tick(0) == ["01", "04"], "without catch-up the last one missed"
    clocked.finish()
    assert clocked.tick(0) == ["01", "04"]


def test_a_clock_that_is_set_back_serves_no_time_twice(clocked, packages):
    clocked.add(packages["branch"], max_concurrency=10)
    assert clocked.tick(2) == ["02"]
    assert clocked.tick(-60) == ["02"], "it waits until the clock is there again"
    assert clocked.tick(60) == ["02"]
    assert clocked.tick(1) == ["02", "03"]


def test_a_clock_that_is_set_forward_makes_one_run(clocked, packages):
    clocked.add(packages["branch"], max_concurrency=10)
    assert clocked.tick(1) == ["01"]
    assert clocked.tick(60 * 24 * 365) == ["01", "01"], "the last time missed, and none of the others"


def test_with_catch_up_each_missed_time_has_its_run(clocked, packages):
    clocked.add(packages["branch"], catch_up=True, max_concurrency=2)
    assert clocked.tick(3) == ["01"]
    assert clocked.tick(0) == ["01", "02"]
    assert clocked.tick(0) == ["01", "02"]
    clocked.finish()
    assert clocked.tick(0) == ["01", "02", "03"]


def test_a_time_is_not_served_twice_though_that_was_not_written_down(clocked, packages, monkeypatch):
    recurring = clocked.add(packages["branch"], max_concurrency=10)
    with monkeypatch.context() as patch:
        original = clocked.storage.update

        def die(kind, *arguments):
            if kind is Recurring:
                raise KeyboardInterrupt
            return original(kind, *arguments)

        patch.setattr(clocked.storage, "update", die)
        with pytest.raises(KeyboardInterrupt):
            clocked.tick(1)
    assert clocked.tick(0) == ["01"]
    assert clocked.storage.get(Recurring, recurring.id).last_time == "2026-03-01T12:01:00.000000Z"


def test_a_folder_without_a_run_is_replaced(clocked, packages):
    recurring = clocked.add(packages["branch"])
    time = write_time(START + timedelta(minutes=1))
    identity = str(uuid.uuid5(uuid.UUID(recurring.id), time))
    clocked.queue.folder(identity).create({"half": True}, {})
    assert clocked.tick(1) == ["01"]
    assert "half" not in clocked.queue.folder(identity).spec.read_text()


def test_what_cannot_be_made_is_told_and_tried_again_at_the_next_time(clocked, packages):
    reference = {"pipeline_id": "gone", "pipeline_version_id": "gone", "spec": None}
    recurring = clocked.add(packages["branch"], **reference)
    assert clocked.tick(1) == []
    problem = clocked.storage.get(Recurring, recurring.id).error
    assert problem is not None
    assert problem.startswith("2026-03-01T12:01:00.000000Z: there is no version")
    spec = {"pipeline_spec": yaml.load(packages["branch"].read_text(), Loader=yaml.CSafeLoader)}
    mended = {"spec": spec, "pipeline_id": None}
    clocked.storage.update(Recurring, recurring.id, lambda found: found.model_copy(update=mended))
    assert clocked.tick(1) == ["02"]
    assert clocked.storage.get(Recurring, recurring.id).error is None


def test_the_scheduler_ends_at_once_and_deleted_schedules_are_no_trouble(clocked, packages):
    recurring = clocked.add(packages["branch"])
    clocked.scheduler.start()
    clocked.storage.delete(Recurring, recurring.id)
    clocked.scheduler.stop()
    assert not any(thread.name == "scheduler" for thread in threading.enumerate())
    with pytest.raises(MissingError):
        clocked.storage.get(Recurring, recurring.id)
