"""The runs API while the machine's clock jumps: by libfaketime, for a test must not set the real one."""

from __future__ import annotations

import glob
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

LIBRARY = "/usr/lib/*/faketime/libfaketimeMT.so.1"


@pytest.fixture
def set_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Set the clock of the programs that are started from now on, while they run: `+2d`, `-1h`."""
    found = sorted(glob.glob(LIBRARY))  # noqa: PTH207 - a pattern of absolute paths
    if not found:
        pytest.skip("libfaketime is not installed: apt-get install libfaketime")
    file = tmp_path / "clock"
    changes = {
        "LD_PRELOAD": found[0],
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        # What measures spans is not set with the clock.
        "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        # Files keep their own times, and so do processes.
        "NO_FAKE_STAT": "1",
    }
    for name, value in changes.items():
        monkeypatch.setenv(name, value)

    def set_clock(offset: str) -> None:
        new = file.with_suffix(".new")
        new.write_text(offset)
        new.replace(file)

    set_clock("+0s")
    return set_clock


@pytest.mark.parametrize(("first", "second"), [("+400d", "-400d"), ("-400d", "+400d")])
def test_a_run_survives_a_clock_that_jumps(
    make_server, packages, folder, read_pids, set_clock, first: str, second: str
):
    server = make_server()
    run_id = server.submit(packages["waiting"], {"folder": str(folder)})
    read_pids()
    set_clock(first)
    after = server.submit(packages["branch"])
    years = {server.get(one)["created_at"][:4] for one in (run_id, after)}
    assert len(years) == 2, "the server sees the clock that was set"
    assert server.get(run_id)["state"] == "RUNNING"
    # The next server tells processes apart by when they began: that must not depend on the clock.
    server.end(signal.SIGKILL)
    server = make_server()
    assert server.get(run_id)["state"] == "RUNNING"
    set_clock(second)
    (folder / "go").touch()
    run = server.wait(run_id)
    assert run["state"] == "SUCCEEDED", run["error"]["message"]
    assert server.wait(after)["state"] == "SUCCEEDED"
    assert {run["run_id"] for run in server.http.get("/apis/v2beta1/runs").json()["runs"]} == {run_id, after}
