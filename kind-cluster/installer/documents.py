"""What is changed in third parties' manifests before they are applied. Pure: documents in, documents out."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import yaml

from clients.names import OWN_ANNOTATIONS
from installer.credentials import PULL, make_secret
from installer.errors import SourceError

Document = dict[str, Any]

_GATEWAY_GROUPS = ("gateway.networking.k8s.io", "gateway.networking.x-k8s.io")
_UNUSED_CACHES = "kernelcache"
_UNUSED_KSERVE = ("llmisvc", "llminferenceservice", "localmodel", "llm-d.ai", "inference.networking")
_IMAGE_KEYS = re.compile(r'("(?:image|\w*Image)"\s*:\s*")([^"{}\s]+)(")')
_REGISTRY_IMAGE = re.compile(
    r"(?<![\w./-])((?:docker\.io|ghcr\.io|quay\.io|gcr\.io|registry\.k8s\.io|registry\.access\.redhat\.com|[a-z0-9-]+\.pkg\.dev)/[\w./-]+(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?)"
)


def find(documents: Iterable[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    """Return the documents of one kind."""
    return [one for one in documents if one.get("kind") == kind]


def split_types(documents: Iterable[Document]) -> tuple[list[Document], list[Document]]:
    """Part the documents: namespaces and types first, and what needs them."""
    first: list[Document] = []
    rest: list[Document] = []
    for one in documents:
        (first if one["kind"] in ("CustomResourceDefinition", "Namespace") else rest).append(one)
    return first, rest


def list_missing_namespaces(documents: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the namespaces that documents lie in and none of them makes."""
    listed = list(documents)
    made = {one["metadata"]["name"] for one in find(listed, "Namespace")} | {"default", "kube-system"}
    used = dict.fromkeys(one["metadata"].get("namespace") for one in listed)
    return [name for name in used if name and name not in made]


def drop_gateway_api(documents: Iterable[Document]) -> list[Document]:
    """Leave out the Gateway API's own types and their guard.

    Envoy Gateway's file brings the experimental ones along, which the guard of the standard ones
    (ValidatingAdmissionPolicy safe-upgrades) refuses: a first install would end there.
    """
    return [
        one
        for one in documents
        if not (
            one["kind"] == "CustomResourceDefinition" and one.get("spec", {}).get("group") in _GATEWAY_GROUPS
        )
        and not (
            one["kind"].startswith("ValidatingAdmissionPolicy")
            and one["metadata"]["name"].endswith("gateway.networking.k8s.io")
        )
    ]


def select_kserve(documents: Iterable[Document]) -> list[Document]:
    """Leave out the controllers of language models and of caches: unused here, and they need memory.

    The types of kernel caches stay: KServe's own controller may watch them.
    """
    return [
        one
        for one in documents
        if not any(
            word in one["metadata"]["name"] or word in one.get("spec", {}).get("group", "")
            for word in _UNUSED_KSERVE
        )
        and (one["kind"] == "CustomResourceDefinition" or _UNUSED_CACHES not in one["metadata"]["name"])
    ]


def configure_kserve(documents: Iterable[Document], *, gateway: str, domain: str) -> list[Document]:
    """Set KServe to Standard mode behind the Gateway API, with sidecars that fit a small machine.

    Raises:
        SourceError: The documents hold no `inferenceservice-config`, or one that is not JSON.
    """
    changed = [copy.deepcopy(one) for one in documents]
    for one in changed:
        if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "inferenceservice-config":
            _change_json(one["data"], "deploy", {"defaultDeploymentMode": "Standard"})
            _change_json(
                one["data"],
                "ingress",
                {
                    "enableGatewayApi": True,
                    "kserveIngressGateway": gateway,
                    "ingressDomain": domain,
                    "disableIstioVirtualHost": True,
                },
            )
            # Else each step of a roll-out would start all model servers anew.
            _change_json(
                one["data"], "inferenceService", {"serviceAnnotationDisallowedList": list(OWN_ANNOTATIONS)}
            )
            for sidecar in ("agent", "logger"):
                _change_json(one["data"], sidecar, {"cpuRequest": "20m", "memoryRequest": "48Mi"})
            _change_json(one["data"], "storageInitializer", {"cpuRequest": "50m"})
            return changed
    raise SourceError("KServe's manifests hold no ConfigMap inferenceservice-config: is it another file?")


def _change_json(data: dict[str, str], key: str, changes: Mapping[str, Any]) -> None:
    try:
        known = json.loads(data.get(key, "{}"))
    except json.JSONDecodeError as error:
        raise SourceError(f"ConfigMap inferenceservice-config: `{key}` is not JSON: {error}") from error
    if not isinstance(known, dict):
        raise SourceError(f"ConfigMap inferenceservice-config: `{key}` is no JSON object")
    data[key] = json.dumps({**known, **changes}, indent=2)


def keep_retries(documents: Iterable[Document]) -> list[Document]:
    """Take Argo's default retries away: they override those that a pipeline's steps ask for, and multiply.

    Raises:
        SourceError: Argo's defaults are not YAML.
    """
    changed = []
    for one in documents:
        if one["kind"] == "ConfigMap" and one["metadata"]["name"] == "workflow-controller-configmap":
            one = copy.deepcopy(one)
            data = one.get("data") or {}
            if "workflowDefaults" in data:
                data["workflowDefaults"] = _drop_retries(data["workflowDefaults"])
        changed.append(one)
    return changed


def _drop_retries(text: str) -> str:
    try:
        defaults = yaml.load(text, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise SourceError(
            f"workflow-controller-configmap: `workflowDefaults` is not YAML: {error}"
        ) from error
    spec = defaults.get("spec") if isinstance(defaults, dict) else None
    for holder in (spec, (spec or {}).get("templateDefaults")):
        if isinstance(holder, dict):
            holder.pop("retryStrategy", None)
    return json.dumps(defaults, indent=1, ensure_ascii=False)


def drop(documents: Iterable[Document], kind: str, name: str) -> list[Document]:
    """Leave one object out."""
    return [one for one in documents if (one["kind"], one["metadata"]["name"]) != (kind, name)]


def add_pull_secret(documents: Iterable[Document], login: str | None) -> list[Document]:
    """Let the nodes log in for every pod of these documents.

    Args:
        documents: Theirs are the accounts, the pods without an account of their own, and Envoy's proxies.
        login: Docker's configuration, JSON; None changes nothing.

    Returns:
        The documents, and a Secret in each namespace where it is named.
    """
    changed = [copy.deepcopy(one) for one in documents]
    if login is None:
        return changed
    places: dict[str, None] = {}
    for one in changed:
        holder = _find_puller(one)
        if holder is not None:
            holder["imagePullSecrets"] = [*(holder.get("imagePullSecrets") or ()), {"name": PULL}]
            places[one["metadata"].get("namespace", "default")] = None
    values = {".dockerconfigjson": login}
    return [
        *(make_secret(PULL, place, values, kind="kubernetes.io/dockerconfigjson") for place in places),
        *changed,
    ]


def _find_puller(document: Document) -> Document | None:
    """Return the part of a document that may name Secrets for pulling."""
    if document["kind"] == "ServiceAccount":
        return document
    if document["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
        pod: Document = document["spec"]["template"]["spec"]
        return None if pod.get("serviceAccountName") else pod
    if document["kind"] == "EnvoyProxy":
        deployment = document["spec"]["provider"]["kubernetes"]["envoyDeployment"]
        proxy: Document = deployment.setdefault("pod", {})
        return proxy
    return None


def mirror_images(documents: Iterable[Document], prefix: str) -> list[Document]:
    """Fetch every image from a mirror: containers', and those named in arguments, variables and settings."""
    if not prefix:
        return list(documents)
    return [_walk(one, lambda image: mirror_image(image, prefix), "") for one in documents]


def mirror_image(image: str, prefix: str) -> str:
    """Return an image's name at the mirror: the prefix, then its full name with its own registry."""
    return image if image.startswith(f"{prefix}/") else f"{prefix}/{qualify_image(image)}"


def qualify_image(image: str) -> str:
    """Return an image's full name: `postgres:17` is `docker.io/library/postgres:17`."""
    first, _, rest = image.partition("/")
    if not rest:
        return f"docker.io/library/{image}"
    if "." in first or ":" in first or first == "localhost":
        return image
    return f"docker.io/{image}"


def _walk(value: Any, change: Callable[[str], str], key: str) -> Any:
    if isinstance(value, dict):
        if value.get("kind") == "CustomResourceDefinition":
            return value
        return {name: _walk(one, change, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_walk(one, change, key) for one in value]
    if not isinstance(value, str):
        return value
    if key == "image":
        return change(value)
    if key == "description":
        return value
    inner = _IMAGE_KEYS.sub(lambda found: f"{found[1]}{change(found[2])}{found[3]}", value)
    return inner if inner != value else _REGISTRY_IMAGE.sub(lambda found: change(found[1]), value)
