"""The MLflow server, in one process: `python -m embedded.tracking` (home by `TENURE_HOME`).

`mlflow server` imports MLflow twice (in itself, and in the uvicorn that it starts): that makes the platform's
slowest start twice as slow, and leaves uvicorn behind when its parent is killed. So this does the same in one
process: settings by the same variables, the database brought up to date, then uvicorn.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import warnings

from embedded.home import HOME_VARIABLE, Home
from embedded.ports import LOOPBACK
from embedded.program import Program


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
        app,
        host=LOOPBACK,
        port=home.state.ports.tracking,
        access_log=False,
        timeout_graceful_shutdown=3,
    )


def _relax_syncs(connection: sqlite3.Connection, _: object) -> None:
    """Let SQLite sync its file once in a while instead of at every commit.

    With a write-ahead log this can lose the last commits in a power cut, but never damage the database. It
    takes two thirds off the first start (60 migrations), and off every metric that is logged.
    """
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


if __name__ == "__main__":
    main()
