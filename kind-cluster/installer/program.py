"""Running other programs: argument lists, never a shell; secrets through standard input only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from installer.errors import ProgramError

_TAIL = 20


@dataclass(frozen=True)
class Result:
    """How a program ended."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        """Say whether it succeeded."""
        return self.code == 0


@dataclass(frozen=True)
class Programs:
    """Runs programs with one environment."""

    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)

    def find(self, name: str) -> str | None:
        """Return where a program is, or None."""
        return shutil.which(name, path=self.environment.get("PATH"))

    def run(
        self,
        arguments: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 120,
        directory: Path | None = None,
    ) -> Result:
        """Run a program to its end and return what it said; a failure is a result, not an exception.

        Raises:
            ProgramError: There is no such program, or it did not end in time.
        """
        try:
            done = subprocess.run(
                list(arguments),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                timeout=timeout,
                cwd=directory,
                env=dict(self.environment),
                check=False,
            )
        except FileNotFoundError as error:
            raise ProgramError(f"{arguments[0]}: there is no such program on the PATH") from error
        except subprocess.TimeoutExpired as error:
            raise ProgramError(f"{shorten(arguments)}: no end after {timeout:.0f} s") from error
        return Result(done.returncode, done.stdout, done.stderr)

    def need(
        self,
        arguments: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 120,
        directory: Path | None = None,
    ) -> str:
        """Run a program that must succeed, and return its output.

        Raises:
            ProgramError: With the last lines of what it complained of.
        """
        result = self.run(arguments, stdin=stdin, timeout=timeout, directory=directory)
        if not result.ok:
            raise ProgramError(
                f"{shorten(arguments)} failed (code {result.code}):\n{tail(result.err or result.out)}"
            )
        return result.out

    def record(
        self, arguments: Sequence[str], log: Path, *, timeout: float = 3600, directory: Path | None = None
    ) -> None:
        """Run a long program that must succeed, its output going to a file.

        Raises:
            ProgramError: With the last lines of the file, and its name.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as file:
            try:
                done = subprocess.run(
                    list(arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=timeout,
                    cwd=directory,
                    env=dict(self.environment),
                    check=False,
                )
            except FileNotFoundError as error:
                raise ProgramError(f"{arguments[0]}: there is no such program on the PATH") from error
            except subprocess.TimeoutExpired as error:
                raise ProgramError(
                    f"{shorten(arguments)}: no end after {timeout:.0f} s; see {log}"
                ) from error
        if done.returncode:
            raise ProgramError(
                f"{shorten(arguments)} failed (code {done.returncode}); all of it is in {log}:\n"
                f"{tail(log.read_text(errors='replace'))}"
            )


def shorten(arguments: Sequence[str], limit: int = 6) -> str:
    """Return a command as one would speak of it."""
    named = [Path(arguments[0]).name, *arguments[1:limit]]
    return " ".join([*named, "..."] if len(arguments) > limit else named)


def tail(text: str, lines: int = _TAIL) -> str:
    """Return the last lines, indented."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-lines:])
