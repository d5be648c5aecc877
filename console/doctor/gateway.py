"""The gateway that customers pass: Gateway API, its controller, the Gateway itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from console.doctor.document import Document, explain, find_condition, is_true, name_of, path_of
from console.doctor.finding import Finding, bad, good, unknown
from console.doctor.observation import Cluster
from console.doctor.workload import check_workloads

_OLDEST = (1, 2)
_BUNDLE = "gateway.networking.k8s.io/bundle-version"


def check_release(cluster: Cluster) -> Iterator[Finding]:
    """The Gateway API's release is one that Envoy Gateway can work with."""
    crd = cluster.find("customresourcedefinitions", "httproutes.gateway.networking.k8s.io")
    release = ((crd or {}).get("metadata", {}).get("annotations") or {}).get(_BUNDLE, "")
    found = re.match(r"v?(\d+)\.(\d+)", release)
    if found and (int(found[1]), int(found[2])) < _OLDEST:
        yield bad(
            "gateway-api",
            f"the CRDs of the Gateway API are {release}, older than {_OLDEST[0]}.{_OLDEST[1]}",
            "apply a newer release's CRDs (another program brought old ones), then restart Envoy Gateway",
        )
    elif found:
        yield good("gateway-api", f"Gateway API {release}")


def check_programs(cluster: Cluster) -> Iterator[Finding]:
    """Envoy Gateway and its proxies run."""
    if cluster.has_read("deployments") and not cluster.every("deployments", cluster.layout.gateway):
        yield bad(
            "envoy-gateway",
            f"Envoy Gateway is not in namespace {cluster.layout.gateway}",
            "`make up` installs it (WITH_ENVOY_GATEWAY)",
        )
    yield from check_workloads(cluster, cluster.layout.gateway, "envoy-gateway")


def check_classes(cluster: Cluster) -> Iterator[Finding]:
    """Every GatewayClass is accepted by a controller."""
    for one in cluster.every("gatewayclasses"):
        if is_true(one, "Accepted"):
            yield good("gateway-class", f"GatewayClass {name_of(one)} is accepted")
        else:
            why = explain(find_condition(one, "Accepted"))
            yield bad(
                "gateway-class",
                f"no controller accepts GatewayClass {name_of(one)}: {why}",
                f"controllerName is {one['spec'].get('controllerName')}: does that controller run? Envoy "
                "Gateway's is gateway.envoyproxy.io/gatewayclass-controller",
            )


def check_gateway(cluster: Cluster) -> Iterator[Finding]:
    """The Gateway that customers pass is programmed, and takes our routes."""
    if not cluster.has_read("gateways"):
        return
    wanted = cluster.settings.get("TENURE_GATEWAY", "kserve/kserve-ingress-gateway")
    namespace, _, name = wanted.partition("/")
    gateway = cluster.find("gateways", name, namespace)
    if gateway is None:
        there = ", ".join(path_of(one) for one in cluster.every("gateways")) or "none"
        yield bad(
            "gateway",
            f"there is no Gateway {wanted} (there are: {there})",
            "set TENURE_GATEWAY in ConfigMap tenure-settings, or make the Gateway",
        )
        return
    for kind in ("Accepted", "Programmed"):
        condition = find_condition(gateway, kind)
        if condition is None or condition.get("status") != "True":
            yield bad(
                "gateway", f"Gateway {wanted} is not {kind.lower()}: {explain(condition)}", _advise(condition)
            )
            return
    yield good("gateway", f"Gateway {wanted} is programmed")
    yield from _check_listeners(cluster, gateway, wanted)


def _check_listeners(cluster: Cluster, gateway: Document, wanted: str) -> Iterator[Finding]:
    namespace = cluster.layout.tenure
    listeners = gateway["spec"].get("listeners") or ()
    origins = {
        ((listener.get("allowedRoutes") or {}).get("namespaces") or {}).get("from", "Same")
        for listener in listeners
    }
    if origins == {"Same"} and gateway["metadata"]["namespace"] != namespace:
        yield bad(
            "gateway",
            f"Gateway {wanted} takes routes of its own namespace only, not of {namespace}",
            "set allowedRoutes.namespaces.from of a listener to All (or to a Selector that fits)",
        )
    elif "All" not in origins:
        yield unknown("gateway", f"whether a selector of Gateway {wanted} takes routes of {namespace}")


def _advise(condition: Any) -> str:
    reason = (condition or {}).get("reason", "")
    if reason == "AddressNotAssigned":
        return (
            "no LoadBalancer gives its Service an address: on kind use a NodePort or ClusterIP (the kind "
            "overlay's EnvoyProxy does), or run cloud-provider-kind or MetalLB"
        )
    if reason in ("NoResources", "Pending"):
        return "see Envoy's pods and the envoy-gateway log"
    return "see the envoy-gateway log"
