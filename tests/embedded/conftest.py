"""Homes, supervisors and small programs for the tests of the laptop platform."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedded.home import Home
from embedded.leftovers import end_leftovers
from embedded.program import Program
from embedded.supervisor import Supervisor

SLEEPER = "import time; time.sleep(600)"


def wait_until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Return as soon as `condition` holds; fail if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        pause.wait(0.02)


@pytest.fixture
def wait() -> Callable[..., None]:
    return wait_until


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home.open(tmp_path / "home", create=True)
    mark = home.state.id
    yield home
    end_leftovers(mark, grace_seconds=0)


@pytest.fixture
def supervisor(home: Home) -> Supervisor:
    supervisor = Supervisor(home)
    supervisor.launch()
    return supervisor


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., Program]:
    """Make a program out of a few lines of Python."""

    def make(name: str = "sleeper", code: str = SLEEPER, *arguments: str, **options: object) -> Program:
        values = {"environment": {}, "directory": tmp_path, "stop_seconds": 5, **options}
        return Program(name=name, command=(sys.executable, "-I", "-S", "-c", code, *arguments), **values)

    return make
