"""The platform's own command line: `python -m embedded up|down|status|logs|env`.

Exit codes: 0 done (`status`: every service runs), 1 failed, 2 wrong usage, 3 (`status`) not everything runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

from embedded.access import read_env_file
from embedded.errors import EmbeddedError
from embedded.home import HOME_VARIABLE, Home
from embedded.logs import find_log, follow, read_tail

_FAILED = 1
_NOT_ALL_RUNNING = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command; return the exit code."""
    options = _make_parser().parse_args(arguments)
    try:
        code: int = options.carry_out(options)
    except EmbeddedError as error:
        _tell(f"error: {error}")
        return _FAILED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing is left to say
        return 0
    except OSError as error:
        _tell(f"error: {error}; nothing is half written: remove the cause and try again")
        return _FAILED
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    return code


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m embedded",
        description=f"The laptop platform. Its state is in .tenure/, or where {HOME_VARIABLE} says.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="start every service and wait until all are ready")
    up.set_defaults(carry_out=_up)

    down = commands.add_parser("down", help="stop everything; data stays")
    down.set_defaults(carry_out=_down)

    status = commands.add_parser("status", help="show every service; exit code 3 unless all run")
    status.add_argument("--json", action="store_true", help="for machines")
    status.set_defaults(carry_out=_status)

    logs = commands.add_parser("logs", help="show a service's log")
    logs.add_argument("name", metavar="NAME", help="a service or model server, as `status` lists them")
    logs.add_argument("-f", "--follow", action="store_true", help="go on showing what is added")
    logs.add_argument("-n", "--lines", type=int, default=100, help="how many lines of the end (100)")
    logs.set_defaults(carry_out=_logs)

    env = commands.add_parser("env", help='settings for a shell: eval "$(python -m embedded env)"')
    env.set_defaults(carry_out=_env)
    return parser


def _up(options: argparse.Namespace) -> int:
    from embedded.platform import open_platform

    started = time.monotonic()
    statuses = open_platform(create=True).up(_tell)
    for status in statuses:
        if not status.ready:
            _tell(f"{status.name}: {status.problem}; see `tenure logs {status.name}`")
    _tell(f"the platform is up ({time.monotonic() - started:.1f} s)")
    return 0


def _down(options: argparse.Namespace) -> int:
    from embedded.platform import open_platform

    if not (Home.locate() / "platform.json").is_file():
        _tell(f"there is no platform at {Home.locate()}")
        return 0
    # Whatever is missing in the files of an older version is added first, so that it can be stopped.
    open_platform(create=True).down(_tell)
    _tell("the platform is down")
    return 0


def _status(options: argparse.Namespace) -> int:
    from embedded.platform import open_platform

    statuses = open_platform().status()
    if options.json:
        rows = [
            {
                **asdict(status),
                "started_at": status.started_at.isoformat() if status.started_at else None,
                "uptime_seconds": status.uptime_seconds,
                "log": str(status.log),
            }
            for status in statuses
        ]
        _write(json.dumps({"services": rows}, indent=2))
    else:
        width = max(len(status.name) for status in statuses)
        for status in statuses:
            age = "" if status.uptime_seconds is None else _format_age(status.uptime_seconds)
            note = status.address or str(status.log) if status.ready else status.problem
            _write(f"{status.name:<{width}}  {status.state:<9} {status.pid or '-':>8} {age:>11}  {note}")
    return 0 if all(status.ready for status in statuses) else _NOT_ALL_RUNNING


def _format_age(seconds: float) -> str:
    """Return an age in its two largest units: `12 s`, `3 min 20 s`, `2 h 5 min`, `4 d 1 h`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _logs(options: argparse.Namespace) -> int:
    file = find_log(Home.open(), options.name)
    for line in read_tail(file, options.lines):
        _write(line)
    if options.follow:
        for text in follow(file):
            sys.stdout.write(text)
            sys.stdout.flush()
    return 0


def _env(options: argparse.Namespace) -> int:
    for name, value in read_env_file(Home.open()).items():
        _write(f"export {name}={shlex.quote(value)}")
    return 0


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
