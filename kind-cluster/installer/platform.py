"""Tenure itself: its keys, its manifests, and whether all of it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from installer import credentials
from installer.credentials import Key
from installer.delivery import is_own_seaweedfs
from installer.documents import add_pull_secret
from installer.errors import InstallError
from installer.images import COMPONENTS, NAMES
from installer.kubectl import load
from installer.options import NAMESPACE, PIPELINES_NAMESPACE
from installer.overlay import choose_settings, copy_settings, stamp, write_kustomization
from installer.site import Site
from installer.state import fingerprint

Document = dict[str, Any]

_GATEWAY_LABELS = (
    "gateway.envoyproxy.io/owning-gateway-namespace={namespace},"
    "gateway.envoyproxy.io/owning-gateway-name={name}"
)
_ERASED = ("Namespace", "PersistentVolumeClaim")


def make_secrets(site: Site) -> str:
    """Make the keys and passwords that are missing; of the others only the pipelines' key changes."""
    documents = {name: site.kubectl.get("secret", name, NAMESPACE) for name in credentials.OURS}
    there = {name: credentials.read_secret(one) for name, one in documents.items()}
    pipelines = site.kubectl.get("secret", credentials.PIPELINES_S3, PIPELINES_NAMESPACE)
    environment = site.programs.environment
    used = there[credentials.S3]
    key = credentials.choose_key(
        used,
        _read_key(environment, "S3"),
        credentials.read_secret(pipelines),
        own=is_own_seaweedfs(site.options.s3_url),
    )
    if key is None:
        raise InstallError(
            f"no key for the object store {site.options.s3_url}: there is no Secret "
            f"{PIPELINES_NAMESPACE}/{credentials.PIPELINES_S3}. Put S3_ACCESS_KEY and S3_SECRET_KEY into "
            "the environment"
        )
    s3 = credentials.plan_s3(used, key, _read_key(environment, "S3_READER"))
    databases = credentials.plan_databases(there[credentials.DATABASES])
    tracking = credentials.plan_tracking(there[credentials.TRACKING])
    detector = credentials.plan_detector(there[credentials.DETECTOR])
    annotations = credentials.describe_store(site.options.s3_url, site.options.s3_region)
    wanted = [
        credentials.make_secret(credentials.S3, NAMESPACE, s3, annotations),
        credentials.make_secret(credentials.DATABASES, NAMESPACE, databases),
        credentials.make_secret(credentials.TRACKING, NAMESPACE, tracking),
        credentials.make_secret(credentials.DETECTOR, NAMESPACE, detector),
        *credentials.copy_for_runs(s3, databases, tracking),
    ]
    site.ensure_namespaces((NAMESPACE, PIPELINES_NAMESPACE))
    site.apply(wanted)
    made = [name for name, values in there.items() if values is None]
    if made:
        return f"made {', '.join(made)}"
    followed = used is not None and used.get("secretkey") != key.secret
    return f"{credentials.S3} follows {credentials.PIPELINES_S3}" if followed else "unchanged"


def apply_manifests(site: Site) -> str:
    """Write the generated kustomization, apply what it gives, and wait until all of it runs."""
    documents = render(site)
    settings = copy_settings(documents)
    site.apply([*documents, *([settings] if settings else [])])
    site.wait_workloads(
        NAMESPACE,
        [
            (one["kind"], one["metadata"]["name"])
            for one in documents
            if one["kind"] in ("Deployment", "StatefulSet") and one["metadata"].get("namespace") == NAMESPACE
        ],
    )
    gone = _prune(site, documents)
    return f"{len(documents)} objects{f', {gone} old ones removed' if gone else ''}"


def render(site: Site) -> list[Document]:
    """Return the platform's documents for this site."""
    options = site.options
    images = site.images
    references = {name: images.pin(name) for name in NAMES}
    settings = choose_settings(options, references[COMPONENTS], _find_gateway_url(site))
    directory = write_kustomization(site.directory / "overlay", options, references, settings)
    found = load(site.kubectl.need("kustomize", str(directory)))
    held = [site.kubectl.get("secret", name, NAMESPACE) for name in credentials.OURS]
    stamped = stamp(found, images.ids, fingerprint([(one or {}).get("data") for one in held]))
    return add_pull_secret(stamped, site.read_login())


def remove(site: Site) -> str:
    """Take Tenure off a cluster: everything that serves, and with PURGE=yes what it has stored."""
    services = site.kubectl.list("inferenceservices", NAMESPACE)
    site.kubectl.delete(services)  # while KServe can still take their parts away
    listed = site.kubectl.need("kustomize", str(site.directory / "overlay"))
    documents = load(listed)
    kept = [one for one in documents if one["kind"] not in _ERASED]
    site.kubectl.delete([one for one in kept if one["kind"] not in _TYPES_OF_ROLES])
    site.kubectl.delete([one for one in kept if one["kind"] in _TYPES_OF_ROLES])
    if not site.options.purge:
        return "databases, keys and the bucket were kept; PURGE=yes removes the first two"
    for name in (credentials.S3, credentials.DATABASES, credentials.TRACKING, credentials.PULL):
        site.kubectl.need("delete", "secret", name, "-n", PIPELINES_NAMESPACE, "--ignore-not-found")
    site.kubectl.need(
        "delete", "configmap", "tenure-settings", "-n", PIPELINES_NAMESPACE, "--ignore-not-found"
    )
    site.kubectl.need("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=300)
    return "databases and keys were removed; the bucket was kept"


_TYPES_OF_ROLES = (
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "ServingRuntime",
)


def _find_gateway_url(site: Site) -> str | None:
    """Return where pods reach the Gateway, when it is not the one that the base names."""
    options = site.options
    if options.gateway_url or options.gateway == type(options).gateway:
        return options.gateway_url
    namespace, _, name = options.gateway.partition("/")
    found = site.kubectl.list("services", selector=_GATEWAY_LABELS.format(namespace=namespace, name=name))
    if not found:
        raise InstallError(
            f"no Service belongs to the Gateway {options.gateway}: say GATEWAY_URL, where pods reach it"
        )
    metadata = found[0]["metadata"]
    return f"http://{metadata['name']}.{metadata['namespace']}.svc:{found[0]['spec']['ports'][0]['port']}"


def _prune(site: Site, documents: list[Document]) -> int:
    """Remove what an earlier version installed and this one does not; never data."""
    inventory = sorted({_name(one) for one in documents if one["kind"] not in _ERASED})
    known = site.kubectl.get("configmap", "tenure-inventory", NAMESPACE)
    old = ((known or {}).get("data") or {}).get("objects", "").split()
    gone = [one for one in old if one not in set(inventory)]
    for entry in gone:
        kind, namespace, name = entry.split("/", 2)
        place = ("-n", namespace) if namespace else ()
        site.kubectl.need("delete", kind, name, "--ignore-not-found", "--wait=false", *place)
    if old != inventory:
        site.apply(
            [
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": "tenure-inventory", "namespace": NAMESPACE},
                    "data": {"objects": "\n".join(inventory)},
                }
            ]
        )
    return len(gone)


def _name(document: Mapping[str, Any]) -> str:
    group = document["apiVersion"].rpartition("/")[0]
    kind = f"{document['kind'].lower()}.{group}" if group else document["kind"].lower()
    return f"{kind}/{document['metadata'].get('namespace', '')}/{document['metadata']['name']}"


def _read_key(environment: Mapping[str, str], prefix: str) -> Key | None:
    access, secret = environment.get(f"{prefix}_ACCESS_KEY"), environment.get(f"{prefix}_SECRET_KEY")
    return Key(access, secret) if access and secret else None
