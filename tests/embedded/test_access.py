import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from clients.settings import Settings
from embedded.access import make_variables, read_env_file, write_env_file, write_kubeconfig
from embedded.certificates import ensure_certificates
from embedded.errors import EmbeddedError
from embedded.home import Home


def test_the_env_file_holds_all_that_clients_need(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TENURE_")]:
        monkeypatch.delenv(name)
    write_env_file(home)
    assert home.env_file.stat().st_mode & 0o777 == 0o600
    settings = Settings(_env_file=home.env_file)
    ports = home.state.ports
    assert settings.kubeconfig == home.kubeconfig
    assert settings.runs_url == f"http://127.0.0.1:{ports.runs}"
    assert settings.runs_token == home.secrets.runs_token
    assert settings.s3_url == f"http://127.0.0.1:{ports.s3}"
    assert settings.s3_access_key == home.secrets.s3_access_key
    assert settings.s3_secret_key == home.secrets.s3_secret_key
    assert settings.tracking_url == f"http://127.0.0.1:{ports.tracking}"
    assert settings.tracking_password == home.secrets.tracking_password
    assert settings.gateway_url == f"http://127.0.0.1:{ports.gateway}"
    assert settings.gateway_stats_url == f"http://127.0.0.1:{ports.envoy_admin}/stats/prometheus"
    assert settings.detector_url == f"http://127.0.0.1:{ports.detector}"
    assert settings.detector_token == home.secrets.detector_token
    assert settings.ledger_url is not None
    assert settings.ledger_url.get_secret_value() == f"sqlite:///{home.ledger}"
    assert (settings.namespace, settings.s3_bucket) == ("default", "tenure")


@pytest.mark.parametrize(
    "name", ["plain", "with blank", "it's", 'a"b', "back\\slash", "a#b", "50%", "é", "$X"]
)
def test_any_path_survives_the_env_file_and_the_shell(tmp_path: Path, name: str) -> None:
    home = Home.open(tmp_path / name, create=True)
    write_env_file(home)
    variables = read_env_file(home)
    assert variables == make_variables(home)
    lines = "\n".join(f"export {key}={shlex.quote(value)}" for key, value in variables.items())
    shown = subprocess.run(
        ["/bin/sh", "-c", lines + '\nprintf %s "$KUBECONFIG"'], capture_output=True, text=True, check=True
    )
    assert shown.stdout == str(home.kubeconfig)


@pytest.mark.parametrize("name", ["a\nb", "${HOME}"])
def test_a_path_that_readers_would_change_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EmbeddedError, match="TENURE_HOME"):
        write_env_file(Home.open(tmp_path / name, create=True))


def test_without_an_env_file_the_error_says_what_to_do(home: Home) -> None:
    with pytest.raises(EmbeddedError, match="tenure up"):
        read_env_file(home)


def test_the_kubeconfig_names_address_authority_and_token(home: Home) -> None:
    write_kubeconfig(home, ensure_certificates(home))
    assert home.kubeconfig.stat().st_mode & 0o777 == 0o600
    document = yaml.safe_load(home.kubeconfig.read_text())
    assert document["clusters"][0]["cluster"]["server"] == f"https://127.0.0.1:{home.state.ports.api}"
    assert document["users"][0]["user"]["token"] == home.secrets.api_token.get_secret_value()
    assert document["current-context"] == "tenure"


def test_files_that_say_the_same_are_not_written_again(home: Home) -> None:
    marks = []
    for _ in range(2):
        write_env_file(home)
        write_kubeconfig(home, ensure_certificates(home))
        marks.append([file.stat().st_ino for file in (home.env_file, home.kubeconfig)])
    assert marks[0] == marks[1]
