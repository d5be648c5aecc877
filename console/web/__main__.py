"""`python -m console.web`: serve the page until SIGTERM. Addresses come from the environment (`TENURE_*`)."""

from __future__ import annotations

import logging
import sys

import uvicorn
from prometheus_client import disable_created_metrics
from pydantic import ValidationError

from clients.errors import ClientError, SettingsError
from clients.kubeflow import is_local
from clients.settings import Settings, load_settings
from console.web.reading import Reader
from console.web.server import Sources, make_application
from console.web.settings import ConsoleSettings
from console.web.source import Metrics
from console.web.view import Links


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


def choose_links(own: ConsoleSettings, settings: Settings) -> Links:
    """Return the other pages; MLflow's is its own address where that is this machine's."""
    mlflow = own.mlflow_url or (settings.tracking_url if is_local(settings.tracking_url) else None)
    pages = (own.kubeflow_url, mlflow, own.grafana_url)
    return Links(*(str(page).rstrip("/") if page else None for page in pages))


def main() -> int:
    """Run until SIGTERM or SIGINT; 1 if it cannot start."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("tenure").setLevel(logging.INFO)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # time stamps that nobody reads
    try:
        own, settings = read_settings(), load_settings()
        reader = Reader(settings)
        application = make_application(
            Sources.connect(reader, Metrics()),
            reader,
            {"namespace": settings.namespace, "links": choose_links(own, settings)},
            own.hosts,
        )
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
