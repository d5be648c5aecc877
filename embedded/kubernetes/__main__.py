"""`python -m embedded.kubernetes`: the API and its reconciler, until SIGTERM. Model servers outlive it."""

from __future__ import annotations

import logging
import os
import sys
import threading

from clients.settings import Settings
from embedded.certificates import ensure_certificates
from embedded.errors import EmbeddedError
from embedded.gateway import Gateway
from embedded.home import Home
from embedded.kubernetes.listener import Listener
from embedded.kubernetes.registry import Registry
from embedded.kubernetes.runtimes import load_runtimes
from embedded.kubernetes.server import make_app
from embedded.kubernetes.storage import Storage
from embedded.reconciler import Reconciler
from embedded.reconciler.models import ModelCache
from embedded.reconciler.router import Router
from embedded.supervisor import Supervisor

_LOG = logging.getLogger("embedded.kubernetes")


def serve(home: Home) -> int:
    """Serve a home's API until a signal; returns the exit code: 1 when a part of it broke.

    Raises:
        EmbeddedError: It cannot begin.
    """
    domain = os.environ.get("TENURE_INGRESS_DOMAIN") or Settings.model_fields["ingress_domain"].default
    storage = Storage(home.kubernetes_dir / "objects.db")
    registry = Registry(storage, load_runtimes())
    gateway = Gateway.for_home(home)
    router = Router(registry, gateway, domain)
    models = ModelCache.for_home(home)
    reconciler = Reconciler(home, registry, Supervisor(home), models, router, domain)
    app = make_app(registry, home.secrets.api_token.get_secret_value(), lambda: reconciler.problem)
    certificates = ensure_certificates(home)
    # The reconciler begins once the port is ours: no two of them ever work on one home.
    listener = Listener(app, home.state.ports.api, certificates.server, reconciler.start)
    broken = threading.Event()

    def end_all(details: threading.ExceptHookArgs) -> None:
        """A controller that broke takes the process along: a fresh one goes on from the storage."""
        name = details.thread.name if details.thread else "a thread"
        _LOG.critical(
            "%s broke",
            name,
            exc_info=(details.exc_type, details.exc_value or details.exc_type(), details.exc_traceback),
        )
        broken.set()
        listener.end()

    threading.excepthook = end_all
    listener.run()
    reconciler.end()
    gateway.close()
    storage.close()
    return 1 if broken.is_set() or not listener.started else 0


def main() -> None:
    """Run the command."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for noisy in ("httpx", "httpcore", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        code = serve(Home.open())
    except EmbeddedError as error:
        sys.exit(str(error))
    sys.exit(code)


if __name__ == "__main__":
    main()
