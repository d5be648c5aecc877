"""Nobody talks to anybody, except as docs/network.md says; and everybody's needs are met."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

Document = dict[str, Any]
DOCUMENT = Path(__file__).parents[2] / "docs" / "network.md"
EVERYWHERE = "anywhere"


def describe_selector(selector: Document) -> list[str]:
    """Return the programs that a pod selector means."""
    labels = selector.get("matchLabels", {})
    for key in ("app.kubernetes.io/name", "app", "k8s-app"):
        if key in labels:
            return [str(labels[key])]
    if labels.get("pipelines.kubeflow.org/v2_component") == "true":
        return ["steps of runs"]
    for one in selector.get("matchExpressions", ()):
        if one["key"] == "serving.kserve.io/inferenceservice":
            return ["model servers"]
        if (one["key"], one["operator"]) == ("app.kubernetes.io/name", "In"):
            return list(one["values"])
    assert not selector, f"whom does {selector} mean?"
    return ["every pod"]


def describe_peer(peer: Document) -> list[str]:
    """Return whom a rule means, as NAMESPACE/PROGRAM; of our own namespace only the program."""
    if "ipBlock" in peer:
        return [f"outside/{peer['ipBlock']['cidr']}"]
    pods = describe_selector(peer.get("podSelector", {}))
    if "namespaceSelector" not in peer:
        return pods
    namespace = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    return [f"{namespace}/{pod}" for pod in pods]


def list_flows(policies: list[Document]) -> set[tuple[str, str, str]]:
    """Return (from, to, port) of all rules: what one side may send, or the other may take in."""
    flows = set()
    for policy in policies:
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(direction, ()):
                peers = [name for peer in rule.get(side, ()) for name in describe_peer(peer)] or [EVERYWHERE]
                for own, peer in product(describe_selector(policy["spec"]["podSelector"]), peers):
                    pair = (peer, own) if direction == "ingress" else (own, peer)
                    for port in rule["ports"]:
                        flows.add((*pair, f"{port['port']}/{port['protocol']}"))
    return flows


def read_table() -> set[tuple[str, str, str]]:
    """Return the flows of the page's table."""
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| [^|]+\|$", DOCUMENT.read_text(encoding="utf-8"), re.M
    )
    flows = set()
    for source, target, ports in rows:
        if source in ("from", "---"):
            continue
        for port in ports.split(", "):
            flows.add((source, target, port))
    return flows


def test_default_is_deny(rendered: Any) -> None:
    spec = rendered.get("NetworkPolicy", "tenure-default-deny")["spec"]
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_flows_are_documented(kind: Any) -> None:
    assert list_flows(kind.list("NetworkPolicy", "tenure")) == read_table()


def test_both_sides_agree(kind: Any) -> None:
    """Inside our namespace a flow needs leave to go out and leave to come in."""
    policies = kind.list("NetworkPolicy", "tenure")
    ways = {}
    for direction in ("ingress", "egress"):
        only = [
            {"spec": {**one["spec"], "ingress": [], "egress": [], direction: one["spec"].get(direction, [])}}
            for one in policies
        ]
        ways[direction] = {flow for flow in list_flows(only) if is_inside(flow)}
    assert ways["ingress"] == ways["egress"]


def is_inside(flow: tuple[str, str, str]) -> bool:
    return all("/" not in side and side != EVERYWHERE for side in flow[:2])


def test_programs_are_all_covered(rendered: Any) -> None:
    covered = {
        name
        for policy in rendered.list("NetworkPolicy", "tenure")
        if policy["spec"]["policyTypes"] != ["Egress"]
        for name in describe_selector(policy["spec"]["podSelector"])
    }
    assert {name for name, _ in rendered.pods()} <= covered
    assert "model servers" in covered


def test_ports_are_those_of_containers(rendered: Any) -> None:
    ports = {
        name: {
            f"{port['containerPort']}/TCP"
            for container in template["spec"]["containers"]
            for port in container["ports"]
        }
        for name, template in rendered.pods()
    }
    (runtime,) = rendered.list("ServingRuntime")
    (container,) = runtime["spec"]["containers"]
    agent = "9081/TCP"  # KServe's agent, where there is a logger
    ports["model servers"] = {f"{port['containerPort']}/TCP" for port in container["ports"]} | {agent}
    for _, target, port in list_flows(rendered.list("NetworkPolicy", "tenure")):
        if target in ports:
            assert port in ports[target], f"{target}: {port}"


def test_the_store_is_opened_for_us(kind: Any) -> None:
    policy = kind.get("NetworkPolicy", "tenure-object-store", "kubeflow")
    assert list_flows([policy]) == {("tenure/every pod", "seaweedfs", "8333/TCP")}


def test_ways_lead_to_what_is_there(production: Any) -> None:
    """Without databases and a store of its own, a site has no ways to them; nor one to just anywhere."""
    programs = {name for name, _ in production.pods()} | {"model servers", "every pod"}
    for source, target, _ in list_flows(production.list("NetworkPolicy", "tenure")):
        for side in (source, target):
            assert "/" in side or side in programs, f"{source} -> {target}"
        assert target not in ("kubeflow/seaweedfs", EVERYWHERE), f"{source} -> {target}"


def test_api_is_reached_by_its_address(production: Any) -> None:
    flows = list_flows(production.list("NetworkPolicy", "tenure"))
    reached = {source for source, target, port in flows if port == "6443/TCP"}
    assert reached == {"tenure-detector", "tenure-pilot", "tenure-console"}
    told = {source for source, target, _ in flows if target == "outside/0.0.0.0/0"}
    assert told == {"tenure-detector", "tenure-pilot"}
