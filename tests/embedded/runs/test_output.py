from __future__ import annotations

from embedded.runs.output import describe_failure, find_exception, read_tail

TRACE = """working
Traceback (most recent call last):
  File "a.py", line 1, in <module>
    int("x")
ValueError: first

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 3, in <module>
    raise tenure.errors.ProjectError("two\\nlines")
tenure.errors.ProjectError: two
lines
"""


def test_the_last_exception_is_quoted_with_its_lines(tmp_path):
    log = tmp_path / "log"
    log.write_text(TRACE)
    assert describe_failure(log, 1) == "tenure.errors.ProjectError: two\nlines"


def test_a_long_message_keeps_its_end(tmp_path):
    log = tmp_path / "log"
    message = f"builtins.ValueError: {'x' * 1500} and that is why"
    log.write_text(f"Traceback (most recent call last):\n  File\n{message}\n")
    assert describe_failure(log, 1) == message


def test_without_a_traceback_the_end_is_quoted(tmp_path):
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(50)))
    text = describe_failure(log, 3)
    assert text.startswith("the process ended with exit code 3; its last lines:\n  line 42\n")
    assert text.endswith("line 49")


def test_signals_have_names(tmp_path):
    assert "SIGKILL (someone killed it" in describe_failure(tmp_path / "none", 137)
    assert "ended by SIGTERM, without any output" in describe_failure(tmp_path / "none", -15)
    assert "exit code 255" in describe_failure(tmp_path / "none", 255)


def test_odd_bytes_and_long_logs_are_read(tmp_path):
    log = tmp_path / "log"
    log.write_bytes(b"\xff\xfe" * 100_000 + b"\nlast\n\n")
    assert read_tail(log)[-1] == "last"
    assert find_exception(["Traceback (most recent call last):"]) is None
