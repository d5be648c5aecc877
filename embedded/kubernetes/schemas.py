"""What each kind may hold: the fields that the laptop honours, and no others.

A field that is missing here is refused by its name. A few that only matter to a cluster's scheduler or
identity are taken and have no effect, so that one manifest serves both places: `resources`,
`serviceAccountName`. `status` is taken and dropped, as a real API server does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

DNS_LABEL = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_HOSTNAME = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

DnsLabel = Annotated[str, StringConstraints(pattern=DNS_LABEL, max_length=63)]
Hostname = Annotated[str, StringConstraints(pattern=_HOSTNAME, max_length=253)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$", max_length=256)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Schema(BaseModel):
    """Base of all: camelCase, strictly typed, unknown fields refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


class Metadata(Schema):
    """Object metadata; what the API server itself fills is taken from it, never from clients."""

    name: str | None = None
    generate_name: str | None = None
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: list[str] | None = None
    owner_references: list[dict[str, Any]] | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    managed_fields: list[dict[str, Any]] | None = None
    self_link: str | None = None


class Object(Schema):
    """What every kind has."""

    api_version: str
    kind: str
    metadata: Metadata
    status: dict[str, Any] | None = Field(default=None, description="Written by the controllers.")


# InferenceServices (serving.kserve.io/v1beta1)


class ModelFormat(Schema):
    """The format of a model; a ServingRuntime must support it."""

    name: str
    version: str | None = None


class Variable(Schema):
    """One environment variable of the model server."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    value: str = ""


class Model(Schema):
    """The model of a variant."""

    name: str | None = Field(
        default=None, description="`kserve-container` in a canary; forbidden in spec.predictor."
    )
    model_format: ModelFormat
    protocol_version: str | None = Field(default=None, description="One that the runtime speaks.")
    storage_uri: Annotated[str, StringConstraints(pattern=r"^s3://[^/]+/.+$")] = Field(
        description="s3://BUCKET/KEY of a file, or of a folder."
    )
    runtime: str | None = Field(default=None, description="ServingRuntime; by default the first that fits.")
    env: list[Variable] | None = Field(default=None, description="Environment of the model server.")
    resources: dict[str, Any] | None = Field(default=None, description="Taken; no effect on a laptop.")


class Logger(Schema):
    """Where inference events go; the model server gets it as TENURE_LOGGER_URL and TENURE_LOGGER_MODE."""

    mode: Literal["all", "request", "response"] = "all"
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$")]


class CanaryPredictor(Schema):
    """A variant that may get a share of the traffic."""

    name: DnsLabel
    min_replicas: Annotated[int, Field(ge=1, le=100)] = 1
    model: Model
    logger: Logger | None = None
    service_account_name: str | None = Field(default=None, description="Taken; no effect on a laptop.")
    resources: dict[str, Any] | None = Field(default=None, description="Taken; no effect on a laptop.")


class Predictor(Schema):
    """The stable variant."""

    name: DnsLabel | None = Field(
        default=None, description="After a promotion: the name that it had as canary."
    )
    min_replicas: Annotated[int, Field(ge=1, le=100)] = 1
    max_replicas: Annotated[int, Field(ge=1, le=100)] | None = Field(
        default=None, description="Must equal minReplicas: there is no autoscaling on a laptop."
    )
    model: Model
    logger: Logger | None = None
    service_account_name: str | None = Field(default=None, description="Taken; no effect on a laptop.")
    resources: dict[str, Any] | None = Field(default=None, description="Taken; no effect on a laptop.")


class Canary(Schema):
    """One canary and the share of traffic that its owner wants it to have."""

    predictor: CanaryPredictor
    traffic_percent: Annotated[int, Field(ge=0, le=100)] = 0


class InferenceServiceSpec(Schema):
    """The variants of a service."""

    predictor: Predictor
    canary: list[Canary] | None = None


class InferenceService(Object):
    """A model that answers, and its canaries."""

    spec: InferenceServiceSpec


# HTTPRoutes (gateway.networking.k8s.io/v1)


class ParentRef(Schema):
    """The gateway that a route attaches to."""

    group: Literal["gateway.networking.k8s.io"] = "gateway.networking.k8s.io"
    kind: Literal["Gateway"] = "Gateway"
    namespace: DnsLabel | None = None
    name: DnsLabel


class PathMatch(Schema):
    """A match on the request's path."""

    type: Literal["Exact", "PathPrefix"] = "PathPrefix"
    value: Annotated[str, StringConstraints(pattern=r"^/[^\s?#]*$", max_length=1024)] = "/"


class HeaderMatch(Schema):
    """A match on one request header's whole value."""

    type: Literal["Exact"] = "Exact"
    name: HeaderName
    value: Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class RouteMatch(Schema):
    """All of it must match."""

    path: PathMatch | None = None
    headers: list[HeaderMatch] | None = Field(default=None, max_length=16)


class Backend(Schema):
    """A Service of the route's own namespace; the reconciler names them.

    Its ports are those of KServe's Services: 80 for HTTP (and here for gRPC too), 8081 for gRPC alone.
    """

    group: Literal[""] = ""
    kind: Literal["Service"] = "Service"
    name: DnsLabel
    namespace: DnsLabel | None = Field(default=None, description="Only the route's own.")
    port: Literal[80, 8081]


class RequestMirror(Schema):
    """A Service that is sent copies of the requests; its answers are dropped."""

    backend_ref: Backend
    percent: Annotated[int, Field(ge=0, le=100)] | None = None


class RequestHeaderModifier(Schema):
    """Headers that are taken away from the requests before anybody is sent them."""

    remove: list[HeaderName] = Field(min_length=1, max_length=16)


class Filter(Schema):
    """What is done to a rule's requests beside forwarding them; it has the field that its type names."""

    type: Literal["RequestMirror", "RequestHeaderModifier"]
    request_mirror: RequestMirror | None = None
    request_header_modifier: RequestHeaderModifier | None = None


class WeightedBackend(Backend):
    """A Service and its share."""

    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    filters: list[Filter] | None = Field(
        default=None, max_length=16, description="What is taken away from its requests only."
    )


class RouteRule(Schema):
    """Requests that match any of `matches` go to `backendRefs` by weight."""

    matches: list[RouteMatch] | None = Field(default=None, max_length=64)
    filters: list[Filter] | None = Field(default=None, max_length=16)
    backend_refs: list[WeightedBackend] = Field(min_length=1, max_length=16)


class HttpRouteSpec(Schema):
    """Which requests go where."""

    parent_refs: list[ParentRef] = Field(min_length=1, max_length=32)
    hostnames: list[Hostname] | None = Field(default=None, max_length=16)
    rules: list[RouteRule] = Field(min_length=1, max_length=16)


class HttpRoute(Object):
    """The share that each Service gets of the requests to a hostname."""

    spec: HttpRouteSpec


# The rest


class Namespace(Object):
    """A place for names."""

    spec: dict[str, Any] | None = None


class Event(Object):
    """Something that the reconciler did or saw."""

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel)


class ServingRuntime(Object):
    """How a model server is started; read from the project's manifests, read-only."""

    spec: dict[str, Any]
