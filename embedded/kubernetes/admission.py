"""What a cluster's admission webhooks refuse: rules that span several fields, or two versions of an object.

The rules on canaries are those that KServe 0.20 was seen to apply in Standard mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedded.kubernetes.errors import Cause
from embedded.kubernetes.explanation import check_schema
from embedded.kubernetes.schemas import (
    Backend,
    Filter,
    HttpRoute,
    InferenceService,
    Model,
    Namespace,
)

MODE_ANNOTATION = "serving.kserve.io/deploymentMode"
MODES = ("Standard", "RawDeployment")
CONTAINER = "kserve-container"

Document = dict[str, Any]


@dataclass(frozen=True)
class Surroundings:
    """What an object is judged against: the runtimes and other InferenceServices of its namespace."""

    runtimes: Sequence[Document] = ()
    others: Sequence[Document] = ()


def service_name(name: str, predictor: str | None) -> str:
    """Return the Service of a variant, as KServe names it."""
    return f"{name}-{predictor}-predictor" if predictor else f"{name}-predictor"


def list_services(body: Mapping[str, Any]) -> list[str]:
    """Return the Services of an InferenceService, the stable one first."""
    name, spec = body["metadata"]["name"], body["spec"]
    variants = [spec["predictor"], *(entry["predictor"] for entry in spec.get("canary") or [])]
    return [service_name(name, variant.get("name")) for variant in variants]


def find_runtime(runtimes: Sequence[Document], model: Mapping[str, Any]) -> Document | None:
    """Return the ServingRuntime that serves `model`, by name when it names one, else by format."""
    for runtime in runtimes:
        spec = runtime["spec"]
        if spec.get("disabled"):
            continue
        if model.get("runtime") not in (None, runtime["metadata"]["name"]):
            continue
        formats = [entry["name"] for entry in spec.get("supportedModelFormats", [])]
        if model["modelFormat"]["name"] in formats:
            return runtime
    return None


def check_inference_service(body: Document, old: Document | None, around: Surroundings) -> list[Cause]:
    """Return what is wrong with an InferenceService that comes after `old`; nothing when it may be stored."""
    causes = check_schema(InferenceService, body)
    if causes:
        return causes
    service = InferenceService.model_validate(body)
    predictor, canaries = service.spec.predictor, service.spec.canary or []

    mode = (service.metadata.annotations or {}).get(MODE_ANNOTATION)
    field = f"metadata.annotations[{MODE_ANNOTATION}]"
    if mode is not None and mode not in MODES:
        causes.append(
            Cause(field, f"Unsupported value: {mode!r}: supported: Standard", "FieldValueNotSupported")
        )
    if mode is None and canaries:
        causes.append(
            Cause(field, "Required value: spec.canary needs the mode Standard", "FieldValueRequired")
        )

    if predictor.model.name is not None:
        causes.append(
            Cause(
                "spec.predictor.model.name",
                "Forbidden: KServe's webhook refuses it (it belongs into spec.canary[].predictor.model)",
                "FieldValueForbidden",
            )
        )
    if predictor.max_replicas not in (None, predictor.min_replicas):
        message = (
            f"Invalid value: {predictor.max_replicas}: there is no autoscaling on the laptop platform: leave "
            f"it out, or set it to minReplicas ({predictor.min_replicas})"
        )
        causes.append(Cause("spec.predictor.maxReplicas", message))
    causes += _check_model(predictor.model, "spec.predictor.model", around)

    seen = {predictor.name}
    for number, canary in enumerate(canaries):
        path = f"spec.canary[{number}].predictor"
        variant = canary.predictor
        if variant.name in seen:
            message = f"Duplicate value: {variant.name!r} is already the name of another variant"
            causes.append(Cause(f"{path}.name", message, "FieldValueDuplicate"))
        seen.add(variant.name)
        if variant.min_replicas > predictor.min_replicas:
            message = (
                f"Invalid value: {variant.min_replicas}: a canary may not have more replicas than the stable "
                f"predictor ({predictor.min_replicas})"
            )
            causes.append(Cause(f"{path}.minReplicas", message))
        if variant.model.name is None:
            message = f"Required value: KServe's schema wants {CONTAINER} here"
            causes.append(Cause(f"{path}.model.name", message, "FieldValueRequired"))
        elif variant.model.name != CONTAINER:
            message = f"Unsupported value: {variant.model.name!r}: supported: {CONTAINER}"
            causes.append(Cause(f"{path}.model.name", message, "FieldValueNotSupported"))
        causes += _check_model(variant.model, f"{path}.model", around)
    total = sum(canary.traffic_percent for canary in canaries)
    if total > 100:
        message = f"Invalid value: the trafficPercent of all canaries add up to {total}; at most 100"
        causes.append(Cause("spec.canary", message))

    causes += _check_rename(body, old)
    causes += _check_services(body, around)
    return causes


def check_http_route(body: Document, old: Document | None, around: Surroundings) -> list[Cause]:
    """Return what is wrong with an HTTPRoute; nothing when it may be stored."""
    del old, around
    causes = check_schema(HttpRoute, body)
    if causes:
        return causes
    route = HttpRoute.model_validate(body)
    for number, rule in enumerate(route.spec.rules):
        references: list[tuple[str, Backend]] = [
            (f"backendRefs[{i}]", backend) for i, backend in enumerate(rule.backend_refs)
        ]
        references += [
            (f"filters[{i}].requestMirror.backendRef", entry.request_mirror.backend_ref)
            for i, entry in enumerate(rule.filters or [])
            if entry.request_mirror is not None
        ]
        causes += _check_filters(rule.filters or [], f"spec.rules[{number}].filters")
        for place, weighted in enumerate(rule.backend_refs):
            path = f"spec.rules[{number}].backendRefs[{place}].filters"
            causes += _check_filters(weighted.filters or [], path)
            if any(entry.type == "RequestMirror" for entry in weighted.filters or []):
                message = "Forbidden: RequestMirror belongs to the rule: copies are made of all its requests"
                causes.append(Cause(path, message, "FieldValueForbidden"))
        ports = sorted({backend.port for _, backend in references})
        if len(ports) > 1:
            message = f"Invalid value: {ports}: the backends of a rule have one port: 80, or 8081 for gRPC"
            causes.append(Cause(f"spec.rules[{number}].backendRefs", message))
        for path, backend in references:
            if backend.namespace not in (None, route.metadata.namespace):
                message = "Forbidden: Services of other namespaces are not reached from here"
                causes.append(Cause(f"spec.rules[{number}].{path}.namespace", message, "FieldValueForbidden"))
        # One with weight 0 only keeps a place in the list.
        names = [backend.name for backend in rule.backend_refs if backend.weight]
        for name in sorted({name for name in names if names.count(name) > 1}):
            message = f"Duplicate value: {name!r}"
            causes.append(Cause(f"spec.rules[{number}].backendRefs", message, "FieldValueDuplicate"))
    return causes


def check_namespace(body: Document, old: Document | None, around: Surroundings) -> list[Cause]:
    """Return what is wrong with a Namespace; nothing when it may be stored."""
    del old, around
    return check_schema(Namespace, body)


CHECKS: dict[str, Callable[[Document, Document | None, Surroundings], list[Cause]]] = {
    "inferenceservices.serving.kserve.io": check_inference_service,
    "httproutes.gateway.networking.k8s.io": check_http_route,
    "namespaces": check_namespace,
}


def _check_model(model: Model, path: str, around: Surroundings) -> list[Cause]:
    runtimes = around.runtimes
    document = model.model_dump(by_alias=True, exclude_none=True)
    if model.runtime is not None and model.runtime not in [entry["metadata"]["name"] for entry in runtimes]:
        known = ", ".join(entry["metadata"]["name"] for entry in runtimes) or "none"
        message = f"Not found: {model.runtime!r}; ServingRuntimes here: {known}"
        return [Cause(f"{path}.runtime", message, "FieldValueNotFound")]
    runtime = find_runtime(runtimes, document)
    if runtime is None:
        formats = sorted(
            {form["name"] for entry in runtimes for form in entry["spec"].get("supportedModelFormats", [])}
        )
        message = (
            f"Unsupported value: {model.model_format.name!r}: no ServingRuntime serves it; "
            f"formats that one does: {', '.join(formats) or 'none'}"
        )
        return [Cause(f"{path}.modelFormat.name", message, "FieldValueNotSupported")]
    protocols = runtime["spec"].get("protocolVersions", [])
    if model.protocol_version is not None and model.protocol_version not in protocols:
        message = f"Unsupported value: {model.protocol_version!r}: supported: {', '.join(protocols)}"
        return [Cause(f"{path}.protocolVersion", message, "FieldValueNotSupported")]
    return []


def _check_filters(filters: Sequence[Filter], path: str) -> list[Cause]:
    """Refuse filters without what their type names, or with more, and a second one that changes headers."""
    causes = []
    for number, entry in enumerate(filters):
        parts = {
            "requestMirror": entry.request_mirror,
            "requestHeaderModifier": entry.request_header_modifier,
        }
        wanted = entry.type[0].lower() + entry.type[1:]
        for name, part in parts.items():
            if name == wanted and part is None:
                message = f"Required value: a filter of type {entry.type} needs it"
                causes.append(Cause(f"{path}[{number}].{name}", message, "FieldValueRequired"))
            if name != wanted and part is not None:
                message = f"Forbidden: not in a filter of type {entry.type}"
                causes.append(Cause(f"{path}[{number}].{name}", message, "FieldValueForbidden"))
    if sum(entry.type == "RequestHeaderModifier" for entry in filters) > 1:
        message = "Invalid value: RequestHeaderModifier can be there only once: list all headers in it"
        causes.append(Cause(path, message))
    return causes


def _check_rename(body: Document, old: Document | None) -> list[Cause]:
    """Refuse another predictor name with the same model: KServe takes a rename for a promotion."""
    if old is None:
        return []
    new_predictor, old_predictor = body["spec"]["predictor"], old["spec"]["predictor"]
    if new_predictor.get("name") == old_predictor.get("name"):
        return []
    if new_predictor["model"]["storageUri"] != old_predictor["model"]["storageUri"]:
        return []
    message = (
        "Forbidden: the name of the predictor changes only together with its model's storageUri (a promotion)"
    )
    return [Cause("spec.predictor.name", message, "FieldValueForbidden")]


def _check_services(body: Document, around: Surroundings) -> list[Cause]:
    """Refuse Service names that are too long, or that another InferenceService has."""
    causes = []
    taken = {name: other["metadata"]["name"] for other in around.others for name in list_services(other)}
    for name in list_services(body):
        if len(name) > 63:
            message = f"Invalid value: its Service would be called {name}, which is longer than 63 characters"
            causes.append(Cause("metadata.name", message))
        if name in taken:
            message = f"Invalid value: its Service {name} belongs to the InferenceService {taken[name]}"
            causes.append(Cause("metadata.name", message))
    return causes
