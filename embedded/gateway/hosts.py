"""Envoy virtual hosts: which request goes to which cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from embedded.gateway.clusters import name_backend, name_cluster
from embedded.gateway.limits import REQUEST_SECONDS
from embedded.gateway.routing import GRPC, HTTP, Match, Route, Routing, Rule

Document = dict[str, Any]

CUSTOMER_HEADER = "x-customer-id"
ROUTE_CONFIG = "tenure"
_TYPE = "type.googleapis.com/"
# An inference changes nothing, so it may be asked again even if the connection broke under way.
_RETRY = {
    "retry_on": "connect-failure,refused-stream,reset-before-request,reset",
    "num_retries": 3,
    "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.05s"},
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": _TYPE + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": 3,
    # The second try already goes to the fallback, not only after the first one has been ejected.
    "retry_priority": {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": {
            "@type": _TYPE
            + "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            "update_frequency": 1,
        },
    },
}


@dataclass(frozen=True)
class _Entry:
    """One match of one rule, with what decides its place among the others."""

    route: Route
    rule: Rule
    match: Match
    number: int

    @property
    def rank(self) -> tuple[bool, int, int, int]:
        """Gateway API's precedence: exact path, longer prefix, more headers, then the order of the list."""
        return (not self.match.exact, -len(self.match.path), -len(self.match.headers), self.number)


def build_route_configuration(routing: Routing) -> Document:
    """Return the RouteConfiguration of all routes.

    Each hostname has a virtual host. Any other host reaches a model by its path (/v2/models/NAME,
    /v1/models/NAME), everything of the only route when there is just one, and else an answer that explains.
    """
    routes = routing.read_routes()
    by_host: dict[str, list[Route]] = {}
    for route in routes:
        for hostname in route.hostnames or ("*",):
            by_host.setdefault(hostname, []).append(route)
    everywhere = by_host.pop("*", [])
    hosts = []
    for hostname, of_host in by_host.items():
        entries = list(_render_entries(_list_entries(of_host)))
        hosts.append(_build_host(hostname, [*entries, *_render_rest(routes)]))
    whole = everywhere or (routes if len(routes) == 1 else [])
    entries = [*_render_models(routes), *_render_entries(_list_entries(whole)), *_render_rest(routes)]
    hosts.append(_build_host("*", entries))
    return {
        "name": ROUTE_CONFIG,
        "virtual_hosts": hosts,
        # By default a route to a cluster that does not exist is taken, and answers 503.
        "validate_clusters": True,
        "ignore_port_in_host_matching": True,
    }


def _build_host(domain: str, routes: list[Document]) -> Document:
    return {"name": domain, "domains": [domain], "routes": routes, "retry_policy": _RETRY}


def _list_entries(routes: Sequence[Route]) -> list[_Entry]:
    entries: list[_Entry] = []
    for route in routes:
        for rule in route.rules:
            for match in rule.matches:
                entries.append(_Entry(route, rule, match, len(entries)))
    return sorted(entries, key=lambda entry: entry.rank)


def _render_entries(entries: Sequence[_Entry]) -> Iterator[Document]:
    for entry in entries:
        if HTTP not in entry.rule.protocols:
            if not entry.match.path.rstrip("/"):
                yield _render(entry, GRPC, {"prefix": "/", "grpc": {}})
            continue
        path: Document = {"prefix": "/"}
        if entry.match.exact:
            path = {"path": entry.match.path}
        elif entry.match.path.rstrip("/"):
            path = {"path_separated_prefix": entry.match.path.rstrip("/")}
        else:
            # gRPC has paths of its own: it goes where everything goes.
            yield _render(entry, GRPC, {"prefix": "/", "grpc": {}})
        yield _render(entry, HTTP, path)


def _render_models(routes: Sequence[Route]) -> Iterator[Document]:
    """Yield the paths of each model, for clients that do not know its hostname."""
    for route in routes:
        entries = [
            entry
            for entry in _list_entries([route])
            if entry.match.path == "/" and HTTP in entry.rule.protocols
        ]
        for model in route.models:
            for entry in entries:
                yield _render(entry, HTTP, {"path_separated_prefix": f"/v2/models/{model}"})
                pattern = f"/v1/models/{re.escape(model)}([:/].*)?"
                yield _render(entry, HTTP, {"safe_regex": {"regex": pattern}})


def _render(entry: _Entry, protocol: str, match: Document) -> Document:
    """Return the route of one match: by weight with several backends, straight with one."""
    namespace, rule = entry.route.namespace, entry.rule
    headers = [{"name": name, "string_match": {"exact": value}} for name, value in entry.match.headers]
    if headers:
        match = {**match, "headers": headers}
    total = sum(backend.weight for backend in rule.backends)
    if total == 0:
        return {"match": match, **_explain(503, {"error": "every backend of this route has weight 0"})}
    action: Document = {"timeout": f"{REQUEST_SECONDS}s"}
    removed = list(rule.removed)
    if len(rule.backends) == 1:
        action["cluster"] = name_backend(namespace, rule.backends[0], protocol)
        removed += rule.backends[0].removed
    else:
        action["weighted_clusters"] = {
            "clusters": [
                {
                    "name": name_backend(namespace, backend, protocol),
                    "weight": backend.weight,
                    **({"request_headers_to_remove": list(backend.removed)} if backend.removed else {}),
                }
                for backend in rule.backends
            ],
            # A customer stays on one side; without the header the choice is random.
            "use_hash_policy": True,
        }
        action["hash_policy"] = [{"header": {"header_name": CUSTOMER_HEADER}}]
    if rule.mirrors:
        action["request_mirror_policies"] = [
            {
                "cluster": name_cluster(namespace, service, protocol),
                "runtime_fraction": {"default_value": {"numerator": percent, "denominator": "HUNDRED"}},
            }
            for service, percent in rule.mirrors
        ]
    rendered: Document = {"match": match, "route": action}
    if removed:
        rendered["request_headers_to_remove"] = list(dict.fromkeys(removed))
    return rendered


def _render_rest(routes: Sequence[Route]) -> Iterator[Document]:
    """Yield the answer to what no route takes."""
    hint = {
        "error": "no HTTPRoute takes this request: check the Host header and the path",
        "routes": {
            f"{route.namespace}/{route.name}": {
                "hostnames": list(route.hostnames),
                "paths": [f"/v2/models/{model}" for model in route.models],
            }
            for route in routes
        },
    }
    yield {"match": {"prefix": "/"}, **_explain(404, hint)}


def _explain(status: int, body: Document) -> Document:
    text = json.dumps(body)
    if len(text) > 4000:  # Envoy refuses bodies above 4 KiB
        text = json.dumps({"error": body["error"]})
    header = {"header": {"key": "content-type", "value": "application/json"}}
    return {
        "direct_response": {"status": status, "body": {"inline_string": text}},
        "response_headers_to_add": [{**header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}],
    }
