import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.__main__ import _format_age, main
from embedded.access import write_env_file
from embedded.home import HOME_VARIABLE, Home


@pytest.fixture
def here(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv(HOME_VARIABLE, str(home.path))
    return home


def test_status_of_a_platform_that_is_down(here: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 3
    assert "store" in capsys.readouterr().out
    assert main(["status", "--json"]) == 3
    services = json.loads(capsys.readouterr().out)["services"]
    assert {service["name"] for service in services} >= {"store", "tracking", "gateway", "runs", "kubernetes"}
    store = next(service for service in services if service["name"] == "store")
    assert (store["state"], store["ready"], store["pid"], store["kind"]) == (
        "stopped",
        False,
        None,
        "service",
    )
    assert store["address"] == f"http://127.0.0.1:{here.state.ports.s3}"
    assert store["log"] == str(here.log_file("store"))


def test_down_works_when_nothing_runs(
    here: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["down"]) == 0
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "never"))
    assert main(["down"]) == 0
    assert "no platform" in capsys.readouterr().err
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("command", [["status"], ["env"], ["logs", "store"]])
def test_without_a_platform_the_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "never"))
    assert main(command) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "tenure up" in captured.err


def test_env_can_be_evaluated_by_a_shell(here: Home) -> None:
    write_env_file(here)
    script = (
        f'eval "$({sys.executable} -m embedded env)" && printf "%s %s" "$KFP_ENDPOINT" "$KFP_EXISTING_TOKEN"'
    )
    shown = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    token = here.secrets.runs_token.get_secret_value()
    assert shown.stdout == f"http://127.0.0.1:{here.state.ports.runs} {token}"


def test_logs_shows_the_end(here: Home, capsys: pytest.CaptureFixture[str]) -> None:
    here.log_file("store").write_text("one\ntwo\nthree\n")
    assert main(["logs", "store", "-n", "2"]) == 0
    assert capsys.readouterr().out == "two\nthree\n"
    assert main(["logs", "nobody"]) == 1
    assert "there are: store" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(0, "0 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (350_000, "4 d 1 h")],
)
def test_ages_are_shown_in_two_units(seconds: float, age: str) -> None:
    assert _format_age(seconds) == age


@pytest.mark.parametrize("arguments", [[], ["sideways"], ["status", "--jsn"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
