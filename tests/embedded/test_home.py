import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from embedded.errors import EmbeddedError
from embedded.home import HOME_VARIABLE, Home, PlatformState, Ports, Secrets, is_private, write_private


def read_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_home_is_the_owners_alone(home: Home) -> None:
    assert read_mode(home.path) == 0o700
    for entry in home.path.rglob("*"):
        assert read_mode(entry) == (0o700 if entry.is_dir() else 0o600), entry


def test_a_directory_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.mkdir(mode=0o755)
    path.chmod(0o755)
    Home.open(path, create=True)
    assert read_mode(path) == 0o700


def test_ports_id_and_secrets_stay_between_starts(home: Home) -> None:
    for again in (Home.open(home.path), Home.open(home.path, create=True)):
        assert again.state == home.state
        assert again.secrets == home.secrets


def test_every_port_differs(home: Home) -> None:
    ports = home.state.ports.model_dump()
    assert len(set(ports.values())) == len(ports)


def test_two_homes_share_nothing(tmp_path: Path) -> None:
    one, other = (Home.open(tmp_path / name, create=True) for name in ("one", "other"))
    assert one.state.id != other.state.id
    assert set(one.state.ports.model_dump().values()).isdisjoint(other.state.ports.model_dump().values())
    assert one.secrets.api_token != other.secrets.api_token


def test_secrets_do_not_show(home: Home) -> None:
    clear = [value.get_secret_value() for _, value in home.secrets]
    assert len(set(clear)) == len(clear)
    assert all(len(value) >= 20 for value in clear)
    for text in (repr(home.secrets), str(home.secrets), home.secrets.model_dump_json()):
        assert not any(value in text for value in clear)
    assert all(value in (home.path / "secrets.json").read_text() for value in clear)


def test_opening_what_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"no platform at .*tenure up"):
        Home.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_variable_names_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(HOME_VARIABLE, raising=False)
    assert Home.locate() == tmp_path / ".tenure"
    monkeypatch.setenv(HOME_VARIABLE, "elsewhere")
    assert Home.locate() == tmp_path / "elsewhere"


def test_starting_at_once_from_many_sides_gives_one_home(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        homes = list(pool.map(lambda _: Home.open(tmp_path / "home", create=True), range(16)))
    assert len({home.state.id for home in homes}) == 1
    assert len({home.secrets.to_json() for home in homes}) == 1


@pytest.mark.parametrize("name", ["platform.json", "secrets.json"])
@pytest.mark.parametrize("text", ["", "{", '{"api_token": 5}', '{"unknown": "hunter2"}', "[]"])
def test_a_damaged_file_is_named_but_not_quoted(home: Home, name: str, text: str) -> None:
    (home.path / name).write_text(text)
    with pytest.raises(EmbeddedError, match=f"{name} is damaged") as caught:
        _ = Home.open(home.path, create=True).secrets
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("missing", [["s3_filer"], ["detector", "pilot"]])
def test_a_home_of_an_older_version_is_completed(home: Home, missing: list[str]) -> None:
    file = home.path / "platform.json"
    document = json.loads(file.read_text())
    for name in missing:
        del document["ports"][name]
    file.write_text(json.dumps(document))
    with pytest.raises(EmbeddedError, match="another version"):
        _ = Home.open(home.path).state
    completed = Home.open(home.path, create=True).state
    assert completed == Home.open(home.path).state
    changed = {name: getattr(home.state.ports, name) for name in missing}
    assert completed.ports.model_copy(update=changed) == home.state.ports


def test_taken_ports_are_replaced_and_the_others_kept(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = home.state.ports
    monkeypatch.setattr("embedded.home.is_port_free", lambda port: port not in {before.runs, before.s3})
    assert home.replace_taken_ports().keys() == {"runs", "s3"}
    after = Home.open(home.path).state.ports
    changed = {name for name, port in after if port != getattr(before, name)}
    assert changed == {"runs", "s3"}
    assert Home.open(home.path).state.id == home.state.id


def test_free_ports_are_all_kept(home: Home) -> None:
    before = home.state
    assert home.replace_taken_ports() == {}
    assert Home.open(home.path).state == before


def test_a_deep_home_has_its_socket_elsewhere(tmp_path: Path) -> None:
    deep = Home.open(tmp_path / ("d" * 90) / ("e" * 90), create=True)
    socket = deep.ensure_socket_path()
    assert len(os.fsencode(socket)) <= 99
    assert is_private(socket.parent)
    assert Home.open(deep.path).ensure_socket_path() == socket
    socket.parent.rmdir()  # as a reboot does
    replaced = Home.open(deep.path).ensure_socket_path()
    assert replaced != socket
    assert is_private(replaced.parent)
    replaced.parent.rmdir()


def test_a_socket_directory_that_others_can_enter_is_not_used(tmp_path: Path) -> None:
    deep = Home.open(tmp_path / ("d" * 90) / ("e" * 90), create=True)
    socket = deep.ensure_socket_path()
    socket.parent.chmod(0o755)
    replaced = deep.ensure_socket_path()
    assert replaced != socket
    for directory in (socket.parent, replaced.parent):
        directory.rmdir()


def test_a_lock_is_held_once(home: Home) -> None:
    with (
        home.lock("platform"),
        pytest.raises(EmbeddedError, match="another command holds"),
        Home.open(home.path).lock("platform", wait=False),
    ):
        pass
    with home.lock("platform", wait=False):
        pass


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_private(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(file, "\ud800")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_models_refuse_unknown_fields() -> None:
    for kind in (Ports, PlatformState, Secrets):
        assert kind.model_config["extra"] == "forbid"
