"""Start the pilot: `python -m serving.pilot`. The addresses come from the environment (`TENURE_*`)."""

from __future__ import annotations

import logging
import signal
from threading import Event

from clients.services import Services
from clients.settings import load_settings
from clients.tracking import Tracking
from serving.pilot.pilot import Pilot
from serving.pilot.registry import Recorder


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("tenure").setLevel(logging.INFO)
    settings = load_settings()
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    cluster = Services.connect(settings)
    recorder = Recorder(Tracking.connect(settings))
    pilot = Pilot(cluster.inference, cluster.routes, recorder, settings.ingress_domain)
    logging.getLogger("tenure.pilot").info("watching namespace %s", settings.namespace)
    pilot.run(stop)


if __name__ == "__main__":
    main()
