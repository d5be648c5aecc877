"""Start the pilot: `python -m serving.pilot`. The addresses come from the environment (`TENURE_*`)."""

from __future__ import annotations

import logging
import signal
from contextlib import ExitStack
from functools import partial
from threading import Event

from clients.announcement import Announcer
from clients.detector import Detector
from clients.notification import Notifier
from clients.services import Services
from clients.settings import Settings, load_settings
from clients.store import Store
from clients.tracking import Tracking
from serving.pilot.comparison import Ledger
from serving.pilot.evidence import Collector
from serving.pilot.gateway import Gateway
from serving.pilot.metrics import Metrics
from serving.pilot.navigator import Navigator
from serving.pilot.pilot import Pilot
from serving.pilot.registry import Recorder, Sink
from serving.pilot.scoring import Rescorer
from serving.pilot.server import Health, serve
from serving.pilot.settings import PilotSettings


def open_ledger(settings: Settings) -> Ledger:
    """Connect to the ledger, once a canary is to be judged by it: importing that much takes memory."""
    from clients.ledger.reader import Ledger as Reader

    return Reader.connect(settings)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("tenure").setLevel(logging.INFO)
    settings = load_settings()
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    cluster = Services.connect(settings)
    store, alarm, metrics, health = Store.connect(settings), Notifier.connect(settings), Metrics(), Health()
    recorder = Recorder(
        Tracking.connect(settings),
        Sink(Detector.connect(settings, timeout=10.0)) if settings.detector_url else None,
        Announcer(cluster.inference),
        alarm,
    )
    collector = Collector(partial(open_ledger, settings) if settings.ledger_url else None, Rescorer(store))
    gateway = Gateway(settings.gateway_stats_url, settings.namespace) if settings.gateway_stats_url else None
    navigator = Navigator(collector, gateway, store, metrics, alarm)
    pilot = Pilot(
        cluster.inference,
        cluster.routes,
        recorder,
        settings.ingress_domain,
        navigator=navigator,
        metrics=metrics,
        gateway=settings.gateway,
    )
    logger = logging.getLogger("tenure.pilot")
    if gateway is None:
        logger.warning("TENURE_GATEWAY_STATS_URL is not set: canaries are not judged by their errors")
    own = PilotSettings()
    with ExitStack() as stack:
        if own.port is not None:
            stack.enter_context(serve(own.host, own.port, health))
        logger.info("watching namespace %s", settings.namespace)
        pilot.run(stop, health=health)


if __name__ == "__main__":
    main()
