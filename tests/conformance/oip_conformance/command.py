"""`oip-conformance URL`: check a server, or send it generated requests."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from oip_conformance.checks import list_checks
from oip_conformance.errors import KitError, UsageError
from oip_conformance.fuzzing import fuzz, render_tally, tally_to_json
from oip_conformance.runner import run_checks
from oip_conformance.scorecard import Scorecard, render_markdown, render_text, write_json
from oip_conformance.session import open_session
from oip_conformance.target import SECONDS, Target

DONE, BROKEN, USAGE = 0, 1, 2
Print = Callable[[str], None]


def check_server(
    target: Target,
    say: Print,
    *,
    json_file: Path | None = None,
    markdown_file: Path | None = None,
    every: bool = False,
) -> int:
    """Check a server, say the scorecard, and return the exit code.

    Raises:
        UsageError: There is no server, no one model or no good request; or a file cannot be written.
    """
    with open_session(target) as session:
        card = Scorecard.collect(session, run_checks(session, list_checks()))
    say(render_text(card, every))
    for file, render in ((json_file, write_json), (markdown_file, render_markdown)):
        if file is not None:
            _write(file, render(card))
    return DONE if card.ok else BROKEN


def fuzz_server(target: Target, say: Print, *, count: int, seed: int, json_file: Path | None = None) -> int:
    """Send generated requests, say what came of them, and return the exit code; raises as `check_server`."""
    with open_session(target) as session:
        tally = fuzz(session, count, seed)
    say(render_tally(tally))
    if json_file is not None:
        _write(json_file, json.dumps(tally_to_json(tally), indent=1) + "\n")
    return DONE if tally.ok else BROKEN


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: cannot be written: {error.strerror}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: 0 every binding rule is kept, 1 one is broken, 2 wrong usage."""
    parser = argparse.ArgumentParser(
        prog="oip-conformance",
        description="Check a server against the Open Inference Protocol, and against malformed requests.",
        epilog="Exit codes: 0 every binding rule is kept; 1 one is broken; 2 wrong usage.",
    )
    parser.add_argument("url", help="address of REST, e.g. http://127.0.0.1:8080")
    parser.add_argument("--grpc", default="", metavar="HOST:PORT", help="address of gRPC")
    parser.add_argument("--model", default="", metavar="NAME", help="the model, if the server has several")
    parser.add_argument(
        "--example", type=Path, metavar="FILE", help="a good V2 request, as JSON without null"
    )
    parser.add_argument(
        "--timeout", type=float, default=SECONDS, metavar="SECONDS", help="most time for a request"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the scorecard as JSON")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the scorecard as Markdown")
    parser.add_argument("--all", action="store_true", help="say every check, not only those that failed")
    parser.add_argument("--fuzz", type=int, default=0, metavar="N", help="send N generated requests instead")
    parser.add_argument("--seed", type=int, default=1, help="with --fuzz: the same seed, the same requests")
    given = parser.parse_args(arguments)
    if not given.timeout > 0:
        parser.error("--timeout: expected a number of seconds above 0")
    target = Target(given.url, given.grpc, given.model, given.example, given.timeout)
    try:
        if given.fuzz > 0:
            return fuzz_server(target, _say, count=given.fuzz, seed=given.seed, json_file=given.json)
        return check_server(target, _say, json_file=given.json, markdown_file=given.markdown, every=given.all)
    except KitError as error:
        sys.stderr.write(f"oip-conformance: {error}\n")
        return USAGE


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
