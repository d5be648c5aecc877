"""Envoy clusters: one per Service and protocol, and one per pair of a Service and its fallback.

Each setting below that looks like a detail was seen to lose requests, or to fail silently, without it.

What Envoy counts where (tests/embedded/gateway/test_counters.py holds it to this), for the judge of a canary:

- by the name that the route chose (the pair for a canary's share, the Service's own for what goes straight to
  it and for copies), once a request: `upstream_rq_completed`, `upstream_rq_xx`, `upstream_rq_time`. What the
  fallback answered in a canary's place is among the pair's;
- by the Service that was tried: `upstream_rq_total`, or `upstream_rq_pending_failure_eject` when it
  refused the connection;
- by its process: `endpoint_rq_error`, whatever failed; starts anew when the cluster's configuration changes.

So of what was meant for a canary (`completed` of both names) it failed
(completed - upstream_rq_total) + (endpoint_rq_error - upstream_rq_pending_failure_eject): those that were not
even tried with it, as it had been taken out of turn, and those that failed with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from embedded.gateway.limits import limit_upstream
from embedded.gateway.routing import GRPC, HTTP, PROTOCOLS, Backend, Endpoint, Routing, Service
from embedded.ports import LOOPBACK

Document = dict[str, Any]

HEALTH_PATH = "/v2/health/ready"
_PROTOCOL_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TYPE = "type.googleapis.com/"


def name_cluster(namespace: str, service: str, protocol: str) -> str:
    """Return the cluster of a Service; slashes, for a dot would end the name in Prometheus' labels."""
    return f"{namespace}/{service}/{protocol}"


def name_backend(namespace: str, backend: Backend, protocol: str) -> str:
    """Return the cluster that a backend's requests go to."""
    if backend.fallback is None:
        return name_cluster(namespace, backend.service, protocol)
    return f"{namespace}/{backend.service}+{backend.fallback}/{protocol}"


def build_clusters(routing: Routing) -> list[Document]:
    """Return every cluster that the routes may name, sorted; that of a Service without processes is empty."""
    services = dict(routing.services)
    pairs: dict[tuple[str, str, str], Backend] = {}
    for route in routing.read_routes():
        for name in route.list_services():
            services.setdefault((route.namespace, name), Service(route.namespace, name, route.name, False))
        for rule in route.rules:
            for backend in rule.backends:
                if backend.fallback is not None:
                    pairs[route.namespace, backend.service, backend.fallback] = backend
    guarded = {(namespace, service) for namespace, service, _ in pairs}
    clusters = []
    for protocol in PROTOCOLS:
        for key, service in services.items():
            clusters.append(_build_service(service, protocol, key in guarded))
        for (namespace, _, _), backend in pairs.items():
            clusters.append(_build_pair(namespace, backend, protocol))
    return sorted(clusters, key=lambda cluster: str(cluster["name"]))


def _build_service(service: Service, protocol: str, guarded: bool) -> Document:
    name = name_cluster(service.namespace, service.name, protocol)
    endpoints = sorted(service.endpoints)
    cluster: Document = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "circuit_breakers": limit_upstream(),
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        # Status codes are counted at the pair that a request came by, and not at all for what was asked again
        # elsewhere: only the process's own counters tell how often it failed.
        "track_cluster_stats": {"per_endpoint_stats": True},
        "typed_extension_protocol_options": {_PROTOCOL_OPTIONS: _build_protocol(protocol)},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [_build_endpoint(endpoint, protocol) for endpoint in endpoints]}]
            if endpoints
            else [],
        },
        "health_checks": [
            {
                # A busy server may answer late: refused connections or 15 s of silence make it unhealthy.
                "timeout": "5s",
                "interval": "1s",
                # By default a cluster without traffic is checked every 60 s only, and stays closed that long.
                "no_traffic_interval": "1s",
                "unhealthy_interval": "0.5s",
                "unhealthy_threshold": 3,
                "healthy_threshold": 1,
                "http_health_check": {"path": HEALTH_PATH, "codec_client_type": "HTTP1"},
            }
        ],
    }
    # To eject the only process of a Service that nobody stands in for would make a hiccup an outage.
    if guarded or len(endpoints) > 1:
        cluster["outlier_detection"] = {
            # Only who cannot be reached is ejected. A model's own 500 is an answer that the judge of the
            # canary must see; 503 says that it is busy: to send its share to the others would bury them, too.
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 3,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_local_origin_success_rate": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_consecutive_5xx": 0,
            "enforcing_success_rate": 0,
            "interval": "1s",
            "base_ejection_time": "2s",
            "max_ejection_time": "10s",
            "max_ejection_percent": 100,
        }
    return cluster


def _build_protocol(protocol: str) -> Document:
    explicit: Document = {HTTP: {"http_protocol_options": {}}, GRPC: {"http2_protocol_options": {}}}[protocol]
    return {
        "@type": _TYPE + _PROTOCOL_OPTIONS,
        "explicit_http_config": explicit,
        # Below the model server's keep-alive of 5 s: it must not close what is just being written to.
        "common_http_protocol_options": {"idle_timeout": "4s"},
    }


def _build_endpoint(endpoint: Endpoint, protocol: str) -> Document:
    port = endpoint.http_port if protocol == HTTP else endpoint.grpc_port
    return {
        "endpoint": {
            "address": {"socket_address": {"address": LOOPBACK, "port_value": port}},
            # Readiness is asked over HTTP, also for gRPC.
            "health_check_config": {"port_value": endpoint.http_port},
        }
    }


def _build_pair(namespace: str, backend: Backend, protocol: str) -> Document:
    """Return a cluster that goes to a Service, and to its fallback while that has nobody healthy."""
    assert backend.fallback is not None  # noqa: S101
    return {
        "name": name_backend(namespace, backend, protocol),
        "connect_timeout": "1s",
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": limit_upstream(),
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "typed_extension_protocol_options": {_PROTOCOL_OPTIONS: _build_protocol(protocol)},
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": _TYPE + "envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                "clusters": [
                    name_cluster(namespace, backend.service, protocol),
                    name_cluster(namespace, backend.fallback, protocol),
                ],
            },
        },
    }


def list_names(clusters: Iterable[Document]) -> set[str]:
    """Return the names of clusters."""
    return {str(cluster["name"]) for cluster in clusters}
