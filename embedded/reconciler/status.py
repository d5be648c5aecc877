"""The status of an InferenceService, in KServe's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from embedded.gateway import Endpoint
from embedded.kubernetes.objects import format_now
from embedded.ports import LOOPBACK
from embedded.reconciler.plan import Variant

Document = dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """Why a variant does not work, or did not: a CamelCase reason, a sentence, since when."""

    reason: str
    message: str
    time: str


@dataclass
class VariantState:
    """What is seen of a variant.

    Attributes:
        variant: What was asked for.
        ready: The endpoints of its ready processes, of the wanted revision.
        serving: The endpoints that requests are to go to: those above, or an older revision's meanwhile.
        routed: Whether the gateway has been told of them.
        alive: How many of its processes live.
        restarts: How often its processes were started again.
        failure: What is wrong at the moment.
        fetched: Whether its model is on this machine.
    """

    variant: Variant
    ready: tuple[Endpoint, ...] = ()
    serving: tuple[Endpoint, ...] = ()
    routed: bool = True
    alive: int = 0
    restarts: int = 0
    failure: Failure | None = None
    fetched: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def is_available(self) -> bool:
        """Whether enough processes are ready: as in a Deployment, a quarter may be missing."""
        return self.routed and len(self.ready) >= self.variant.replicas - self.variant.replicas // 4


def build_status(
    body: Document, states: Sequence[VariantState], domain: str, gateway_url: str, gateway_problem: str | None
) -> Document:
    """Return an InferenceService's status.

    Args:
        body: The object, with its last status.
        states: Its variants, the stable one first.
        domain: Of its hostname.
        gateway_url: Where every request enters.
        gateway_problem: Why the gateway does not route as it should; None when it does.
    """
    metadata = body["metadata"]
    stable, canaries = states[0], states[1:]
    predictor = _judge(stable)
    ingress = ("True", "", "")
    if gateway_problem is not None:
        ingress = ("False", "GatewayNotReady", gateway_problem)
    elif not stable.serving or not stable.routed:
        ingress = ("False", "NoReadyBackend", "no process of the stable predictor is ready for requests")
    overall = next((found for found in (predictor, ingress) if found[0] != "True"), ("True", "", ""))
    found = {"IngressReady": ingress, "PredictorReady": predictor, "Ready": overall}
    if canaries:
        judged = [(_judge(state), state) for state in canaries]
        bad = [(outcome, state) for outcome, state in judged if outcome[0] != "True"]
        if bad:
            (value, reason, message), state = bad[0]
            found["CanaryPredictorReady"] = (value, reason, f"{state.variant.name}: {message}")
        else:
            found["CanaryPredictorReady"] = ("True", "", "; ".join(filter(None, (o[2] for o, _ in judged))))
    status: Document = {
        "observedGeneration": metadata.get("generation", 1),
        "deploymentMode": "Standard",
        "url": f"http://{metadata['name']}-{metadata['namespace']}.{domain}",
        "address": {"url": f"{gateway_url}/v2/models/{metadata['name']}/infer"},
        "conditions": [_make_condition(body, kind, *found[kind]) for kind in sorted(found)],
        "components": {"predictor": _describe_component(stable)},
        "modelStatus": _describe_model(stable),
    }
    if canaries:
        status["canaryStatuses"] = [
            {
                "name": state.variant.name,
                "ready": state.is_available,
                "trafficPercent": state.variant.percent,
                "modelStatus": _describe_model(state),
            }
            for state in canaries
        ]
    return status


def _judge(state: VariantState) -> tuple[str, str, str]:
    """Return status, reason and message of a variant's condition."""
    restarted = ""
    if state.restarts:
        restarted = f"restarted {state.restarts} time{'s' if state.restarts > 1 else ''}"
    if state.is_available:
        return "True", "", "; ".join(filter(None, [restarted, *state.notes]))
    counted = f"{len(state.ready)} of {state.variant.replicas} processes are ready"
    if state.failure is not None:
        return "False", state.failure.reason, f"{state.failure.message}; {counted}"
    if not state.routed:
        return "False", "GatewayPending", f"{counted}; the gateway is being told of them"
    reason = "ModelLoading" if state.fetched else "ModelFetching"
    return "False", reason, "; ".join(filter(None, [counted, restarted, *state.notes]))


def _describe_component(state: VariantState) -> Document:
    if not state.serving:
        return {}
    first = min(state.serving)
    address = f"http://{LOOPBACK}:{first.http_port}"
    return {"url": address, "restUrl": address, "grpcUrl": f"grpc://{LOOPBACK}:{first.grpc_port}"}


def _describe_model(state: VariantState) -> Document:
    """Return KServe's modelStatus: what is loaded, what is being loaded, and how that goes."""
    active = "Loaded" if state.serving else ""
    if state.is_available:
        target, transition = "Loaded", "UpToDate"
    elif state.failure is not None:
        target, transition = "FailedToLoad", "BlockedByFailedLoad"
        active = active or "FailedToLoad"
    else:
        target, transition = ("Loading" if state.fetched else "Pending"), "InProgress"
    failed = state.variant.replicas - len(state.ready) if state.failure is not None else 0
    result: Document = {
        "transitionStatus": transition,
        "states": {"activeModelState": active, "targetModelState": target},
        "copies": {"totalCopies": len(state.ready), "failedCopies": failed},
    }
    if state.failure is not None:
        result["lastFailureInfo"] = {
            "reason": "ModelLoadFailed",
            "message": state.failure.message,
            "modelRevisionName": state.variant.revision,
            "time": state.failure.time,
        }
    return result


def _make_condition(body: Document, kind: str, status: str, reason: str, message: str) -> Document:
    since = format_now()
    for condition in (body.get("status") or {}).get("conditions", []):
        if condition["type"] == kind and condition["status"] == status:
            since = condition["lastTransitionTime"]
    condition = {"type": kind, "status": status, "lastTransitionTime": since}
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition
