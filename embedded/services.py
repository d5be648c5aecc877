"""The services of the platform: how each is started, when it is ready, where it answers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from embedded.access import BUCKET, make_variables
from embedded.certificates import Certificates
from embedded.gateway import Gateway
from embedded.home import HOME_VARIABLE, Home
from embedded.ports import LOOPBACK
from embedded.probes import Probe, make_http_probe
from embedded.program import Program
from embedded.storage import make_store, write_identities
from embedded.tracking import HEALTH_PATH, make_tracking

CHECKOUT = Path(__file__).resolve().parent.parent
DETECTOR_PYTHON = "TENURE_DETECTOR_PYTHON"
"""Variable: the Python that runs the detector, which has an environment of its own."""


@dataclass(frozen=True)
class Service:
    """A program of the platform and how to know that it works.

    Attributes:
        program: What runs.
        address: Where it answers; empty if nowhere.
        probe: Whether it is ready; without one it is as soon as it has lived for a second.
        after: Services that must be ready before it is started.
        stage: Services of a lower stage are stopped first.
        before: Called before it is started, for files that it reads.
        then: Called after it became ready; must be safe to repeat.
    """

    program: Program
    address: str
    probe: Probe | None
    after: tuple[str, ...] = ()
    stage: int = 0
    before: Callable[[], None] | None = None
    then: Callable[[], None] | None = None

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name


# Model servers, which the reconciler starts, are stopped after it and before what they stand on.
MODEL_STAGE = 3


def make_services(home: Home, certificates: Certificates) -> list[Service]:
    """Return the services in the order of their start: what takes longest first."""
    ports = home.state.ports
    gateway = Gateway.for_home(home)
    return [
        Service(
            program=make_tracking(home),
            address=f"http://{LOOPBACK}:{ports.tracking}",
            probe=make_http_probe(ports.tracking, HEALTH_PATH),
            stage=5,
        ),
        Service(
            program=make_store(home, certificates),
            address=f"http://{LOOPBACK}:{ports.s3}",
            probe=make_http_probe(ports.s3, "/healthz"),
            stage=5,
            before=lambda: write_identities(home, BUCKET),
            then=lambda: ensure_bucket(home),
        ),
        Service(
            program=_make_module(home, "runs", "embedded.runs", stop_seconds=20),
            address=f"http://{LOOPBACK}:{ports.runs}",
            probe=make_http_probe(
                ports.runs, "/apis/v2beta1/healthz", token=home.secrets.runs_token.get_secret_value()
            ),
            stage=1,
        ),
        Service(
            program=_make_module(home, "kubernetes", "embedded.kubernetes", stop_seconds=15),
            address=f"https://{LOOPBACK}:{ports.api}",
            probe=make_http_probe(ports.api, "/readyz", authority=certificates.ca),
            stage=2,
        ),
        Service(
            program=Program(
                name="gateway",
                command=gateway.command(),
                environment={},
                directory=home.envoy_dir,
                stop_seconds=2,
            ),
            address=f"http://{LOOPBACK}:{ports.gateway}",
            probe=make_http_probe(ports.envoy_admin, "/ready"),
            stage=4,
            before=gateway.prepare,
        ),
        Service(
            program=_make_module(
                home,
                "pilot",
                "serving.pilot",
                stop_seconds=10,
                environment={"TENURE_PILOT_HOST": LOOPBACK, "TENURE_PILOT_PORT": str(ports.pilot)},
            ),
            address=f"http://{LOOPBACK}:{ports.pilot}",
            probe=make_http_probe(ports.pilot, "/readyz"),
            after=("kubernetes",),
            stage=0,
        ),
        make_detector(home),
        Service(
            program=_make_module(
                home,
                "console",
                "console.web",
                stop_seconds=10,
                environment={"TENURE_CONSOLE_HOST": LOOPBACK, "TENURE_CONSOLE_PORT": str(ports.console)},
            ),
            address=f"http://{LOOPBACK}:{ports.console}",
            probe=make_http_probe(ports.console, "/readyz"),
            after=("kubernetes",),
            stage=0,
        ),
    ]


def make_detector(home: Home) -> Service:
    """Return the sink of events; stopped after the model servers, which send it their last ones."""
    port = home.state.ports.detector
    program = _make_module(
        home,
        "detector",
        "serving.detector",
        stop_seconds=20,
        python=find_detector_python(os.environ),
        environment={"TENURE_DETECTOR_HOST": LOOPBACK, "TENURE_DETECTOR_PORT": str(port)},
    )
    probe = make_http_probe(port, "/readyz")
    return Service(program=program, address=f"http://{LOOPBACK}:{port}", probe=probe, stage=4)


def find_detector_python(environment: Mapping[str, str]) -> str:
    """Return the Python of the detector: the one that is asked for, that of alibi-detect's environment, ours.

    In ours alibi-detect is missing, and the detector uses its own tests of drift.
    """
    asked_for = environment.get(DETECTOR_PYTHON)
    if asked_for:
        return asked_for
    own = CHECKOUT / ".venv-detector" / "bin" / "python"
    return str(own) if own.is_file() else sys.executable


def ensure_bucket(home: Home) -> None:
    """Create the bucket of snapshots and bundles, unless it exists."""
    # Here, not at the top: `status` and `down` do not need it.
    from minio import Minio

    client = Minio(
        f"{LOOPBACK}:{home.state.ports.s3}",
        access_key=home.secrets.s3_access_key.get_secret_value(),
        secret_key=home.secrets.s3_secret_key.get_secret_value(),
        secure=False,
    )
    if not client.bucket_exists(BUCKET):
        client.make_bucket(BUCKET)


def _make_module(
    home: Home,
    name: str,
    module: str,
    stop_seconds: int,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> Program:
    return Program(
        name=name,
        command=(python, "-m", module),
        environment={
            **make_variables(home),
            **(environment or {}),
            HOME_VARIABLE: str(home.path),
            "TENURE_ENV_FILE": str(home.env_file),
            "PYTHONUNBUFFERED": "1",
        },
        directory=CHECKOUT,
        stop_seconds=stop_seconds,
    )
