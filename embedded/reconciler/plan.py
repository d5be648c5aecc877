"""What should run: variants of InferenceServices, and the model-server processes of each."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from embedded.errors import SpecError
from embedded.gateway import Endpoint
from embedded.kubernetes.admission import CONTAINER, find_runtime, service_name
from embedded.ports import LOOPBACK
from embedded.program import Program

Document = dict[str, Any]

CHECKOUT = Path(__file__).resolve().parent.parent.parent
STOP_SECONDS = 30
_MODEL_MOUNT = "/mnt/models"
_MAX_NAME = 120


@dataclass(frozen=True)
class Variant:
    """One predictor of an InferenceService: the stable one or a canary.

    Attributes:
        namespace: Its namespace.
        owner: The InferenceService, which is also the model's name.
        service: Its Service.
        name: The predictor's name; None for a stable one that was never a canary.
        stable: Whether it is `spec.predictor`.
        percent: The canary's trafficPercent.
        replicas: How many processes.
        storage_uri: Its model.
        revision: Changes with whatever needs other processes.
        container: The model server's container, from the ServingRuntime.
        environment: What the predictor adds to the container's environment.
    """

    namespace: str
    owner: str
    service: str
    name: str | None
    stable: bool
    percent: int
    replicas: int
    storage_uri: str
    revision: str
    container: Document
    environment: Mapping[str, str]

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and Service."""
        return self.namespace, self.service

    def name_program(self, index: int) -> str:
        """Return the name of one process, and so of its log; short in the default namespace."""
        name = f"{self.service}-{self.revision}-{index}"
        if self.namespace == "default":
            return name
        qualified = f"{self.namespace}.{name}"
        if len(qualified) <= _MAX_NAME:
            return qualified
        return f"{hashlib.sha256(self.namespace.encode()).hexdigest()[:12]}.{name}"


class Replica(BaseModel):
    """One process, as it is remembered over restarts of the reconciler."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: str
    namespace: str
    service: str
    owner: str
    revision: str
    http_port: int
    grpc_port: int
    directory: str = ""

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers."""
        return Endpoint(self.http_port, self.grpc_port)

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and Service."""
        return self.namespace, self.service


def plan_variants(body: Document, runtimes: Sequence[Document]) -> list[Variant]:
    """Return the variants of an InferenceService, the stable one first.

    Raises:
        SpecError: No ServingRuntime serves one of them any more.
    """
    spec = body["spec"]
    variants = [_plan(body, spec["predictor"], True, 0, runtimes)]
    for entry in spec.get("canary") or []:
        variants.append(_plan(body, entry["predictor"], False, entry.get("trafficPercent", 0), runtimes))
    return variants


def _plan(
    body: Document, predictor: Document, stable: bool, percent: int, runtimes: Sequence[Document]
) -> Variant:
    metadata, model = body["metadata"], predictor["model"]
    runtime = find_runtime(runtimes, model)
    if runtime is None:
        raise SpecError(
            f"no ServingRuntime serves the model format {model['modelFormat']['name']!r} of "
            f"{metadata['namespace']}/{metadata['name']}: see `kubectl get servingruntimes`"
        )
    container = next(entry for entry in runtime["spec"]["containers"] if entry["name"] == CONTAINER)
    environment = {entry["name"]: entry.get("value", "") for entry in model.get("env") or []}
    logger = predictor.get("logger")
    if logger:
        environment["TENURE_LOGGER_URL"] = logger["url"]
        environment["TENURE_LOGGER_MODE"] = logger.get("mode", "all")
    server = {key: container.get(key) for key in ("command", "args", "env")}
    text = json.dumps([model["storageUri"], environment, server], sort_keys=True)
    return Variant(
        namespace=metadata["namespace"],
        owner=metadata["name"],
        service=service_name(metadata["name"], predictor.get("name")),
        name=predictor.get("name"),
        stable=stable,
        percent=percent,
        replicas=predictor.get("minReplicas", 1),
        storage_uri=model["storageUri"],
        revision=hashlib.sha256(text.encode()).hexdigest()[:8],
        container=container,
        environment=environment,
    )


@dataclass(frozen=True)
class Sink:
    """The platform's own sink of events: below this address, this token is asked for."""

    url: str
    token: str = field(repr=False)


def make_program(variant: Variant, replica: Replica, sink: Sink) -> Program:
    """Return how a model server is started here: the container's command with local paths and ports.

    It gets the token of the sink if that is where it logs, and not if it logs anywhere else.

    Raises:
        SpecError: The ServingRuntime's arguments have no ports to replace.
    """

    def expand(text: str) -> str:
        return re.sub(r"\{\{\s*\.Name\s*\}\}", variant.owner, text).replace(_MODEL_MOUNT, replica.directory)

    command = [expand(part) for part in (*variant.container["command"], *variant.container.get("args", []))]
    if command[0] in ("python", "python3"):
        command[0] = sys.executable
    for option, port in (("--http_port", replica.http_port), ("--grpc_port", replica.grpc_port)):
        places = [number for number, part in enumerate(command) if part.split("=")[0] == option]
        if len(places) != 1 or "=" not in command[places[0]]:
            raise SpecError(
                f"the ServingRuntime's arguments need {option}=PORT once, so that its port can be chosen here"
            )
        command[places[0]] = f"{option}={port}"
    environment = {
        entry["name"]: expand(entry.get("value", "")) for entry in variant.container.get("env") or []
    }
    environment |= variant.environment
    if environment.get("TENURE_LOGGER_URL", "").startswith(f"{sink.url}/"):
        environment["TENURE_LOGGER_TOKEN"] = sink.token
    return Program(
        name=replica.program,
        command=tuple(command),
        # In a pod the server must listen on every address; here on loopback only.
        environment={**environment, "TENURE_HTTP_HOST": LOOPBACK},
        directory=CHECKOUT,
        stop_seconds=STOP_SECONDS,
    )
