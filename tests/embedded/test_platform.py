import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedded.certificates import Certificates
from embedded.errors import EmbeddedError, StartError
from embedded.home import Home
from embedded.leftovers import find_leftovers
from embedded.platform import Platform, ServiceStatus
from embedded.ports import LOOPBACK, is_port_open
from embedded.probes import make_http_probe
from embedded.program import Program, State
from embedded.services import (
    Service,
)
from embedded.supervisor import Supervisor

Wait = Callable[..., None]

# Answers 200 on every path; its port is its only argument. Also has a child in a session of its own.
CHILD = """
subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
"""
SERVER = f"""
import http.server, subprocess, sys
{CHILD}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
print("serving", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
BROKEN = "import sys; sys.exit('the disk of ' + sys.argv[1] + ' is full')"


class Bench:
    """A platform of three small services, any of which can be broken."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.broken: set[str] = set()
        self.prepared: list[str] = []
        self.lines: list[str] = []

    @property
    def platform(self) -> Platform:
        return Platform(Home.open(self.home.path), self._make_services)

    def up(self) -> list[ServiceStatus]:
        return self.platform.up(self.lines.append)

    def down(self) -> None:
        self.platform.down(self.lines.append)

    def _make_services(self, home: Home, certificates: Certificates) -> list[Service]:
        assert certificates.ca.is_file()
        return [
            self._make(home, "first", home.state.ports.s3, stage=5),
            self._make(home, "second", home.state.ports.runs, stage=1, after=("first",)),
            self._make(home, "silent", None, stage=0, after=("second",)),
        ]

    def _make(
        self, home: Home, name: str, port: int | None, stage: int, after: tuple[str, ...] = ()
    ) -> Service:
        code = BROKEN if name in self.broken else SERVER if port else "import time; time.sleep(600)"
        return Service(
            program=Program(
                name,
                (sys.executable, "-I", "-S", "-c", code, str(port or name)),
                {},
                home.path,
                stop_seconds=5,
            ),
            address=f"http://{LOOPBACK}:{port}" if port else "",
            probe=make_http_probe(port, "/ready") if port else None,
            stage=stage,
            after=after,
            before=lambda: self.prepared.append(f"before {name}"),
            then=lambda: self.prepared.append(f"then {name}"),
        )


@pytest.fixture
def bench(home: Home) -> Bench:
    return Bench(home)


def test_up_brings_everything_up_in_order(bench: Bench) -> None:
    statuses = bench.up()
    assert [status.name for status in statuses] == ["first", "second", "silent"]
    assert all(status.ready and status.state == State.RUNNING for status in statuses[:2])
    assert [line.split()[0] for line in bench.lines] == ["first", "second", "silent"]
    assert bench.prepared.index("then first") < bench.prepared.index("before second")
    for status in statuses:
        assert status.pid is not None
        assert status.uptime_seconds is not None
        assert status.log.is_file()


def test_up_again_changes_nothing(bench: Bench) -> None:
    before = bench.up()
    bench.lines.clear()
    assert [status.pid for status in bench.up()] == [status.pid for status in before]
    assert bench.lines == []


def test_down_leaves_no_process_and_no_port(bench: Bench) -> None:
    bench.up()
    assert find_leftovers(bench.home.state.id)
    bench.down()
    assert not find_leftovers(bench.home.state.id)
    assert not any(is_port_open(port) for _, port in bench.home.state.ports)
    stops = [line for line in bench.lines if line.startswith("stopped")]
    assert stops == ["stopped silent", "stopped second", "stopped first"]
    assert [status.state for status in bench.platform.status()] == [State.STOPPED] * 3
    bench.down()


def test_down_ends_what_the_platform_did_not_start_itself(bench: Bench) -> None:
    bench.up()
    Supervisor(bench.home).start(
        Program("model-a", (sys.executable, "-c", "import time; time.sleep(600)"), {}, bench.home.path)
    )
    models = [status for status in bench.platform.status() if status.kind == "model"]
    assert [(status.name, status.ready) for status in models] == [("model-a", True)]
    bench.down()
    assert "stopped model-a" in bench.lines
    assert bench.lines.index("stopped second") < bench.lines.index("stopped model-a")
    assert bench.lines.index("stopped model-a") < bench.lines.index("stopped first")


def test_up_after_everything_was_killed(bench: Bench) -> None:
    ports = bench.home.state.ports
    before = bench.up()
    for process in find_leftovers(bench.home.state.id):  # supervisord is one of them
        process.kill()
    after = bench.up()
    assert all(status.ready for status in after)
    assert not {status.pid for status in after} & {status.pid for status in before}
    assert Home.open(bench.home.path).state.ports == ports


