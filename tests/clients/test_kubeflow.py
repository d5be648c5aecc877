"""Runs of a cluster: several users, tokens that rotate, and what its API server refuses."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from clients.errors import (
    ClientError,
    ConflictError,
    NotFoundError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from clients.run import PipelineVersion
from clients.runs import Runs
from clients.settings import Settings
from clients.token import Token

_spec = importlib.util.spec_from_file_location("kubeflow_api", Path(__file__).with_name("kubeflow_api.py"))
assert _spec is not None
assert _spec.loader is not None
api = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = api
_spec.loader.exec_module(api)

ACCOUNT = "tenure-pipeline"
IMAGE = "registry.example.com/tenure-components@sha256:" + "a" * 64
VERSION = PipelineVersion(
    api.VERSION["pipeline_id"], api.VERSION["pipeline_version_id"], api.VERSION["display_name"]
)


@pytest.fixture
def recording() -> Iterator[Any]:
    with api.play() as found:
        api.record_everything(found)
        yield found


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("first\n")
    return file


@pytest.fixture
def settings(recording: Any, token: Path) -> Settings:
    return Settings(
        _env_file=None,
        runs_url=recording.url,
        runs_token_file=token,
        runs_namespace="team",
        runs_account=ACCOUNT,
        components_image=IMAGE,
        s3_url="http://127.0.0.1:9",
        s3_access_key=SecretStr("a"),
        s3_secret_key=SecretStr("b"),
        tracking_url="http://127.0.0.1:9",
        gateway_url="http://127.0.0.1:9",
    )


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that nothing may be written into, as a pod's is."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.parametrize(
    ("document", "model"),
    [
        (api.EXPERIMENT, "V2beta1Experiment"),
        (api.PIPELINE, "V2beta1Pipeline"),
        (api.VERSION, "V2beta1PipelineVersion"),
        (api.RUN, "V2beta1Run"),
        (api.RUN["run_details"]["task_details"][0], "V2beta1PipelineTaskDetail"),
        (api.RECURRING, "V2beta1RecurringRun"),
    ],
)
def test_the_recording_has_the_published_shapes(document: dict[str, Any], model: str) -> None:
    import kfp_server_api

    assert set(document) <= set(getattr(kfp_server_api, model).attribute_map.values())


def test_a_run_is_started_in_the_users_namespace_with_account_and_version(
    recording: Any, settings: Settings, home: Path
) -> None:
    runs = Runs.connect(settings)
    assert runs.image == IMAGE
    assert runs.start(VERSION, {"project": "{}", "image": IMAGE}, "telco drift 1", "telco")
    (lookup,) = recording.asked("GET", "/experiments")
    assert lookup.query["namespace"] == ["team"]
    (posted,) = recording.asked("POST", "/runs")
    assert posted.body["service_account"] == ACCOUNT
    assert posted.body["experiment_id"] == api.EXPERIMENT["experiment_id"]
    assert posted.body["pipeline_version_reference"] == {
        "pipeline_id": VERSION.pipeline_id,
        "pipeline_version_id": VERSION.version_id,
    }
    assert posted.body["runtime_config"]["parameters"] == {"project": "{}", "image": IMAGE}
    assert "pipeline_spec" not in posted.body
    assert list(home.rglob("*")) == [], "kfp.Client writes the namespace into the home directory"


def test_a_missing_experiment_is_made_in_the_users_namespace(recording: Any, settings: Settings) -> None:
    recording.answer("GET", "/experiments", {})
    recording.answer("POST", "/experiments", api.EXPERIMENT)
    Runs.connect(settings).start(VERSION, {}, "telco drift 1", "telco", service_account="other")
    (made,) = recording.asked("POST", "/experiments")
    assert made.body == {"display_name": "telco", "namespace": "team"}
    (posted,) = recording.asked("POST", "/runs")
    assert posted.body["service_account"] == "other"


def test_lists_are_of_the_users_namespace(recording: Any, settings: Settings) -> None:
    runs = Runs.connect(settings)
    assert [run.id for run in runs.list()] == [api.RUN["run_id"]]
    assert [schedule.name for schedule in runs.list_schedules()] == ["telco"]
    for path in ("/runs", "/recurringruns"):
        (call,) = recording.asked("GET", path)
        assert call.query["namespace"] == ["team"]
    runs.schedule(VERSION, {}, "telco", "telco", "0 0 3 * * *")
    (posted,) = recording.asked("POST", "/recurringruns")
    assert posted.body["service_account"] == ACCOUNT
    assert posted.body["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"


def test_drivers_and_groups_are_no_steps(settings: Settings) -> None:
    run = Runs.connect(settings).get(api.RUN["run_id"])
    assert (run.state, run.finished) == ("RUNNING", None)
    ingest = next(step for step in run.steps if step.name == "ingest")
    assert ingest.node == "tenure-training-abcde-4444"
    assert [step.name for step in run.steps if step.name.endswith("-driver") or step.name == "root"] == []


def test_several_users_and_no_namespace_is_said_at_once(
    recording: Any, settings: Settings, home: Path
) -> None:
    with pytest.raises(SettingsError, match="TENURE_RUNS_NAMESPACE"):
        Runs.connect(settings.model_copy(update={"runs_namespace": None}))
    assert len(recording.calls) == 1
    assert list(home.rglob("*")) == []


def test_one_user_has_no_namespace(recording: Any, settings: Settings) -> None:
    """A server with one user refuses lists of a namespace."""
    recording.multi_user = False
    Runs.connect(settings).list()
    (call,) = recording.asked("GET", "/runs")
    assert call.query.get("namespace", [""]) == [""]


def test_each_request_has_the_token_as_it_is_then(recording: Any, settings: Settings, token: Path) -> None:
    runs = Runs.connect(settings)
    runs.list()
    token.write_text("second")
    runs.list()
    # As the kubelet does it: another file takes the place.
    fresh = token.with_name("fresh")
    fresh.write_text("third")
    fresh.replace(token)
    path = f"/apis/v1alpha1/runs/{api.RUN['run_id']}/nodes/tenure-training-abcde-4444/log"
    recording.answers["GET", path] = 200, "read 5000 rows"
    assert runs.log(api.RUN["run_id"], "ingest") == "read 5000 rows"
    tokens = [call.token for call in recording.calls]
    assert list(dict.fromkeys(tokens)) == ["Bearer first", "Bearer second", "Bearer third"]


def test_the_file_goes_before_the_value(settings: Settings) -> None:
    both = settings.model_copy(update={"runs_token": SecretStr("value")})
    assert Token.of(both).read() == "first"
    assert Token.of(both.model_copy(update={"runs_token_file": None})).read() == "value"
    assert Token.of(settings.model_copy(update={"runs_token_file": None})).headers() == {}


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"\xff\xfe", b"with blank"])
def test_what_is_no_token_is_said_and_not_shown(settings: Settings, token: Path, content: bytes) -> None:
    token.write_bytes(content)
    with pytest.raises(RefusedError, match="TENURE_RUNS_TOKEN_FILE") as caught:
        Runs.connect(settings)
    assert not content.strip() or content.decode("latin-1") not in str(caught.value)


def test_a_token_file_that_went_away_is_said_and_may_come_back(settings: Settings, token: Path) -> None:
    runs = Runs.connect(settings)
    token.unlink()
    with pytest.raises(RefusedError, match=r"pipelines\.kubeflow\.org"):
        runs.list()
    token.write_text("again")
    assert runs.list()


@pytest.mark.parametrize(
    ("status", "document", "error", "text"),
    [
        (
            401,
            api.make_error(16, "Failed to list runs: Unauthenticated: token is not valid"),
            RefusedError,
            "TENURE_RUNS_TOKEN_FILE",
        ),
        (
            403,
            api.make_error(
                7,
                "PermissionDenied: User 'system:serviceaccount:tenure:tenure-detector' is not authorized "
                "with reason: (request: &ResourceAttributes{Namespace:team,Verb:list,Resource:runs})",
            ),
            RefusedError,
            "its account needs a role",
        ),
        (404, api.make_error(5, "ResourceNotFoundError: Run 1 not found"), NotFoundError, "Run 1 not found"),
        (409, api.make_error(6, "AlreadyExistError: the name is taken"), ConflictError, "the name is taken"),
        (503, "upstream connect error or disconnect/reset before headers", UnreachableError, "503"),
        (500, api.make_error(13, "InternalServerError: database is gone"), RefusedError, "database is gone"),
    ],
)
def test_refusals_are_told_apart_and_never_show_the_token(
    recording: Any, settings: Settings, status: int, document: Any, error: type[ClientError], text: str
) -> None:
    runs = Runs.connect(settings)
    recording.answer("GET", "/runs", document, status)
    with pytest.raises(error, match=text) as caught:
        runs.list()
    assert type(caught.value) is error
    assert "first" not in str(caught.value)
    assert recording.url in str(caught.value)


@pytest.mark.parametrize(
    ("status", "document", "error", "text"),
    [
        (401, api.make_error(16, "Unauthenticated"), RefusedError, "TENURE_RUNS_TOKEN_FILE"),
        (403, "RBAC: access denied", RefusedError, "role"),
        (503, "no healthy upstream", UnreachableError, "503"),
        (200, "<html>Log in to Your Account</html>", RefusedError, "TENURE_RUNS_URL"),
    ],
)
def test_a_server_that_lets_nobody_in_is_said_at_once(
    recording: Any, settings: Settings, status: int, document: Any, error: type[ClientError], text: str
) -> None:
    recording.answer("GET", "/healthz", document, status)
    with pytest.raises(error, match=text):
        Runs.connect(settings)
    assert len(recording.calls) == 1, "kfp.Client would ask five times, five seconds apart"


def test_a_users_login_for_another_server_is_not_sent(recording: Any, settings: Settings, home: Path) -> None:
    """kfp keeps a cookie and a namespace in the home directory, for no server in particular."""
    from kfp.client import Client

    file = home / "context.json"
    file.write_text('{"namespace": "elsewhere", "client_authentication_cookie": "session=secret"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "_LOCAL_KFP_CONTEXT", str(file))
        Runs.connect(settings).list()
        recording.multi_user = False
        Runs.connect(settings).list()
    assert not [call for call in recording.calls if "Cookie" in call.headers]
    assert [call.query.get("namespace", [""]) for call in recording.asked("GET", "/runs")] == [["team"], [""]]
