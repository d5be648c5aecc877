"""`python -m embedded.runs`: the server, on loopback, for the platform that `TENURE_HOME` names."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Mapping

import uvicorn
from dotenv import dotenv_values

from embedded.errors import EmbeddedError, StorageError
from embedded.home import Home
from embedded.ports import LOOPBACK
from embedded.runs.api import make_app
from embedded.runs.queue import RunQueue
from embedded.runs.storage import Storage

# Followed logs are cut off after this; the run that goes on then has the rest of the supervisor's 10 s.
_SHUTDOWN_SECONDS = 1
_GRACE_SECONDS = 4.0


def main() -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        0 after an orderly stop; 1 when the server did not start or its queue failed; 2 when there is no
        platform, or another server is at work on it.
    """
    try:
        home = Home.open()
    except EmbeddedError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    try:
        # Two queues over one home would start all twice; the port is taken too late to prevent it.
        with home.lock("runs", wait=False):
            return serve(home)
    except StorageError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except EmbeddedError as error:
        sys.stderr.write(f"another server of pipeline runs is at work on {home.path} ({error})\n")
        return 2


def serve(home: Home) -> int:
    """Serve one home until SIGTERM or SIGINT; return the exit code."""
    home.runs_dir.mkdir(mode=0o700, exist_ok=True)
    os.umask(0o077)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s:     %(message)s")
    storage = Storage(home.runs_dir / "runs.db")
    queue = RunQueue(storage, home.runs_dir, lambda: read_environment(home), _GRACE_SECONDS)
    config = uvicorn.Config(
        make_app(storage, queue, home.secrets.runs_token),
        host=LOOPBACK,
        port=home.state.ports.runs,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = uvicorn.Server(config)
    # After its shutdown uvicorn raises the signal again, for the handler that was there before: an orderly
    # stop ends here, with the exit code 0, and not in the default handler.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        server.run()
    finally:
        storage.close()
    return 0 if server.started and not queue.failed else 1


def read_environment(home: Home) -> Mapping[str, str]:
    """Return the variables for runs: those of the platform's env file, as it is now."""
    values = dotenv_values(home.env_file, interpolate=False) if home.env_file.is_file() else {}
    return {
        **{name: value for name, value in values.items() if value is not None},
        "TENURE_ENV_FILE": str(home.env_file),
    }


if __name__ == "__main__":
    sys.exit(main())
