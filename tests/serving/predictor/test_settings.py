from __future__ import annotations

from pathlib import Path

import pytest

from serving.predictor.errors import StartError
from serving.predictor.settings import Settings, parse_settings


def test_defaults_are_those_of_a_pod() -> None:
    assert parse_settings([], {}) == Settings()


def test_flags_win_over_the_environment() -> None:
    environment = {
        "TENURE_HTTP_HOST": "127.0.0.1",
        "TENURE_HTTP_PORT": "1000",
        "TENURE_MAX_ROWS": "7",
        "TENURE_BUNDLE_DIGEST": "",
    }
    settings = parse_settings(["--model_name=a", "--model_dir", "/b", "--http_port=2000"], environment)
    assert settings == Settings(
        model_name="a",
        model_dir=Path("/b"),
        http_port=2000,
        http_host="127.0.0.1",
        grpc_host="127.0.0.1",
        max_rows=7,
    )


def test_the_sinks_token_is_no_flag_and_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    settings = parse_settings([], {"TENURE_LOGGER_TOKEN": "secret"})
    assert settings.logger_token == "secret"
    assert "secret" not in repr(settings)
    with pytest.raises(SystemExit):
        parse_settings(["--logger_token=secret"], {})
    assert "unrecognized" in capsys.readouterr().err


def test_grpc_may_listen_elsewhere() -> None:
    settings = parse_settings([], {"TENURE_HTTP_HOST": "127.0.0.1", "TENURE_GRPC_HOST": "::1"})
    assert (settings.http_host, settings.grpc_host) == ("127.0.0.1", "::1")


@pytest.mark.parametrize("text", ["0", "65536", "http", "-1", "8080.0"])
def test_refuses_wrong_numbers(text: str) -> None:
    with pytest.raises(StartError, match=r"--http_port \(TENURE_HTTP_PORT\) is .*, expected a whole number"):
        parse_settings([f"--http_port={text}"], {})


def test_refuses_unknown_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_settings(["--model_nam=a"], {})
    assert "--model_nam" in capsys.readouterr().err


def test_refuses_unknown_scopes() -> None:
    assert parse_settings(["--logger_scope=direct"], {}).logger_scope == "direct"
    with pytest.raises(StartError, match=r"TENURE_LOGGER_SCOPE\) is 'grpc', expected all or direct"):
        parse_settings([], {"TENURE_LOGGER_SCOPE": "grpc"})
