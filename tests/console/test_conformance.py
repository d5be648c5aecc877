"""`tenure conformance`: the kit's verdicts become exit codes, its errors messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import GOOD, NAME
from tiny_server import Mode, run_tiny


@pytest.fixture
def example(tmp_path: Path) -> Path:
    file = tmp_path / "example.json"
    file.write_bytes(GOOD)
    return file


def ask(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "console.main", "conformance", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_server_that_keeps_the_protocol_is_told_so(example: Path, tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    with run_tiny(Mode.RIGHT) as server:
        flags = ["--grpc", server.address, "--model", NAME, "--markdown", card]
        done = ask(server.url, "--example", example, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "every binding rule is kept" in done.stdout
    assert card.read_text().startswith("### tiny 0")


def test_a_broken_rule_is_exit_code_1(example: Path) -> None:
    with run_tiny(Mode.ACCEPTS) as server:
        done = ask(server.url, "--model", NAME, "--example", example)
    assert done.returncode == 1, done.stderr
    assert "[OIP REST: Request Input: shape]" in done.stdout


def test_generated_requests_that_are_answered_wrongly_are_exit_code_1(example: Path) -> None:
    with run_tiny(Mode.ACCEPTS) as server:
        done = ask(server.url, "--model", NAME, "--example", example, "--fuzz", 20, "--seed", 2)
    assert done.returncode == 1, done.stderr
    assert "20 requests of seed 2" in done.stdout


def test_without_a_server_it_says_so() -> None:
    done = ask("http://127.0.0.1:1")
    assert done.returncode == 2
    assert "is the server there?" in done.stderr
