"""How a step's failed attempt ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

from clients.errors import ConflictError, NotFoundError, RefusedError, SettingsError, UnreachableError
from components.attempt import FINAL, attempt
from tenure.errors import SourceError, TooManyBadRowsError


@pytest.mark.parametrize(
    "error", [SourceError, TooManyBadRowsError, SettingsError, RefusedError, NotFoundError]
)
def test_what_would_come_again_is_final(error: type[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught, attempt():
        raise error("no customers in there")
    assert caught.value.code == FINAL
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"{error.__name__}: no customers in there")


@pytest.mark.parametrize("error", [UnreachableError, ConflictError, OSError, MemoryError])
def test_what_may_pass_is_not(error: type[Exception]) -> None:
    with pytest.raises(error, match="later"), attempt():
        raise error("later")


def test_the_process_ends_with_the_code() -> None:
    program = (
        "from components.attempt import attempt\n"
        "from tenure.errors import SourceError\n"
        "with attempt():\n"
        "    raise SourceError('the file is empty')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == FINAL
    assert "Traceback (most recent call last):" in done.stderr
    assert done.stderr.splitlines()[-1] == "tenure.errors.SourceError: the file is empty"
