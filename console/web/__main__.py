"""`python -m console.web`: serve the page until SIGTERM. Addresses come from the environment (`TENURE_*`)."""

from __future__ import annotations

import logging
import sys

import uvicorn
from pydantic import ValidationError

from clients.errors import ClientError, SettingsError
from console.web.server import make_application
from console.web.settings import ConsoleSettings


def read_settings() -> ConsoleSettings:
    """Read the page's own settings.

    Raises:
        SettingsError: Naming each variable that is wrong.
    """
    try:
        return ConsoleSettings()
    except ValidationError as error:
        wrong = "; ".join(
            f"TENURE_CONSOLE_{'_'.join(map(str, problem['loc'][:1])).upper()}: {problem['msg']}"
            for problem in error.errors()
        )
        raise SettingsError(f"these settings are wrong: {wrong}") from error


def main() -> int:
    """Run until SIGTERM or SIGINT; 1 if it cannot start."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("tenure").setLevel(logging.INFO)
    try:
        own = read_settings()
        application = make_application(own)
    except ClientError as error:
        print(f"console: {error}", file=sys.stderr)  # noqa: T201 - one line for whoever started it
        return 1
    logging.getLogger("tenure.console").info("the page is served at http://%s:%d", own.host, own.port)
    uvicorn.run(
        application,
        host=own.host,
        port=own.port,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
