"""MLflow on a real cluster: nobody enters without its login, and what it keeps lies where it should."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from clients.store import Store
from clients.tracking import Tracking

QUESTION = "/api/2.0/mlflow/experiments/search"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


@pytest.fixture(scope="module")
def tracking(platform: Any) -> Tracking:
    return Tracking.connect(platform.settings)


@pytest.fixture
def experiment(tracking: Tracking) -> Iterator[Any]:
    """An experiment of this test's own; MLflow keeps its row, marked as deleted."""
    name = f"test-{secrets.token_hex(4)}"
    number = tracking.client.create_experiment(name)
    yield tracking.client.get_experiment(number)
    tracking.client.delete_experiment(number)


@pytest.mark.parametrize("login", ["none", "a wrong password", "an unknown user"])
@pytest.mark.parametrize(("method", "path"), [("POST", QUESTION), ("GET", ARTIFACTS), ("GET", "/")])
def test_nobody_enters_without_the_login(platform: Any, login: str, method: str, path: str) -> None:
    settings = platform.settings
    right = (settings.tracking_username, settings.tracking_password.get_secret_value())
    wrong = {
        "none": None,
        "a wrong password": (right[0], right[1] + "x"),
        "an unknown user": ("somebody", right[1]),
    }
    body = {"max_results": 1} if method == "POST" else None
    with httpx.Client(base_url=settings.tracking_url, timeout=30) as client:
        assert client.request(method, path, json=body, auth=wrong[login]).status_code == 401
        assert client.request(method, path, json=body, auth=right).status_code == 200


def test_artifacts_pass_through_to_the_bucket(
    platform: Any, tracking: Tracking, experiment: Any, tmp_path: Path
) -> None:
    """The client is told a place behind MLflow and needs no key of the store; the object is in our bucket."""
    content = secrets.token_hex(16)
    file = tmp_path / "note.txt"
    file.write_text(content)
    run = tracking.client.create_run(experiment.experiment_id)
    place = urlsplit(run.info.artifact_uri)
    assert (place.scheme, place.netloc) == ("mlflow-artifacts", "")
    uri = f"s3://{platform.settings.s3_bucket}/mlflow{place.path}/{file.name}"
    store = Store.connect(platform.settings)
    try:
        tracking.client.log_artifact(run.info.run_id, str(file))
        assert store.get_bytes(uri) == content.encode()
        back = tracking.client.download_artifacts(run.info.run_id, file.name, str(tmp_path))
        assert Path(back).read_text() == content
    finally:
        store.delete(uri)


def test_experiments_are_in_its_database(cluster: Any, experiment: Any) -> None:
    statement = "SELECT name, artifact_location FROM experiments"
    answer = cluster.run(
        "-n", "tenure", "exec", "tenure-mlflow-db-0", "--",
        "psql", "-qAt", "-U", "mlflow", "-d", "mlflow", "-c", statement,
    )  # fmt: skip
    assert f"{experiment.name}|mlflow-artifacts:/{experiment.experiment_id}" in answer.stdout.splitlines()