def test_up_after_supervisord_alone_was_killed(bench: Bench, wait: Wait) -> None:
    bench.up()
    own = Supervisor(bench.home).pid
    assert own is not None
    os.kill(own, signal.SIGKILL)
    assert all(status.ready for status in bench.up())
    assert any("of an earlier start" in line for line in bench.lines)  # the servers' children


def test_down_after_supervisord_was_killed(bench: Bench) -> None:
    bench.up()
    own = Supervisor(bench.home).pid
    assert own is not None
    os.kill(own, signal.SIGKILL)
    bench.down()
    assert not find_leftovers(bench.home.state.id)
    assert not any(is_port_open(port) for _, port in bench.home.state.ports)


def test_a_service_that_does_not_come_up_quotes_its_log(bench: Bench) -> None:
    bench.broken = {"second"}
    with pytest.raises(StartError) as caught:
        bench.up()
    message = str(caught.value)
    assert message.startswith("second ends as soon as it is started")
    assert f"the disk of {bench.home.state.ports.runs} is full" in message
    assert str(bench.home.log_file("second")) in message
    states = {status.name: status for status in bench.platform.status()}
    assert states["first"].ready
    assert not states["second"].ready
    assert states["silent"].state == State.STOPPED


def test_up_goes_on_after_a_failure(bench: Bench) -> None:
    bench.broken = {"second"}
    with pytest.raises(StartError):
        bench.up()
    first = bench.platform.status()[0].pid
    bench.broken = set()
    statuses = bench.up()
    assert all(status.ready for status in statuses)
    assert statuses[0].pid == first


def test_a_service_that_answers_too_late_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedded.platform._START_SECONDS", 0.5)
    make = bench._make_services

    def make_deaf(home: Home, certificates: Certificates) -> list[Service]:
        first = make(home, certificates)[0]
        return [Service(first.program, first.address, probe=lambda: "too busy")]

    with pytest.raises(StartError, match=r"first is not ready after .* too busy"):
        Platform(bench.home, make_deaf).up(bench.lines.append)


def test_taken_ports_are_chosen_again_and_told_to_clients(bench: Bench) -> None:
    bench.up()
    bench.down()
    ports = bench.home.state.ports
    taken = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", SERVER.replace(CHILD, ""), str(ports.s3)],
        stdout=subprocess.PIPE,
    )
    try:
        assert taken.stdout is not None
        assert taken.stdout.readline() == b"serving\n"
        assert all(status.ready for status in bench.up())
    finally:
        taken.kill()
        taken.communicate()
    after = Home.open(bench.home.path)
    assert after.state.ports.s3 != ports.s3
    assert after.state.ports.runs == ports.runs
    assert f"TENURE_S3_URL='http://127.0.0.1:{after.state.ports.s3}'" in after.env_file.read_text()
    assert any(f"port {ports.s3} (s3) is taken" in line for line in bench.lines)


def test_two_platforms_run_side_by_side(bench: Bench, tmp_path: Path) -> None:
    other = Bench(Home.open(tmp_path / "other", create=True))
    try:
        bench.up()
        assert all(status.ready for status in other.up())
        bench.down()
        assert all(status.ready for status in other.platform.status())
    finally:
        other.down()


def test_only_one_up_or_down_at_a_time(bench: Bench) -> None:
    with bench.home.lock("platform"):
        for act in (bench.up, bench.down):
            with pytest.raises(EmbeddedError, match="another command"):
                act()
    assert not Supervisor(bench.home).is_running()


def test_of_several_ups_at_once_one_does_the_work(bench: Bench, at_once: Any) -> None:
    """They are told to wait, or find everything up; there is never a second process of anything."""

    def up() -> object:
        try:
            return [status.ready for status in bench.up()]
        except EmbeddedError as error:
            return str(error)

    outcomes = at_once([up] * 4)
    assert len(outcomes) == 4
    done = [outcome for outcome in outcomes if isinstance(outcome, list)]
    assert done
    assert all(all(ready) for ready in done)
    assert all("another command" in str(told) for told in outcomes if told not in done)
    starts = sorted(line.split()[0] for line in bench.lines)
    assert starts == ["first", "second", "silent"]
    assert all(status.ready and status.restarts == 0 for status in bench.platform.status())
    masters = [
        process
        for process in find_leftovers(bench.home.state.id)
        if "supervisor.supervisord" in process.cmdline()
    ]
    assert len(masters) == 1


def test_status_names_the_problem(bench: Bench, wait: Wait) -> None:
    bench.up()
    pid = bench.platform.status()[0].pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # it lives, but does not answer
    try:
        first = bench.platform.status()[0]
        assert not first.ready
        assert first.problem is not None
        assert "no answer at port" in first.problem
    finally:
        os.kill(pid, signal.SIGCONT)


def test_interrupting_up_ends_its_threads(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    monkeypatch.setattr("embedded.platform.wait", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.up()
    assert threading.active_count() == before
