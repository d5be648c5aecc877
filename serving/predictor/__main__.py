"""`python -m serving.predictor`: load the bundle, serve it, drain on SIGTERM."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
import warnings

from prometheus_client import disable_created_metrics

from serving.predictor.errors import StartError
from serving.predictor.lazy import defer_imports
from serving.predictor.settings import Settings, parse_settings
from serving.predictor.workers import Keeper, Worker

_log = logging.getLogger("serving.predictor")


def _configure_logging() -> None:
    """One line at the start, then only what goes wrong, to standard error."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    _log.setLevel(logging.INFO)
    # kserve's own V1 route uses a response class that FastAPI would rather not have.
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what a client does wrong, the client is told
    # kserve configures its own chatty logging unless its logger has a handler.
    logging.getLogger("kserve").addHandler(logging.NullHandler())


def _serve(settings: Settings, worker: Worker | None = None) -> None:
    """Load and serve; the heavy imports come after the settings were found to be right."""
    started = time.perf_counter()
    gc.disable()  # imports make many objects and no garbage: a quarter of the start went into looking for it
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core logs what it raises as well

    from serving.predictor.engine import load_engine

    engine = load_engine(settings, None if worker is None else worker.counters)

    with defer_imports("kubernetes"):  # kserve imports its client, a fifth of the memory, for its own
        from serving.predictor.model import ChurnModel
        from serving.predictor.server import PredictorServer

    server, model = PredictorServer(settings), ChurnModel(settings.model_name, engine)
    gc.freeze()  # what lives as long as the process need not be looked at again
    gc.enable()

    def tell_ready() -> None:
        _log.info(
            "%s version %s is ready after %.2f s: REST on %s:%d, gRPC on %s:%d",
            settings.model_name,
            engine.version,
            time.perf_counter() - started,
            settings.http_host,
            settings.http_port,
            settings.grpc_host,
            settings.grpc_port,
        )

    server.start([model], tell_ready, worker)


def _work(settings: Settings, worker: Worker) -> int:
    """Serve as one of several workers; returns the exit code."""
    try:
        _serve(settings, worker)
    except StartError as error:
        print(f"predictor: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def main() -> int:
    """Run until SIGTERM or SIGINT; 1 if the server cannot start."""
    _configure_logging()
    disable_created_metrics()  # type: ignore[no-untyped-call]  # time stamps that nobody reads
    try:
        settings = parse_settings(sys.argv[1:], os.environ)
        if settings.workers > 1:
            return Keeper(settings, _work).run()
        _serve(settings)
    except StartError as error:
        print(f"predictor: {error}", file=sys.stderr)  # noqa: T201 - one line for whoever started it
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
