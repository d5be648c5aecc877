"""What a person may choose: the variables of `make up`, over the pinned versions."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from installer.errors import OptionError

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

VERSIONS = ROOT / "kind-cluster" / "versions.env"
STATE = ROOT / ".tenure-cluster"
"""What is downloaded and generated; not in git, and nothing secret in it."""

NAMESPACE = "tenure"
PIPELINES_NAMESPACE = "kubeflow"

KINDS = ("kind", "existing")
TITLES = {
    "GATEWAY_API": "Gateway API",
    "ENVOY_GATEWAY": "Envoy Gateway",
    "CERT_MANAGER": "cert-manager",
    "KSERVE": "KServe",
    "KFP": "Kubeflow Pipelines",
}
"""The third-party pieces, in the order they are installed."""

SWITCHES = tuple(TITLES)

_NEEDED_ON_KIND = ("GATEWAY_API", "ENVOY_GATEWAY", "CERT_MANAGER", "KSERVE")

_ASSIGNMENT = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)")
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_GATEWAY = re.compile(r"[a-z0-9-]+/[a-z0-9.-]+")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


@dataclass(frozen=True)
class Options:
    """One installation, fully decided."""

    versions: Mapping[str, str] = field(repr=False)
    cluster: str = "kind"
    """`kind`, or `existing`: the cluster that the kubeconfig names."""
    name: str = "tenure"
    """Name of the kind cluster."""
    context: str | None = None
    """Context of the kubeconfig; None is its current one."""
    install: frozenset[str] = frozenset(SWITCHES)
    """Third-party pieces to install; the others are already there."""
    overlay: str = "kind"
    tag: str | None = None
    """Tag of our images; None is the commit."""
    build: bool = True
    registry: str = ""
    """Prefix of our images, which are pushed there; empty: they are handed to the nodes."""
    mirror: str = ""
    """Prefix of everybody else's images."""
    pull_secret: Path | None = None
    """Docker's configuration with the login to registry and mirror, for the nodes."""
    image_load: tuple[str, ...] = ()
    """Command that hands an image (appended) to the nodes of an existing cluster."""
    manifests: Path | None = None
    """Directory with the third parties' files, for sites without the internet."""
    ingress_domain: str = "tenure.example.com"
    gateway: str = "kserve/kserve-ingress-gateway"
    gateway_url: str | None = None
    """Where pods reach the gateway; None: the Service that Envoy Gateway made for it."""
    s3_url: str = "http://seaweedfs.kubeflow:9000"
    s3_bucket: str = "tenure"
    s3_region: str = "us-east-1"
    runs_url: str = "http://ml-pipeline.kubeflow:8888"
    data: bool = True
    first_run: bool = True
    edit_kserve: bool = False
    """Whether the configuration of a KServe that was there before may be changed."""
    timeout: float = 600
    """Seconds that any one thing may take to become ready."""
    state: Path = STATE
    purge: bool = False
    """`down`: delete databases, keys and, of an existing cluster, the namespace too."""

    @property
    def kubectl_context(self) -> str | None:
        """Context that kubectl is told."""
        if self.cluster == "kind":
            return f"kind-{self.name}"
        return self.context

    @property
    def place(self) -> str:
        """Name of the directory for what is generated for this cluster."""
        if self.cluster == "kind":
            return f"kind-{self.name}"
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.context or "existing")

    def installs(self, switch: str) -> bool:
        """Say whether a third-party piece is installed by us."""
        return switch in self.install


