"""scripts/audit with the real tools, on a small tree; the source of advisories is a server of this test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ["tenure", "clients", "components", "pipelines", "serving", "embedded", "console", "kind-cluster"]
LOCKS = {
    "dev": ["numpy==2.4.6", "scipy==1.17.1", "colorama==0.4.6 ; sys_platform == 'win32'"],
    "detector": ["numpy==1.26.4", "alibi-detect==0.13.0"],
    "pilot": ["numpy==2.4.6"],
    "uv": ["uv==0.13.9"],
}
FAULT = {
    "id": "PYSEC-0000-1",
    "summary": "made up",
    "details": "made up",
    "published": "2026-01-01T00:00:00Z",
    "affected": [{"ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9999"}]}]}],
}


class Advisories(ThreadingHTTPServer):
    """OSV's query address: what is known of a package's version."""

    def __init__(self, faulty: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faulty = faulty
        self.asked: set[str] = set()


class _Handler(BaseHTTPRequestHandler):
    server: Advisories

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name = query["package"]["name"]
        self.server.asked.add(f"{name}=={query['version']}")
        package = {"package": {"name": name, "ecosystem": "PyPI"}}
        affected = [{**FAULT["affected"][0], **package}]
        known = {"vulns": [{**FAULT, "affected": affected}]} if name == self.server.faulty else {}
        body = json.dumps(known).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def advisories(request: pytest.FixtureRequest) -> Iterator[Advisories]:
    with Advisories(request.param) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with two lines of code in each room, and locks of which two contradict each other."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for room in ROOMS:
        (tmp_path / room).mkdir()
        (tmp_path / room / "code.py").write_text("assert True\nprint('fine')\n", encoding="utf-8")
    (tmp_path / "requirements").mkdir()
    for name, pins in LOCKS.items():
        lines = [f"{pin} \\\n    --hash=sha256:{'0' * 64}\n" for pin in pins]
        (tmp_path / "requirements" / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def audit(tree: Path, url: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "VENV": str(Path(sys.executable).parents[1]),
        "PIP_AUDIT_VULNERABILITY_SERVICE": "osv",
        "PIP_AUDIT_OSV_URL": url,
        "NO_PROXY": "127.0.0.1",
    }
    return subprocess.run(
        [tree / "scripts" / "audit"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@pytest.mark.parametrize("advisories", ["nobody"], indirect=True)
def test_every_package_of_every_lock_is_asked_for(tree: Path, advisories: Advisories) -> None:
    done = audit(tree, f"http://127.0.0.1:{advisories.server_port}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "audit: bandit: nothing found" in done.stdout
    assert "audit: pip-audit: nothing known against" in done.stdout
    assert advisories.asked == {
        "numpy==2.4.6", "numpy==1.26.4", "alibi-detect==0.13.0", "scipy==1.17.1", "uv==0.13.9",
    }  # fmt: skip
    assert "requirements/pilot.txt" not in done.stdout


@pytest.mark.parametrize("advisories", ["alibi-detect"], indirect=True)
def test_a_known_fault_fails(tree: Path, advisories: Advisories) -> None:
    done = audit(tree, f"http://127.0.0.1:{advisories.server_port}")
    assert done.returncode == 1
    assert "PYSEC-0000-1" in done.stdout
    assert "failed: requirements/detector.txt" in done.stderr
    assert "nothing known" not in done.stdout


def test_without_a_source_of_advisories_it_says_that_it_did_not_run(tree: Path) -> None:
    done = audit(tree, "http://127.0.0.1:9")
    assert done.returncode == 0
    assert "audit: pip-audit: NOT RUN" in done.stdout
    assert "nothing known" not in done.stdout


def test_a_fault_of_ours_fails(tree: Path) -> None:
    (tree / "tenure" / "code.py").write_text("import pickle\npickle.loads(b'')\n", encoding="utf-8")
    done = audit(tree, "http://127.0.0.1:9")
    assert done.returncode == 1
    assert "B301" in done.stdout
    assert "pip-audit" not in done.stdout
