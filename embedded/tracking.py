"""The MLflow server, in one process: `python -m embedded.tracking` (home by `TENURE_HOME`).

`mlflow server` imports MLflow twice (in itself, and in the uvicorn that it starts): that makes the platform's
slowest start twice as slow, and leaves uvicorn behind when its parent is killed. So this does the same in one
process: settings by the same variables, the database brought up to date, then uvicorn.
"""

from __future__ import annotations

import base64
import hmac
import os
import sqlite3
import sys
import warnings
from typing import TYPE_CHECKING

from pydantic import SecretStr

from embedded.access import TRACKING_USER
from embedded.home import HOME_VARIABLE, Home
from embedded.ports import LOOPBACK
from embedded.program import Program

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HEALTH_PATH = "/health"


def make_tracking(home: Home) -> Program:
    """Return the program of the MLflow server."""
    return Program(
        name="tracking",
        command=(sys.executable, "-m", "embedded.tracking"),
        environment={
            HOME_VARIABLE: str(home.path),
            "PYTHONUNBUFFERED": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its queue and four more processes
            "MLFLOW_ENABLE_AI_GATEWAY": "false",
        },
        directory=home.tracking_dir,
        stop_seconds=5,
    )


def main() -> None:
    """Serve until SIGTERM."""
    home = Home.open()
    store = f"sqlite:///{home.tracking_dir / 'mlflow.db'}"
    artifacts = home.tracking_dir / "artifacts"
    artifacts.mkdir(mode=0o700, exist_ok=True)
    # Imported here: `up` needs make_tracking without MLflow's seconds.
    from mlflow.server import constants

    root = "mlflow-artifacts:/"
    os.environ.update(
        {
            constants.BACKEND_STORE_URI_ENV_VAR: store,
            constants.REGISTRY_STORE_URI_ENV_VAR: store,
            constants.ARTIFACT_ROOT_ENV_VAR: root,
            constants.ARTIFACTS_DESTINATION_ENV_VAR: artifacts.as_uri(),
            constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        }
    )
    import uvicorn
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    event.listen(Engine, "connect", _relax_syncs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # MLflow's use of Starlette's WSGI bridge
        from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(store, store, root)
    uvicorn.run(
        Login(app, home.secrets.tracking_password),
        host=LOOPBACK,
        port=home.state.ports.tracking,
        access_log=False,
        timeout_graceful_shutdown=3,
    )


class Login:
    """ASGI middleware: HTTP Basic, as MLflow's clients and browsers speak it (RFC 7617).

    Who may write to the registry decides what code `load_model("models:/NAME@champion")` runs for its caller.
    MLflow's own login brings users, a form and a second database, for one user whose password is in a file.

    Args:
        app: What is guarded; only its health is for everybody.
        password: Of the user `tenure`.
    """

    def __init__(self, app: ASGIApp, password: SecretStr) -> None:
        self._app = app
        pair = f"{TRACKING_USER}:{password.get_secret_value()}"
        self._expected = base64.b64encode(pair.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or ask for the login."""
        if scope["type"] == "lifespan" or scope.get("path") == HEALTH_PATH or self._is_known(scope):
            await self._app(scope, receive, send)
            return
        # Here, not at the top, as everything else that `up` can do without.
        from starlette.responses import PlainTextResponse

        refusal = PlainTextResponse(
            "this MLflow asks for a login: MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the "
            "platform's env file\n",
            status_code=401,
            headers={"www-authenticate": 'Basic realm="MLflow", charset="UTF-8"'},
        )
        await refusal(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == b"authorization":
                scheme, _, credentials = value.partition(b" ")
                return scheme.lower() == b"basic" and hmac.compare_digest(credentials.strip(), self._expected)
        return False


def _relax_syncs(connection: sqlite3.Connection, _: object) -> None:
    """Let SQLite sync its file once in a while instead of at every commit.

    With a write-ahead log this can lose the last commits in a power cut, but never damage the database. It
    takes two thirds off the first start (60 migrations), and off every metric that is logged.
    """
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


if __name__ == "__main__":
    main()
