"""The proof that a variant serves a bundle: through the gateway it answers known rows as the bundle does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clients import names
from clients.errors import IntegrityError, NotFoundError, RefusedError, UnreachableError
from clients.inference import InferenceClient
from clients.services import Collection
from clients.settings import Settings
from components.variant import read_readiness
from tenure.bundle import Bundle
from tenure.canary import Rollout

TOLERANCE = 1e-6
"""By how much an answer may differ from the bundle's own, in probability."""

BLOCKED_SECONDS = 20.0
"""How long a model may be reported as failing to load before nobody waits for it any longer."""

_INTERVAL = 0.25


@dataclass(frozen=True)
class Proof:
    """How a variant answered: number of rows, the largest difference, seconds until it did."""

    rows: int
    difference: float
    seconds: float


class Deadline:
    """One bound for all waits of a roll-out."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start = time.monotonic()

    @property
    def passed(self) -> float:
        """Seconds since the roll-out began to wait."""
        return time.monotonic() - self._start

    def wait(self, what: str, look: Callable[[], str | None]) -> None:
        """Call `look` until it returns None; it returns what is still missing.

        Raises:
            UnreachableError: Time was up; the text has what was missing last.
        """
        while (missing := look()) is not None:
            if self.passed > self.seconds:
                raise UnreachableError(
                    f"{what}: not after {self.seconds:g} s (rollout.ready_timeout_seconds); "
                    f"last seen: {missing}"
                )
            time.sleep(_INTERVAL)


def prove(
    services: Collection,
    settings: Settings,
    rollout: Rollout,
    bundle: Bundle,
    variant: str,
    deadline: Deadline,
) -> Proof:
    """Wait until the variant is ready and answers; compare its answers with the bundle's own.

    Args:
        services: The InferenceServices.
        settings: Where the gateway is.
        rollout: Which service.
        bundle: What must answer.
        variant: Predictor name of a canary, or the stable predictor's name.
        deadline: Bounds the whole.

    Raises:
        NotFoundError: The service, or the canary's entry, is gone.
        UnreachableError: Not ready, or no answer of this version, when time was up.
        RefusedError: The model was reported as failing to load for `BLOCKED_SECONDS` on end.
        IntegrityError: This version answers otherwise than the bundle.
    """
    blocked_since: float | None = None

    def look() -> str | None:
        nonlocal blocked_since
        try:
            service = services.get(rollout.service)
        except UnreachableError as error:
            return str(error)
        canary = _identify(service, variant, bundle.digest)
        readiness = read_readiness(service, canary)
        if readiness.ready:
            return None
        if not readiness.blocked:
            blocked_since = None
        elif blocked_since is None:
            blocked_since = time.monotonic()
        elif time.monotonic() - blocked_since >= BLOCKED_SECONDS:
            raise RefusedError(f"{rollout.service}: variant {variant} cannot be loaded: {readiness.text}")
        return readiness.text

    deadline.wait(f"{rollout.service}: waiting for variant {variant} to be ready", look)
    host = names.hostname(rollout.service, services.namespace, settings.ingress_domain)
    replicas = rollout.replicas if variant == names.STABLE else rollout.canary_replicas
    differences: list[float] = []
    with InferenceClient(settings.gateway_url, host, timeout=5.0) as client:

        def ask() -> str | None:
            try:
                differences.append(_compare(client, rollout.service, bundle, variant))
            except (UnreachableError, NotFoundError, RefusedError) as error:
                return str(error)
            return None

        # More than one server: ask several times, for the gateway spreads the requests over them.
        for _ in range(1 if replicas == 1 else 3 * replicas):
            deadline.wait(f"{rollout.service}: waiting for variant {variant} to answer", ask)
    return Proof(len(bundle.probe()), max(differences), deadline.passed)


def _identify(service: dict[str, Any], variant: str, digest: str) -> str | None:
    """Return the canary's name, or None when the variant is the stable one by now.

    Raises:
        NotFoundError: Neither; somebody took it away.
    """
    for entry in service["spec"].get("canary") or ():
        if entry["predictor"]["name"] == variant:
            return variant
    stable = service["spec"]["predictor"]
    if names.stable_name(service) == variant and digest in stable.get("model", {}).get("storageUri", ""):
        return None
    raise NotFoundError(
        f"{service['metadata']['name']}: variant {variant} is not there any more: somebody took it away or "
        "replaced it while the roll-out waited for it"
    )


def _compare(client: InferenceClient, service: str, bundle: Bundle, variant: str) -> float:
    """Ask for the bundle's known rows once and return the largest difference.

    Raises:
        RefusedError: Another version answered.
        IntegrityError: The right version answered with other numbers.
        ClientError: As `InferenceClient.predict`.
    """
    answer = client.predict(service, bundle.probe(), bundle.contract, variant=variant)
    if answer.version != bundle.version:
        raise RefusedError(f"asked for variant {variant}, version {answer.version!r} answered")
    expected = bundle.probe_scores()
    difference = max(abs(a - b) for a, b in zip(answer.probabilities, expected, strict=True))
    wrong = difference > TOLERANCE or difference != difference
    for own, theirs in zip(expected, answer.churn, strict=True):
        wrong |= abs(own - bundle.threshold) > TOLERANCE and (own >= bundle.threshold) != theirs
    if wrong:
        raise IntegrityError(
            f"{service}: variant {variant} answers the bundle's known rows differently (by up to "
            f"{difference:g}, allowed is {TOLERANCE:g}): its model server does not compute what was trained"
        )
    return difference
