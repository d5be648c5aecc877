"""A platform whose disk fills up: who serves goes on, who writes is told why, and nothing is damaged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from e2e_machine import call, make_environment, read_events

from clients import names
from clients.errors import ClientError
from clients.ledger.reader import Ledger
from clients.runs import Runs
from clients.tracking import Tracking

MEGABYTES = 400
PIPELINE = Path(__file__).parents[2] / "pipelines" / "training.yaml"


def put(stage: Any, name: str, size: int) -> bytes:
    content = name.encode() * (size // len(name))
    stage.store.put_bytes(content, f"s3://{stage.settings.s3_bucket}/disk/{name}")
    return content


def get(stage: Any, name: str) -> bytes:
    return bytes(stage.store.get_bytes(f"s3://{stage.settings.s3_bucket}/disk/{name}"))


def annotate(number: int) -> dict[str, Any]:
    return {"metadata": {"annotations": {"tenure.dev/test": str(number % 10) * 50_000}}}


def refuse(action: Callable[[int], Any]) -> str:
    """Do it until it is refused: what the files have allocated is used up first. Returns what is said."""
    for number in range(200):
        try:
            action(number)
        except ClientError as error:
            return str(error)
    raise AssertionError("it is never refused")


def succeeds(action: Callable[[], Any]) -> bool:
    try:
        action()
    except (ClientError, AssertionError):
        return False
    return True


def test_a_full_disk_is_told_and_survived(
    make_disk: Callable[[int], Any], stage_at: Callable[..., Any]
) -> None:
    disk = make_disk(MEGABYTES)
    home = disk.path / "home"
    environment = make_environment(home)
    try:
        call(environment, "up")
        stage = stage_at(home, environment)
        stage.upload()
        stage.logged = True
        stage.set_up(percent=50)
        check(disk, stage)
    finally:
        call(environment, "down")


def check(disk: Any, stage: Any) -> None:
    tracking = Tracking.connect(stage.settings)
    runs = Runs.connect(stage.settings)
    run_id = tracking.client.create_run(tracking.find_experiment("disk")).info.run_id
    tracking.log_metrics(run_id, {"before": 1.0})
    kept = put(stage, "before", 1_000_000)
    pids = {stage.find_pid(), stage.find_pid(stage.canary)}
    since = datetime.now(UTC)
    with stage.load(rate=50, mark="disk") as load:
        load.pass_by(100)
        disk.fill()
        # The object store and MLflow say so in their own words.
        refuse(lambda number: put(stage, f"during{number}", 10_000_000))
        refuse(lambda number: tracking.log_text(run_id, "x" * 100_000, f"{number}.txt"))
        refuse(lambda number: tracking.set_tags(run_id, {f"during{number}": "x" * 4000}))
        said = refuse(lambda number: stage.services.inference.patch(stage.name, annotate(number)))
        assert "full" in said
        said = refuse(lambda number: runs.upload(PIPELINE, f"disk-{number}"))
        assert "full" in said
        assert stage.read()["status"]
        load.pass_by(300)
        disk.free()
        # Nobody is asked to do anything. The object store looks once a minute whether there is room.
        stage.wait_until(lambda: succeeds(lambda: stage.set_percent(20)), 120)
        stage.wait_until(lambda: succeeds(lambda: put(stage, "after", 1_000_000)), 240)
        stage.wait_until(lambda: succeeds(lambda: tracking.log_metrics(run_id, {"after": 1.0})), 60)
        assert succeeds(lambda: runs.list())
        load.pass_by(100)
    report = load.stop()
    assert not report.failures, report.explain()
    assert {stage.find_pid(), stage.find_pid(stage.canary)} == pids
    assert get(stage, "before") == kept
    assert get(stage, "after") == b"after" * 200_000
    for bundle in (stage.old, stage.new):
        for file in bundle.directory.iterdir():
            assert stage.store.get_bytes(f"{stage.uri(bundle.digest)}/{file.name}") == file.read_bytes()
    assert set(tracking.client.get_run(run_id).data.metrics) == {"before", "after"}
    assert names.PROJECT_LABEL in stage.read()["metadata"]["labels"]
    # What was answered meanwhile waited for the ledger.
    stage.wait_until(lambda: not sum(read_events(pid)[1]["waiting"] for pid in pids), 120)
    dropped = sum(read_events(pid)[1]["dropped"] for pid in pids) // 2
    ledger = Ledger.connect(stage.settings)
    rows = ledger.read_predictions(stage.name, since=since, features=False)
    ledger.close()
    ids = {one for one in rows["customer_id"] if str(one).startswith("disk-")}
    assert len(ids) == len(report.answers) - dropped
    print(f"{len(ids)} rows of {len(report.answers)} answers, {dropped} dropped and counted")  # noqa: T201
