import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from embedded.errors import EmbeddedError, StartError
from embedded.home import PLATFORM_VARIABLE, Home
from embedded.leftovers import end_leftovers, find_leftovers
from embedded.program import ALIVE, Program, State
from embedded.supervisor import Supervisor, SupervisorError

Make = Callable[..., Program]
Wait = Callable[..., None]

SLEEPER = "import time; time.sleep(600)"
# Says its pid, then starts a child that would outlive it and ignores SIGTERM.
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"],
                         start_new_session=True)
print(child.pid, flush=True)
time.sleep(600)
"""


def read_log(home: Home, name: str) -> str:
    file = home.log_file(name)
    return file.read_text() if file.exists() else ""


def lives(pid: int | None) -> bool:
    assert pid is not None
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_program_runs_with_its_environment_directory_and_log(
    home: Home, supervisor: Supervisor, python: Make, wait: Wait, tmp_path: Path
) -> None:
    code = "import os, time; print(os.environ['COLOUR'], os.getcwd(), flush=True); time.sleep(600)"
    supervisor.start(python("painter", code, environment={"COLOUR": "red"}))
    wait(lambda: read_log(home, "painter") == f"red {tmp_path}\n")
    state = supervisor.list()["painter"]
    assert state.state in ALIVE
    assert lives(state.pid)
    assert state.started_at is not None
    assert (state.exit_code, state.error, state.restarts) == (None, None, 0)


def test_awkward_values_arrive_unchanged(
    home: Home, supervisor: Supervisor, python: Make, wait: Wait
) -> None:
    value = "50% %(here)s ; # \" ' \\ $HOME\n\té\u2028"
    code = "import os, sys, time; print(ascii([os.environ['X'], sys.argv[1]]), flush=True); time.sleep(600)"
    supervisor.start(python("awkward", code, value, environment={"X": value}))
    wait(lambda: read_log(home, "awkward").strip() == ascii([value, value]))


def test_an_awkward_home_works(tmp_path: Path, python: Make, wait: Wait) -> None:
    home = Home.open(tmp_path / "a b%c'd\"é", create=True)
    supervisor = Supervisor(home)
    supervisor.launch()
    try:
        supervisor.start(python("sleeper", f"print('here', flush=True)\n{SLEEPER}"))
        wait(lambda: read_log(home, "sleeper") == "here\n")
    finally:
        supervisor.shut_down()


@pytest.mark.parametrize("name", ["a ;b", "a #b", "a\nb"])
def test_a_home_that_supervisord_cannot_read_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(EmbeddedError, match="TENURE_HOME"):
        Supervisor(Home.open(tmp_path / name, create=True)).launch()


def test_secrets_are_in_no_argument_list_and_no_readable_file(
    home: Home, supervisor: Supervisor, python: Make
) -> None:
    supervisor.start(python(environment={"TOKEN": "hunter2"}))
    pids = [supervisor.list()["sleeper"].pid, supervisor.pid]
    assert not any("hunter2" in " ".join(psutil.Process(pid).cmdline()) for pid in pids)
    holders = [f for f in home.path.rglob("*") if f.is_file() and b"hunter2" in f.read_bytes()]
    assert [file.stat().st_mode & 0o777 for file in holders] == [0o600]


def test_starting_again_changes_nothing(supervisor: Supervisor, python: Make) -> None:
    supervisor.start(python())
    before = supervisor.list()
    supervisor.start(python())
    assert supervisor.list() == before


@pytest.mark.parametrize(
    "change", [{"environment": {"A": "2"}}, {"stop_seconds": 6}, {"restart": False}, {"directory": Path("/")}]
)
def test_a_changed_program_is_started_anew(
    home: Home, supervisor: Supervisor, python: Make, change: dict[str, object]
) -> None:
    program = python(environment={"A": "1"})
    supervisor.start(program)
    before = supervisor.list()["sleeper"].pid
    supervisor.start(dataclasses.replace(program, **change))
    after = supervisor.list()["sleeper"]
    assert lives(after.pid)
    assert after.pid != before
    assert not lives(before)
    assert len(list(home.supervisor_dir.rglob("sleeper@*.json"))) == 1


def test_stopping_ends_the_process_and_forgets_the_program(
    home: Home, supervisor: Supervisor, python: Make
) -> None:
    supervisor.start(python())
    pid = supervisor.list()["sleeper"].pid
    for _ in range(2):
        supervisor.stop("sleeper")
        assert supervisor.list() == {}
        assert not lives(pid)
        assert not list(home.supervisor_dir.rglob("sleeper*"))


def test_a_program_that_ignores_sigterm_is_killed(
    home: Home, supervisor: Supervisor, python: Make, wait: Wait
) -> None:
    code = "import signal, time; signal.signal(15, 1); print('deaf', flush=True); time.sleep(600)"
    supervisor.start(python("deaf", code, stop_seconds=1))
    wait(lambda: "deaf" in read_log(home, "deaf"))
    pid = supervisor.list()["deaf"].pid
    supervisor.stop("deaf")
    assert not lives(pid)


def test_children_in_the_programs_group_end_with_it(
    home: Home, supervisor: Supervisor, python: Make, wait: Wait
) -> None:
    code = PARENT.replace("start_new_session=True", "").replace("signal.signal(15, 1)", "0")
    supervisor.start(python("parent", code))
    wait(lambda: read_log(home, "parent").endswith("\n"))
    child = int(read_log(home, "parent"))
    assert lives(child)
    supervisor.stop("parent")
    wait(lambda: not lives(child))


def test_a_killed_program_comes_back(home: Home, supervisor: Supervisor, python: Make, wait: Wait) -> None:
    supervisor.start(python(code=f"print('up', flush=True)\n{SLEEPER}"))
    wait(lambda: read_log(home, "sleeper"))
    pid = supervisor.list()["sleeper"].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait(lambda: supervisor.list()["sleeper"].pid not in {pid, None})
    wait(lambda: supervisor.list()["sleeper"].restarts == 1)


def test_a_failing_program_is_retried_with_pauses_and_never_given_up(
    supervisor: Supervisor, python: Make, wait: Wait
) -> None:
    supervisor.start(python("failing", "raise SystemExit(3)"))
    wait(lambda: supervisor.list()["failing"].restarts >= 2)
    wait(lambda: supervisor.list()["failing"].state == State.BACKOFF)
    state = supervisor.list()["failing"]
    assert state.pid is None
    assert state.error is not None
    supervisor.stop("failing")
    assert supervisor.list() == {}


def test_a_missing_program_says_so_in_its_log(
    home: Home, supervisor: Supervisor, wait: Wait, tmp_path: Path
) -> None:
    supervisor.start(Program("missing", ("/no/such/program",), {}, tmp_path))
    wait(lambda: "cannot start /no/such/program" in read_log(home, "missing"))
    assert "Traceback" not in read_log(home, "missing")


@pytest.mark.parametrize("code", [0, 3])
def test_a_program_without_restarts_ends_once(
    supervisor: Supervisor, python: Make, wait: Wait, code: int
) -> None:
    supervisor.start(python("once", f"raise SystemExit({code})", restart=False))
    wait(lambda: supervisor.list()["once"].state == State.EXITED)
    state = supervisor.list()["once"]
    assert (state.exit_code, state.restarts, state.pid) == (code, 0, None)
    supervisor.start(python("once", f"raise SystemExit({code})", restart=False))
    wait(lambda: supervisor.list()["once"].restarts == 1)


def test_a_signal_reaches_the_program(home: Home, supervisor: Supervisor, python: Make, wait: Wait) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('got it', flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: time.sleep(600)"
    )
    supervisor.start(python("listener", code))
    wait(lambda: "ready" in read_log(home, "listener"))
    supervisor.signal("listener", signal.SIGUSR1)
    wait(lambda: "got it" in read_log(home, "listener"))
    with pytest.raises(SupervisorError, match="BAD_NAME"):
        supervisor.signal("nobody", signal.SIGUSR1)


def test_many_programs_at_once(supervisor: Supervisor, python: Make, wait: Wait) -> None:
    names = [f"sleeper-{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(supervisor.start, map(python, names)))
        wait(lambda: {state.state for state in supervisor.list().values()} <= ALIVE)
        assert supervisor.list().keys() == set(names)
        list(pool.map(supervisor.stop, names))
    assert supervisor.list() == {}


@pytest.mark.parametrize("name", ["", "A", "a b", "a/b", "../a", "a\nb", "a]", "-a", "a.", "x" * 121])
def test_a_wrong_name_is_refused(supervisor: Supervisor, python: Make, name: str) -> None:
    with pytest.raises(EmbeddedError, match="no name for a program"):
        supervisor.start(python(name))
    with pytest.raises(EmbeddedError, match="no name for a program"):
        supervisor.stop(name)
    supervisor.start(python("fine"))


def test_without_supervisord_the_error_says_what_to_do(home: Home, python: Make) -> None:
    supervisor = Supervisor(home)
    for act in (supervisor.list, lambda: supervisor.start(python()), lambda: supervisor.stop("a")):
        with pytest.raises(SupervisorError, match="tenure up"):
            act()
    assert not supervisor.is_running()
    assert supervisor.pid is None
    supervisor.shut_down()


def test_launching_twice_starts_one(supervisor: Supervisor) -> None:
    pid = supervisor.pid
    assert not supervisor.launch()
    assert supervisor.pid == pid


def test_a_broken_start_quotes_supervisord(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedded.supervisor.render_config", lambda *_: "[supervisord]\nloglevel = loudest\n")
    with pytest.raises(StartError, match="loudest"):
        Supervisor(home).launch()


def test_shutting_down_ends_everything(home: Home, supervisor: Supervisor, python: Make) -> None:
    supervisor.start(python())
    pids = [supervisor.list()["sleeper"].pid, supervisor.pid]
    supervisor.shut_down()
    assert not any(lives(pid) for pid in pids)
    assert not supervisor.is_running()
    assert not home.ensure_socket_path().exists()


def test_programs_die_with_supervisord_and_it_starts_again_without_them(
    supervisor: Supervisor, python: Make, wait: Wait
) -> None:
    supervisor.start(python())
    program, own = supervisor.list()["sleeper"].pid, supervisor.pid
    assert own is not None
    os.kill(own, signal.SIGKILL)
    wait(lambda: not lives(program))
    assert not supervisor.is_running()
    assert supervisor.launch()  # over the stale socket and pid file
    assert supervisor.list() == {}


def test_leftovers_are_found_by_their_mark_and_ended(
    home: Home, supervisor: Supervisor, python: Make, wait: Wait
) -> None:
    supervisor.start(python("parent", PARENT))
    wait(lambda: read_log(home, "parent").endswith("\n"))
    grandchild, own = int(read_log(home, "parent")), supervisor.pid
    assert own is not None
    os.kill(own, signal.SIGKILL)
    wait(lambda: [process.pid for process in find_leftovers(home.state.id)] == [grandchild])
    assert end_leftovers(home.state.id, grace_seconds=0.1) == 1
    assert not lives(grandchild)
    assert end_leftovers(home.state.id) == 0


def test_leftovers_of_another_home_are_left_alone(
    supervisor: Supervisor, python: Make, tmp_path: Path
) -> None:
    other = Home.open(tmp_path / "other", create=True)
    supervisor.start(python())
    assert end_leftovers(other.state.id) == 0
    assert lives(supervisor.list()["sleeper"].pid)


def test_the_callers_settings_do_not_leak_into_programs(
    home: Home, python: Make, wait: Wait, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TENURE_RUNS_URL", "MLFLOW_TRACKING_URI", "KUBECONFIG", "PYTHONDONTWRITEBYTECODE"):
        monkeypatch.setenv(name, "foreign")
    monkeypatch.setenv("TENURE_CODE_VERSION", "kept")
    monkeypatch.setenv("NO_PROXY", "example.org")
    supervisor = Supervisor(home)
    supervisor.launch()
    supervisor.start(python())
    environment = psutil.Process(supervisor.list()["sleeper"].pid).environ()
    # While a process is being replaced by another program its arguments are empty.
    wait(
        lambda: "".join(psutil.Process(supervisor.list()["sleeper"].pid).cmdline()[-1:]).startswith(
            "import time"
        )
    )
    environment = psutil.Process(supervisor.list()["sleeper"].pid).environ()
    assert "foreign" not in environment.values()
    assert not any(name.startswith("SUPERVISOR_") for name in environment)
    assert environment["TENURE_CODE_VERSION"] == "kept"
    assert environment["NO_PROXY"] == "example.org,127.0.0.1,localhost"
    assert environment[PLATFORM_VARIABLE] == home.state.id
    with contextlib.suppress(SupervisorError):
        supervisor.shut_down()


def test_long_logs_are_rotated(home: Home, supervisor: Supervisor, python: Make, wait: Wait) -> None:
    code = "import time\nfor _ in range(120_000): print('x' * 99)\ntime.sleep(600)"
    supervisor.start(python("talker", code))
    rotated = home.logs / "talker.log.1"
    wait(rotated.exists, 60)
    assert home.log_file("talker").stat().st_size <= 10 * 1024 * 1024
