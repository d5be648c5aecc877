"""Whether models serve, and why not: InferenceServices, their pods, the route that customers come by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from clients.names import MODEL_FORMAT, PROJECT_LABEL, route_name
from console.doctor.document import (
    Document,
    explain,
    find_condition,
    is_true,
    labels_of,
    name_of,
    namespace_of,
    pick_condition,
    read_time,
    shorten,
)
from console.doctor.finding import Finding, bad, good, warn
from console.doctor.observation import Cluster
from console.doctor.pod import STARTING_SECONDS, diagnose_pod
from console.doctor.refusal import Trouble
from console.doctor.signature import recognise
from console.doctor.workload import find_refusal

_SERVICE = "serving.kserve.io/inferenceservice"


def check_runtime(cluster: Cluster) -> Iterator[Finding]:
    """There is a runtime for our models."""
    if not cluster.has_read("servingruntimes") or not _is_installed(cluster):
        return
    found = [
        one
        for one in cluster.every("servingruntimes", cluster.layout.tenure)
        if any(each.get("name") == MODEL_FORMAT for each in one["spec"].get("supportedModelFormats") or ())
        and not one["spec"].get("disabled")
    ]
    if found:
        yield good("runtime", f"ServingRuntime {name_of(found[0])} takes models of format {MODEL_FORMAT}")
    else:
        yield bad(
            "runtime",
            f"no ServingRuntime in {cluster.layout.tenure} takes models of format {MODEL_FORMAT}",
            "apply Tenure's manifests again: `make up`",
        )


def check_services(cluster: Cluster) -> Iterator[Finding]:
    """Every InferenceService is ready."""
    for service in cluster.every("inferenceservices", cluster.layout.tenure):
        name = name_of(service)
        troubles = list(_list_troubles(cluster, service))
        grave = next((one for one in troubles if one.grave), None)
        is_ready = is_true(service, "Ready")
        if grave is not None:
            yield bad("services", f"InferenceService {name}: {grave.text}", grave.fix)
        elif is_ready and not troubles:
            yield good("services", f"InferenceService {name} is ready")
        elif troubles:
            yield warn("services", f"InferenceService {name}: {troubles[0].text}", troubles[0].fix)
        else:
            yield _judge_unready(cluster, service)


def check_routes(cluster: Cluster) -> Iterator[Finding]:
    """The route of each service is there and the gateway has taken it."""
    if not cluster.has_read("httproutes"):
        return
    for service in cluster.every("inferenceservices", cluster.layout.tenure):
        if PROJECT_LABEL not in labels_of(service):
            continue
        wanted = route_name(name_of(service))
        route = cluster.find("httproutes", wanted, cluster.layout.tenure)
        if route is None:
            if not is_true(service, "Ready"):
                continue
            yield bad(
                "routes",
                f"InferenceService {name_of(service)} is ready, but there is no HTTPRoute {wanted}",
                "the pilot makes it: see its pod and its log",
            )
            continue
        problem = next(_judge_parents(route), None)
        yield good("routes", f"HTTPRoute {wanted} is accepted") if problem is None else problem


def _judge_parents(route: Document) -> Iterator[Finding]:
    name, parents = name_of(route), (route.get("status") or {}).get("parents") or ()
    if not parents:
        yield bad(
            "routes",
            f"no gateway has answered for HTTPRoute {name}",
            "does its parentRef name the Gateway (TENURE_GATEWAY), and does the gateway's controller run?",
        )
    for parent in parents:
        for kind in ("Accepted", "ResolvedRefs"):
            condition = pick_condition(parent.get("conditions"), kind)
            if condition is None or condition.get("status") != "True":
                yield bad(
                    "routes",
                    f"HTTPRoute {name} is not {_SAID[kind]}: {explain(condition)}",
                    _advise(condition),
                )


_SAID = {"Accepted": "accepted", "ResolvedRefs": "resolved"}


_ADVICE = {
    "NotAllowedByListeners": "set allowedRoutes.namespaces.from of the Gateway's listener to All",
    "NoMatchingListenerHostname": "give the listener no hostname, or TENURE_INGRESS_DOMAIN one of its own",
    "NoMatchingParent": "correct sectionName or port of the route's parentRef",
    "BackendNotFound": "a variant's Service is missing: see the InferenceService; the pilot follows it",
    "RefNotPermitted": "a ReferenceGrant is missing in the namespace of the backend",
}


def _advise(condition: Mapping[str, Any] | None) -> str:
    return _ADVICE.get(str((condition or {}).get("reason")), "see the gateway controller's log")


def _list_troubles(cluster: Cluster, service: Document) -> Iterator[Trouble]:
    namespace, name = namespace_of(service), name_of(service)
    yield from _judge_model(service)
    for pod in cluster.every("pods", namespace):
        if labels_of(pod).get(_SERVICE) == name:
            trouble = diagnose_pod(cluster, pod)
            if trouble is not None:
                yield trouble._replace(text=f"pod {name_of(pod)}: {trouble.text}")
    for deployment in cluster.every("deployments", namespace):
        if labels_of(deployment).get(_SERVICE) == name:
            refusal = find_refusal(cluster, "Deployment", deployment)
            ready = int((deployment.get("status") or {}).get("readyReplicas", 0))
            if refusal is not None and ready < int(deployment["spec"].get("replicas", 1)):
                yield refusal._replace(text=f"{name_of(deployment)}: {refusal.text}")


def _judge_model(service: Document) -> Iterator[Trouble]:
    """Yield what KServe itself says of the model, where it is no consequence of a pod."""
    failure = ((service.get("status") or {}).get("modelStatus") or {}).get("lastFailureInfo") or {}
    reason, message = failure.get("reason"), shorten(failure.get("message", ""))
    if reason in ("NoSupportingRuntime", "RuntimeNotRecognized", "RuntimeDisabled"):
        yield Trouble(
            f"KServe finds no runtime for it: {message}",
            f"is ServingRuntime tenure there, for modelFormat {MODEL_FORMAT} and protocolVersion v2?",
        )
    elif reason == "ModelLoadFailed" and not is_true(service, "Ready"):
        cause = recognise(failure.get("message", ""))
        if cause is not None:
            yield Trouble(f"the model cannot be loaded: {cause.text}", cause.fix)
    elif reason == "InvalidPredictorSpec":
        yield Trouble(f"KServe takes its predictor for invalid: {message}", "correct what the message names")


def _judge_unready(cluster: Cluster, service: Document) -> Finding:
    name, namespace = name_of(service), namespace_of(service)
    created = read_time(service["metadata"].get("creationTimestamp")) or cluster.taken
    if (cluster.taken - created).total_seconds() < STARTING_SECONDS:
        return warn("services", f"InferenceService {name} still starts", "wait, and ask again")
    if not (service.get("status") or {}).get("conditions"):
        events = cluster.find_events("InferenceService", name, namespace)
        said = f": {shorten(events[-1].get('message', ''))}" if events else ""
        return bad(
            "services",
            f"KServe's controller has not taken up InferenceService {name}{said}",
            "does kserve-controller-manager run? Its log says why it leaves the service alone",
        )
    false = [
        condition
        for condition in service["status"]["conditions"]
        if condition.get("status") != "True" and condition.get("type") != "Ready"
    ]
    events = cluster.find_events("InferenceService", name, namespace)
    text = explain(false[0] if false else find_condition(service, "Ready"))
    if false:
        text = f"{false[0].get('type')} is {false[0].get('status')} ({text})"
    if events:
        text = f"{text}; KServe says: {shorten(events[-1].get('message', ''), 160)}"
    return bad(
        "services",
        f"InferenceService {name} is not ready: {text}",
        f"kubectl -n {namespace} describe inferenceservice {name}",
    )


def _is_installed(cluster: Cluster) -> bool:
    return cluster.find("configmaps", "tenure-settings", cluster.layout.tenure) is not None
