"""Names that services must spell alike: labels, annotations, headers, and what KServe calls things."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

PROJECT_LABEL = "tenure.dev/project"
"""Label of an InferenceService: the project it serves."""

PROMOTE = "tenure.dev/promote"
"""Annotation: make the canary of this name the stable one."""

ROLLBACK = "tenure.dev/rollback"
"""Annotation: take the canary of this name away; when there is none, bring the previous version back."""

SUPERSEDE = "tenure.dev/supersede"
"""Annotation: take the canary of this name away, for a newer challenger is to take its place."""

PAUSE = "tenure.dev/pause"
"""Annotation: "true" keeps the pilot from changing any share."""

REVERTING = "tenure.dev/reverting"
"""Annotation: the pilot is bringing an earlier bundle back (JSON: the canary, and since when)."""

TRANSITION = "tenure.dev/last-transition"
"""Annotation: what the pilot did last, as JSON."""

PREVIOUS = "tenure.dev/previous"
"""Annotation: storage URI of the bundle that was stable before this one."""

ROLLOUT = "tenure.dev/rollout"
"""Annotation: how far the canary has come, as JSON (`tenure.judgement.Progress`)."""

PROJECT_URI = "tenure.dev/project-uri"
"""Annotation: where the project lies that the newest roll-out came with."""

PROVEN = "tenure.dev/proven"
"""Annotation: the canary that its roll-out has proven, so that the pilot may judge it.

JSON: its `digest`, and the `difference` that evaluation found between its mean score and that of the stable
model (null if unknown)."""

UNRECORDED = "tenure.dev/unrecorded"
"""Annotation: transitions that registry, ledger and events do not hold yet (JSON list, oldest first)."""

UNPROVEN = "tenure.dev/unproven"
"""Annotation: digest of a first bundle that has not yet answered. Nothing serves until it is taken away."""

OWN_ANNOTATIONS = (
    PROMOTE,
    ROLLBACK,
    SUPERSEDE,
    PAUSE,
    REVERTING,
    TRANSITION,
    PREVIOUS,
    ROLLOUT,
    PROJECT_URI,
    PROVEN,
    UNRECORDED,
    UNPROVEN,
)
"""Those that change while a service lives.

KServe copies an InferenceService's annotations to its pods, and so starts all model servers anew with each
change, unless they are in `serviceAnnotationDisallowedList` of its ConfigMap `inferenceservice-config`."""

VARIANT_HEADER = "x-tenure-variant"
"""Request header that asks the gateway for one variant, by its predictor name or `stable`."""

CUSTOMER_HEADER = "x-customer-id"
"""Request header that a gateway may keep a customer on one side of a split by."""

STABLE = "stable"
"""What the stable variant is called while its predictor has no name."""

DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
"""KServe's annotation; ours is always `Standard`."""

MODEL_FORMAT = "tenure"
"""The modelFormat that our ServingRuntime supports."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


def stable_name(isvc: Mapping[str, Any]) -> str:
    """Return the stable variant's name: `spec.predictor.name`, or `stable` before the first promotion."""
    return str(isvc["spec"]["predictor"].get("name") or STABLE)


def service_name(isvc_name: str, predictor_name: str | None) -> str:
    """Return the Service that KServe makes for a predictor; `None` or `stable` is the unnamed one."""
    if predictor_name in (None, "", STABLE):
        return f"{isvc_name}-predictor"
    return f"{isvc_name}-{predictor_name}-predictor"


def route_name(isvc_name: str) -> str:
    """Return the HTTPRoute that customers come through; KServe calls one of its own like the service."""
    return f"{isvc_name}-customers"


def canary_name(digest: str) -> str:
    """Return the predictor name of the bundle with this SHA-256 (a DNS label of 11 characters)."""
    return f"b{digest[:10]}"


def bundle_uri(bucket: str, digest: str) -> str:
    """Return where the bundle with this SHA-256 is stored."""
    return f"s3://{bucket}/bundles/{digest}"


def snapshot_uri(bucket: str, digest: str) -> str:
    """Return where the snapshot with this SHA-256 is stored."""
    return f"s3://{bucket}/snapshots/{digest}.parquet"


def project_uri(bucket: str, digest: str) -> str:
    """Return where the project (canonical JSON) with this SHA-256 is stored."""
    return f"s3://{bucket}/projects/{digest}.json"


def events_url(detector_url: str, service: str, version: str) -> str:
    """Return the sink of one version's events: the address says what an event itself does not."""
    return f"{detector_url.rstrip('/')}/events/{service}/{version}"


def digest_of(storage_uri: str) -> str:
    """Return the bundle digest in a storage URI; raises ValueError when there is none."""
    digest = storage_uri.rstrip("/").rsplit("/", 1)[-1]
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{storage_uri!r} does not end in a bundle's SHA-256 (64 hexadecimal digits)")
    return digest


def hostname(isvc: str | Mapping[str, Any], namespace: str, domain: str) -> str:
    """Return the host that the gateway knows the InferenceService (document or name) by."""
    name = isvc if isinstance(isvc, str) else isvc["metadata"]["name"]
    return f"{name}-{namespace}.{domain}"
