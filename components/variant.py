"""What an InferenceService must say, as pure functions over its document."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clients import names
from clients.services import get_condition
from tenure.canary import Rollout

Document = dict[str, Any]

UNPROVEN = names.UNPROVEN

BUSY = (names.PROMOTE, names.ROLLBACK, names.SUPERSEDE, names.REVERTING)
"""Annotations of what a person asked for and the pilot has not finished yet."""


@dataclass(frozen=True)
class Readiness:
    """What the status says of one variant: ready, or failing to load its model (`blocked`), and in words."""

    ready: bool
    text: str
    blocked: bool = False


def build_service(
    rollout: Rollout, project: str, uri: str, sink: str | None = None, account: str | None = None
) -> Document:
    """Return a new InferenceService whose stable model is the bundle at `uri`, not yet proven.

    `sink` is the detector's address; None logs nothing. `account` is whose rights the model servers have.
    """
    return {
        "metadata": {
            "name": rollout.service,
            "namespace": rollout.namespace,
            "labels": {names.PROJECT_LABEL: project},
            "annotations": {names.DEPLOYMENT_MODE: "Standard", UNPROVEN: names.digest_of(uri)},
        },
        "spec": {
            "predictor": {
                "minReplicas": rollout.replicas,
                **_build_account(account),
                "model": _build_model(uri),
                **build_logger(rollout, uri, sink),
            }
        },
    }


def build_canary(
    rollout: Rollout, uri: str, percent: int, sink: str | None = None, account: str | None = None
) -> Document:
    """Return the `spec.canary` entry for the bundle at `uri`; `sink`, `account` as for `build_service`."""
    return {
        "predictor": {
            "name": names.canary_name(names.digest_of(uri)),
            "minReplicas": rollout.canary_replicas,
            **_build_account(account),
            # KServe's schema wants the name here, and forbids it in spec.predictor.
            "model": {"name": "kserve-container", **_build_model(uri)},
            **build_logger(rollout, uri, sink),
        },
        "trafficPercent": percent,
    }


def build_logger(rollout: Rollout, uri: str, sink: str | None) -> Document:
    """Return the predictor's `logger` key for the bundle at `uri`; nothing without a sink.

    The address names the version, for the events do not.
    """
    if sink is None:
        return {}
    version = names.digest_of(uri)[:12]
    return {"logger": {"mode": "all", "url": names.events_url(sink, rollout.service, version)}}


def list_canaries(service: Mapping[str, Any]) -> list[Document]:
    """Return the canary entries, possibly none."""
    return copy.deepcopy(service["spec"].get("canary") or [])


def find_canary(service: Mapping[str, Any], uri: str) -> Document | None:
    """Return the canary entry of the bundle at `uri`, or None."""
    for entry in list_canaries(service):
        if entry["predictor"]["model"].get("storageUri") == uri:
            return entry
    return None


def get_stable_uri(service: Mapping[str, Any]) -> str:
    """Return where the stable model's bundle is; "" for a service that is not of our kind."""
    return str(service["spec"]["predictor"].get("model", {}).get("storageUri", ""))


def get_annotations(service: Mapping[str, Any]) -> dict[str, str]:
    """Return the annotations, possibly none."""
    return dict(service["metadata"].get("annotations") or {})


def read_readiness(service: Mapping[str, Any], canary: str | None) -> Readiness:
    """Say whether a variant is ready by the status, and what the status says of it.

    Args:
        service: The InferenceService.
        canary: A canary's predictor name; None for the stable predictor.
    """
    kind = "PredictorReady" if canary is None else "CanaryPredictorReady"
    condition = get_condition(service, kind) or {}
    ready = condition.get("status") == "True"
    text = f"{kind} is {condition.get('status', 'not reported')}"
    for key in ("reason", "message"):
        if condition.get(key):
            text += f", {condition[key]}"
    if canary is not None:
        # The condition is about all canaries, and may be left over from the one that was here before.
        statuses = service.get("status", {}).get("canaryStatuses") or []
        mine = next((status for status in statuses if status.get("name") == canary), None)
        ready = ready and mine is not None and bool(mine.get("ready", True))
        text += f"; canaryStatuses: {mine if mine is not None else 'not listed'}"
    model = service.get("status", {}).get("modelStatus") or {}
    if canary is not None:
        model = (mine or {}).get("modelStatus") or {}
    if model.get("lastFailureInfo") and canary is None:
        text += f"; last failure: {model['lastFailureInfo']}"
    return Readiness(ready, text, model.get("transitionStatus") == "BlockedByFailedLoad")


def is_unproven(service: Mapping[str, Any]) -> bool:
    """Say whether the stable model is a first one, not proven yet: the pilot sends nobody to it."""
    return UNPROVEN in get_annotations(service)


def _build_account(account: str | None) -> Document:
    return {} if account is None else {"serviceAccountName": account}


def _build_model(uri: str) -> Document:
    return {"modelFormat": {"name": names.MODEL_FORMAT}, "protocolVersion": "v2", "storageUri": uri}
