"""Runs against the laptop platform's real server of pipeline runs."""

# No `from __future__ import annotations`: kfp reads the annotations as objects.
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from clients.errors import NotFoundError, RefusedError, UnreachableError
from clients.runs import Run, Runs
from clients.settings import Settings
from embedded.home import Home

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kfp import compiler, dsl


def greet(name: str) -> str:
    print("hello", name)  # noqa: T201
    return name


def fail(name: str) -> None:
    raise ValueError(f"no luck, {name}")


def linger(name: str) -> None:
    import threading

    threading.Event().wait(300)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    directory = tmp_path_factory.mktemp("runs")
    home = Home.open(directory / "home", create=True)
    url = f"http://127.0.0.1:{home.state.ports.runs}"
    log = directory / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "embedded.runs"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TENURE_HOME": str(home.path)},
            start_new_session=True,
        )
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            httpx.get(f"{url}/apis/v2beta1/healthz", trust_env=False)
        except httpx.TransportError:
            continue
        break
    yield Settings(
        _env_file=None,
        runs_url=url,
        runs_token=home.secrets.runs_token,
        s3_url="http://127.0.0.1:9",
        s3_access_key=SecretStr("a"),
        s3_secret_key=SecretStr("b"),
        tracking_url="http://127.0.0.1:9",
        gateway_url="http://127.0.0.1:9",
    )
    process.send_signal(signal.SIGTERM)
    process.wait(30)


