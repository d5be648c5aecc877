"""Become the program that a file describes, bound to the life of the process that started this one.

Run by path with `python -I -S launch.py SPEC.json`: it needs the standard library only, so that it costs a
few milliseconds. Nothing of the program but SPEC's path ever shows in supervisord's configuration.

SPEC: `{"command": [...], "environment": {...}, "directory": "...", "starts": "file", "parent": "pid file"}`.
"""

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends (Linux; elsewhere nothing).

    It survives `execve`, but a child of this process does not inherit it.

    Raises:
        OSError: The kernel refused.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def main() -> None:
    """Read the specification named on the command line and become its program."""
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123 - pathlib would double the start-up time
        spec = json.load(file)
    die_with_parent()
    # The parent may have died before the kernel was asked; then nobody would end this process.
    with open(spec["parent"], encoding="ascii") as file:  # noqa: PTH123
        if os.getppid() != int(file.read()):
            sys.exit("the supervisor died while it started this program")
    # One byte a start: appending is atomic, and the file's size is the count.
    starts = os.open(spec["starts"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(starts, b".")
    os.close(starts)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SUPERVISOR_")}
    environment.update(spec["environment"])
    try:
        os.chdir(spec["directory"])
        os.execvpe(spec["command"][0], spec["command"], environment)  # noqa: S606 - a list, no shell
    except OSError as error:
        sys.exit(f"cannot start {spec['command'][0]} in {spec['directory']}: {error}")


if __name__ == "__main__":
    main()