def read_versions(path: Path = VERSIONS, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Read the pins; a variable of the environment with the same name wins.

    The hash of one version is not asked of another that the environment names.

    Raises:
        OptionError: A line is not `NAME=value`.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        matched = _ASSIGNMENT.fullmatch(text)
        if matched is None:
            raise OptionError(f"{path}:{number}: {text!r} is not of the form NAME=value")
        found[matched[1]] = matched[2]
    overrides = environment or {}
    chosen = {name: overrides.get(name) or value for name, value in found.items()}
    for name in found:
        version = name.removesuffix("_SHA256") + "_VERSION"
        if name.endswith("_SHA256") and chosen[version] != found[version] and not overrides.get(name):
            chosen[name] = ""
    return chosen


def read_options(environment: Mapping[str, str], versions: Mapping[str, str]) -> Options:
    """Read what `make up` was told.

    Raises:
        OptionError: A variable has a value without meaning.
    """
    cluster = environment.get("CLUSTER") or "kind"
    if cluster not in KINDS:
        raise OptionError(f"CLUSTER={cluster}: it is one of {', '.join(KINDS)}")
    if cluster == "kind" and environment.get("CONTEXT"):
        raise OptionError("CONTEXT belongs to CLUSTER=existing; a kind cluster is named by NAME")
    install = {switch for switch in SWITCHES if _read_switch(environment, f"WITH_{switch}", default=True)}
    if cluster == "kind":
        for switch in _NEEDED_ON_KIND:
            if switch not in install:
                raise OptionError(
                    f"WITH_{switch}=no: a new kind cluster has no {TITLES[switch]}, and Tenure does not run "
                    f"without it. Leave WITH_{switch} out, or say CLUSTER=existing"
                )
    gateway = _read_pattern(environment, "GATEWAY", Options.gateway, _GATEWAY)
    if "ENVOY_GATEWAY" in install and gateway != Options.gateway:
        raise OptionError(
            f"GATEWAY={gateway}: with Envoy Gateway the Gateway {Options.gateway} is made. Leave "
            "GATEWAY out, or say WITH_ENVOY_GATEWAY=no, if yours is there already"
        )
    manifests = environment.get("MANIFESTS")
    if manifests and not Path(manifests).is_dir():
        raise OptionError(f"MANIFESTS={manifests}: there is no such directory")
    timeout = environment.get("TIMEOUT") or "600"
    if not timeout.isdigit() or not int(timeout):
        raise OptionError(f"TIMEOUT={timeout}: it is a number of seconds")
    overlay = _read_name(environment, "OVERLAY", "kind")
    return Options(
        versions=versions,
        cluster=cluster,
        name=_read_name(environment, "NAME", "tenure"),
        context=environment.get("CONTEXT") or None,
        install=frozenset(install),
        overlay=overlay,
        tag=environment.get("TAG") or None,
        build=_read_switch(environment, "BUILD", default=True),
        registry=_strip_prefix(environment.get("REGISTRY")),
        mirror=_strip_prefix(environment.get("MIRROR")),
        pull_secret=_read_login(environment.get("PULL_SECRET")),
        image_load=tuple(shlex.split(environment.get("IMAGE_LOAD") or "")),
        manifests=Path(manifests).resolve() if manifests else None,
        ingress_domain=_read_pattern(environment, "INGRESS_DOMAIN", Options.ingress_domain, _DOMAIN),
        gateway=gateway,
        gateway_url=environment.get("GATEWAY_URL") or None,
        s3_url=(environment.get("S3_URL") or Options.s3_url).rstrip("/"),
        s3_bucket=_read_name(environment, "S3_BUCKET", Options.s3_bucket),
        s3_region=environment.get("S3_REGION") or Options.s3_region,
        runs_url=(environment.get("RUNS_URL") or Options.runs_url).rstrip("/"),
        data=_read_switch(environment, "DATA", default=True),
        first_run=_read_switch(environment, "RUN", default=True),
        edit_kserve=_read_switch(environment, "EDIT_KSERVE", default=False),
        timeout=float(timeout),
        purge=_read_switch(environment, "PURGE", default=False),
    )


def _read_switch(environment: Mapping[str, str], name: str, *, default: bool) -> bool:
    value = environment.get(name)
    if not value:
        return default
    if value not in ("yes", "no"):
        raise OptionError(f"{name}={value}: it is yes or no")
    return value == "yes"


def _read_name(environment: Mapping[str, str], name: str, default: str) -> str:
    return _read_pattern(environment, name, default, _NAME)


def _read_pattern(environment: Mapping[str, str], name: str, default: str, pattern: re.Pattern[str]) -> str:
    value = environment.get(name) or default
    if not pattern.fullmatch(value):
        raise OptionError(f"{name}={value}: it must look like {default!r}")
    return value


def _read_login(value: str | None) -> Path | None:
    if not value:
        return None
    path = Path(value).expanduser().resolve()
    try:
        document = json.loads(path.read_text())
        logins = [one for one in document["auths"].values() if one.get("auth") or one.get("password")]
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise OptionError(
            f"PULL_SECRET={value}: it is no configuration of Docker with logins: {error}"
        ) from None
    if not logins:
        raise OptionError(
            f"PULL_SECRET={value}: no login is in it (a helper may keep them elsewhere). Make one: "
            "docker --config DIRECTORY login REGISTRY, with a config.json there that says {}"
        )
    return path


def _strip_prefix(value: str | None) -> str:
    text = (value or "").rstrip("/")
    if "://" in text:
        raise OptionError(f"{text}: a prefix of images has no scheme, e.g. registry.example.com/team")
    return text