@pytest.fixture(scope="module")
def runs(settings: Settings) -> Runs:
    return Runs.connect(settings)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Compile one pipeline per function: it greets, and then does what the function does."""
    component = dsl.component(base_image="none", install_kfp_package=False)
    first = component(greet)
    packages = {}
    for function in (greet, fail, linger):
        second = component(function)

        def pipeline(name: str) -> None:
            second(name=first(name=name).output).set_display_name("second")  # noqa: B023 - compiled at once

        path = tmp_path_factory.mktemp("packages") / f"{function.__name__}.yaml"
        compiler.Compiler().compile(dsl.pipeline(name=function.__name__)(pipeline), str(path))
        packages[function.__name__] = path
    return packages


def test_run_is_followed_to_its_end(
    runs: Runs, packages: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = runs.start(runs.upload(packages["greet"], "greet"), {"name": "you"}, "first run", "tests")
    seen: list[Run] = []
    run = runs.wait(run_id, 60, seen.append)
    assert run.done
    assert run.succeeded
    assert run == seen[-1] == runs.get(run_id)
    assert (run.name, run.error) == ("first run", None)
    assert [step.state for step in run.steps] == ["SUCCEEDED", "SUCCEEDED"]
    assert run.steps[0].name == "greet"
    assert run.steps[0].started is not None
    assert run.steps[0].finished is not None
    assert run.steps[0].started <= run.steps[0].finished
    assert "hello you" in runs.log(run_id, "greet")
    assert run_id in [item.id for item in runs.list()]
    assert capsys.readouterr().out == ""


def test_failed_run_tells_the_step_and_its_error(runs: Runs, packages: dict[str, Path]) -> None:
    run_id = runs.start(runs.upload(packages["fail"], "fail"), {"name": "you"}, "bad run", "tests")
    run = runs.wait(run_id, 60)
    assert (run.state, run.succeeded) == ("FAILED", False)
    assert run.error is not None
    assert "no luck, you" in run.error
    states = {step.name: step.state for step in run.steps}
    assert states.pop("greet") in ("SUCCEEDED", "CACHED")
    assert states == {"second": "FAILED"}


def test_run_is_ended(runs: Runs, packages: dict[str, Path]) -> None:
    run_id = runs.start(runs.upload(packages["linger"], "linger"), {"name": "you"}, "long run", "tests")
    with pytest.raises(RefusedError, match=r"still \w+ after 0.5 s"):
        runs.wait(run_id, 0.5)
    runs.terminate(run_id)
    assert runs.wait(run_id, 60).state == "CANCELED"


def test_what_is_missing_is_not_found(runs: Runs, packages: dict[str, Path]) -> None:
    with pytest.raises(NotFoundError):
        runs.get("00000000-0000-0000-0000-000000000000")
    with pytest.raises(RefusedError, match="no such compiled pipeline"):
        runs.upload("none.yaml")
    run_id = runs.start(runs.upload(packages["greet"], "greet"), {"name": "you"}, "run", "tests")
    runs.wait(run_id, 60)
    with pytest.raises(NotFoundError, match="greet"):
        runs.log(run_id, "nonsense")


def test_upload_is_repeated_without_effect_and_the_last_one_is_the_newest(
    runs: Runs, packages: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="tenure up"):
        runs.find_version("series")
    first = runs.upload(packages["greet"], "series")
    digest = hashlib.sha256(packages["greet"].read_bytes()).hexdigest()
    assert first.name == digest[:12]
    assert runs.upload(shutil.copy(packages["greet"], tmp_path / "other.yaml"), "series") == first
    assert runs.find_version("series") == first
    second = runs.upload(packages["fail"], "series")
    assert (second.pipeline_id, second != first) == (first.pipeline_id, True)
    assert runs.find_version("series") == second
    third = runs.upload(packages["greet"], "series")
    assert third.name == f"{digest[:12]}-2"
    assert runs.find_version("series") == third == runs.upload(packages["greet"], "series")


def test_a_run_that_says_no_image_gets_the_one_that_was_there_at_the_upload(settings: Settings) -> None:
    image = "registry.example.com/tenure-components@sha256:0"
    package = Path(__file__).parents[2] / "pipelines" / "training.yaml"
    pinned = Runs.connect(settings.model_copy(update={"components_image": image}))
    version = pinned.upload(package, "pinned")
    assert pinned.upload(package, "pinned") == version
    url = f"/apis/v2beta1/pipelines/{version.pipeline_id}/versions/{version.version_id}"
    token = settings.runs_token
    headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
    answer = httpx.get(f"{settings.runs_url}{url}", headers=headers, trust_env=False).raise_for_status()
    specification = answer.json()["pipeline_spec"]
    parameters = specification.get("pipeline_spec", specification)["root"]["inputDefinitions"]["parameters"]
    assert parameters["image"]["defaultValue"] == image
    other = Runs.connect(settings.model_copy(update={"components_image": f"{image}1"}))
    assert other.upload(package, "pinned") != version, "another image is another version"


def test_uploads_at_the_same_time_are_one_version(settings: Settings, packages: dict[str, Path]) -> None:
    several = [Runs.connect(settings) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: one.upload(packages["greet"], "contested"), several))
    assert len(set(found)) == 1


def test_run_is_found_by_its_whole_name(runs: Runs, packages: dict[str, Path]) -> None:
    assert runs.find("drift-123") is None
    assert runs.find("drift-123", "nobody's") is None
    version = runs.upload(packages["greet"], "greet")
    first = runs.start(version, {"name": "you"}, "drift-123", "found")
    runs.start(version, {"name": "you"}, "drift-1234", "found")
    found = runs.find("drift-123")
    assert found is not None
    assert (found.id, found.name) == (first, "drift-123")
    assert runs.find("drift-123", "found") is not None
    assert runs.find("drift-123", "tests") is None
    again = runs.start(version, {"name": "you"}, "drift-123", "found")
    newest = runs.find("drift-123")
    assert newest is not None
    assert newest.id == again


def test_the_pipeline_for_clusters_runs_here_and_a_wrong_project_is_tried_once(runs: Runs) -> None:
    package = Path(__file__).parents[2] / "pipelines" / "training.yaml"
    assert len(package.read_text().split("\n---\n")) == 2, "the second part is for Kubernetes"
    run_id = runs.start(runs.upload(package), {"project": "{}", "image": "other"}, "training", "tests")
    run = runs.wait(run_id, 60)
    assert run.state == "FAILED"
    assert "step 'ingest' failed" in str(run.error)
    assert "attempt 2" not in runs.log(run_id, "ingest")


def test_wrong_argument_is_refused_with_its_name(runs: Runs, packages: dict[str, Path]) -> None:
    with pytest.raises(RefusedError, match="'nmae' is not a parameter"):
        runs.start(runs.upload(packages["greet"], "greet"), {"nmae": "you"}, "run", "tests")


def test_schedule_starts_runs_until_it_is_removed(runs: Runs, packages: dict[str, Path]) -> None:
    version = runs.upload(packages["greet"], "greet")
    made = runs.schedule(version, {"name": "you"}, "often", "tests", "* * * * * *")
    assert (made.name, made.cron, made.enabled, made.version_id) == (
        "often",
        "* * * * * *",
        True,
        version.version_id,
    )
    assert made in runs.list_schedules()
    deadline = time.monotonic() + 30
    while not any(run.name.startswith("often 20") for run in runs.list()):
        assert time.monotonic() < deadline, runs.list()
    runs.delete_schedule(made.id)
    assert made not in runs.list_schedules()
    with pytest.raises(NotFoundError):
        runs.delete_schedule(made.id)
    with pytest.raises(RefusedError, match="six are needed"):
        runs.schedule(version, {"name": "you"}, "never", "tests", "0 3 * * *")


def test_wrong_token_is_refused_and_not_told(settings: Settings) -> None:
    with pytest.raises(RefusedError, match="TENURE_RUNS_TOKEN") as caught:
        Runs.connect(settings.model_copy(update={"runs_token": SecretStr("wrong-token")})).list()
    assert "wrong-token" not in str(caught.value)


def test_silent_address_is_unreachable(settings: Settings) -> None:
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:9"):
        Runs.connect(settings.model_copy(update={"runs_url": "http://127.0.0.1:9"}))
