from __future__ import annotations

import pytest

from embedded.runs.errors import ConflictError, MissingError
from embedded.runs.records import Experiment, Pipeline, Run, Version
from embedded.runs.storage import Storage


@pytest.fixture
def storage(tmp_path):
    store = Storage(tmp_path / "runs.db")
    yield store
    store.close()


def make_run(identity, state="PENDING"):
    return Run(
        id=identity,
        display_name="r",
        created_at="1",
        scheduled_at="1",
        experiment_id="e",
        state=state,
    )


def test_the_queue_keeps_the_order_and_a_retried_run_goes_last(storage):
    for identity in "abc":
        storage.add(make_run(identity))
    assert storage.next_run().id == "a"
    storage.update(Run, "a", lambda run: run.move("FAILED", "2"))
    assert storage.next_run().id == "b"
    storage.update(Run, "a", lambda run: run.move("PENDING", "3"))
    storage.update(Run, "b", lambda run: run.move("RUNNING", "4"))
    assert [run.id for run in storage.active_runs()] == ["b"]
    assert storage.next_run().id == "c"
    storage.update(Run, "c", lambda run: run.move("CANCELED", "5"))
    assert storage.next_run().id == "a"
    assert [run.id for run in storage.list_all(Run)] == ["a", "b", "c"]


def test_what_a_change_raises_leaves_the_record(storage):
    storage.add(make_run("a"))

    def refuse(run):
        raise ConflictError("no")

    with pytest.raises(ConflictError):
        storage.update(Run, "a", refuse)
    assert storage.get(Run, "a").state == "PENDING"


def test_names_are_unique_where_they_must_be(storage):
    storage.add(Experiment(id="1", display_name="e", created_at="1"))
    with pytest.raises(ConflictError, match="experiment named 'e'"):
        storage.add(Experiment(id="2", display_name="e", created_at="1"))
    for identity in "pq":
        storage.add(Pipeline(id=identity, display_name=identity, name=identity, created_at="1"))
        storage.add(
            Version(
                id=f"v{identity}",
                display_name="v",
                name="v",
                pipeline_id=identity,
                created_at="1",
                spec={"pipeline_spec": {}},
            )
        )
    storage.delete(Pipeline, "p")
    with pytest.raises(MissingError, match="version"):
        storage.get(Version, "vp")
    assert storage.get(Version, "vq").pipeline_id == "q"


def test_records_survive_the_file_being_opened_again(storage, tmp_path):
    run = make_run("a").move("RUNNING", "2").move("FAILED", "3", "why")
    storage.add(run)
    other = Storage(tmp_path / "runs.db")
    assert other.get(Run, "a") == run
    other.close()
