from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from console.doctor import command
from console.doctor.finding import Section, bad, good, unknown, warn
from console.doctor.report import print_document, print_report
from console.doctor.signature import recognise
from console.main import app

SECTIONS = [
    Section("one", (good("a", "this is fine"), warn("b", "this is odd", "look at it"))),
    Section("two", (bad("c", "this is wrong", "do that"), unknown("d", "this could not be seen"))),
]


def test_a_report_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from console import display

    monkeypatch.setattr(display.out, "_file", sys.stdout)
    print_report(SECTIONS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["one", "---", "√ this is fine", "‼ this is odd"]
    assert "    look at it" in lines
    assert "× this is wrong" in lines
    assert "    do that" in lines
    assert lines[-1] == "1 thing is wrong."


def test_a_report_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    print_document("lab", SECTIONS)
    document = json.loads(capsys.readouterr().out)
    assert document["target"] == "lab"
    assert document["ok"] is False
    assert document["counts"] == {"good": 1, "warning": 1, "bad": 1, "unknown": 1}
    assert document["groups"][1]["findings"][0] == {
        "check": "c",
        "mark": "bad",
        "text": "this is wrong",
        "fix": "do that",
    }


@pytest.mark.parametrize(("sections", "code"), [(SECTIONS[:1], 0), (SECTIONS, 1)])
def test_the_exit_code_says_whether_something_is_wrong(
    monkeypatch: pytest.MonkeyPatch, sections: list[Section], code: int
) -> None:
    monkeypatch.delenv("TENURE_CONTEXT", raising=False)
    monkeypatch.setattr(command, "_examine_machine", lambda pre: sections)
    assert CliRunner().invoke(app, ["doctor"]).exit_code == code


def test_a_context_that_does_not_exist_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("{apiVersion: v1, kind: Config, clusters: [], users: [], contexts: []}")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.delenv("TENURE_CONTEXT", raising=False)
    answer = CliRunner().invoke(app, ["doctor", "--context", "nowhere"])
    assert answer.exit_code != 0
    assert "nowhere" in str(answer.exception)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("RuntimeError: S3 error [403]: Forbidden", "refuses this S3 key"),
        ("RuntimeError: S3 error [404]: Not Found", "bucket does not exist"),
        ("RuntimeError: Failed to fetch model. No model found in bundles/11.", "not in the object store"),
        (
            'User "system:serviceaccount:a:b" cannot create resource "runs" in API group "x"',
            "may not create runs",
        ),
        ('FATAL: password authentication failed for user "ledger"', "refuses the password"),
        ("could not connect to server: tenure-ledger-db:5432 Connection refused", "PostgreSQL"),
        ("socket.gaierror: [Errno -3] Temporary failure in name resolution", "cannot be resolved"),
        ("OSError: [Errno 30] Read-only file system: '/root/.cache'", "read-only file system"),
        ("everything is fine", ""),
    ],
)
def test_lines_that_give_a_cause_away(line: str, words: str) -> None:
    cause = recognise(f"starting\n{line}\n")
    assert (cause.text if cause else "") == words or (cause is not None and words in cause.text)
