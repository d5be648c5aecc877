"""What dashboards and alerts ask Prometheus: found in the manifests, read by a parser of PromQL."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

MONITORING = Path(__file__).parents[2] / "manifests" / "monitoring"
TARGET_LABELS = frozenset({"job", "instance", "service", "pod", "namespace", "container", "endpoint"})
"""What the operator and our relabelings add to everything that is scraped."""
SCRAPED = {"up": TARGET_LABELS}
"""What Prometheus itself says of a target."""
_FIRST_ONLY = {"and", "unless"}
_TEMPLATE = re.compile(r"\{\{\s*([a-z_]+)\s*\}\}")
_ALERT_TEMPLATE = re.compile(r"\$labels\.([a-z_]+)")
_LABEL_VALUES = re.compile(r"label_values\((.+), ([a-z_]+)\)")

Document = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """One query: where it stands, its text, and the labels that its reader needs of the answer."""

    place: str
    text: str
    needs: frozenset[str] = frozenset()
    always: bool = True
    """Whether a platform with traffic answers it; alerts answer in trouble only."""

    def fill(self, interval: str = "5m", **values: str) -> str:
        """Return the query as Grafana would send it, each variable being anything."""
        text = self.text.replace("$__rate_interval", interval)
        for name in re.findall(r"(?<=~\")\$([a-z]+)(?=\")|(?<=\()\$([a-z]+)(?=\))", text):
            name = "".join(name)
            text = text.replace(f"${name}", values.get(name, ".+"))
        return text


def read_dashboards() -> dict[str, Document]:
    """Return the dashboards by file name."""
    return {file.name: json.loads(file.read_text()) for file in sorted(MONITORING.glob("dashboards/*.json"))}


def read_rules() -> Document:
    """Return what Prometheus's own rule file would hold."""
    spec: Document = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]
    return spec


def read_alerts() -> dict[str, Document]:
    """Return the alerts by name."""
    return {rule["alert"]: rule for group in read_rules()["groups"] for rule in group["rules"]}


def list_queries() -> Iterator[Query]:
    """Yield every query of dashboards (panels, variables, annotations) and alerts."""
    for name, dashboard in read_dashboards().items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                needs = frozenset(_TEMPLATE.findall(target["legendFormat"]))
                yield Query(f"{name}: {panel['title']}", target["expr"], needs)
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                match = _LABEL_VALUES.fullmatch(variable["definition"])
                assert match is not None, variable["definition"]
                yield Query(f"{name}: ${variable['name']}", match[1], frozenset({match[2]}))
        for annotation in dashboard["annotations"]["list"]:
            needs = frozenset(_TEMPLATE.findall(annotation["titleFormat"]))
            yield Query(f"{name}: {annotation['name']}", annotation["expr"], needs, always=False)
    for name, rule in read_alerts().items():
        needs = frozenset(_ALERT_TEMPLATE.findall(json.dumps(rule["annotations"])))
        yield Query(name, rule["expr"], needs, always=False)


def find_metrics(text: str) -> set[str]:
    """Return the names of the series that a query reads."""
    found: set[str] = set()

    def visit(node: Any) -> bool:
        if isinstance(node, promql.VectorSelector):
            found.add(node.name)
        elif isinstance(node, promql.MatrixSelector):
            found.add(node.vector_selector.name)
        return True

    promql.walk(promql.parse(text), visit)
    return found


class Labels:
    """Which labels the answer of a query has, given those that each metric has.

    Raises KeyError for a metric that nobody exposes, and ValueError for a label that a metric does not have.
    """

    def __init__(self, known: Mapping[str, frozenset[str]]) -> None:
        self._known = {**known, **SCRAPED}

    def find(self, text: str) -> frozenset[str]:
        """Return the labels of the answer."""
        return self._find(promql.parse(text))

    def _find(self, node: Any) -> frozenset[str]:
        match node:
            case promql.VectorSelector():
                return self._find_selected(node)
            case promql.MatrixSelector():
                return self._find_selected(node.vector_selector)
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                return self._find(node.expr)
            case promql.AggregateExpr():
                return self._find_aggregated(node)
            case promql.Call():
                return self._find_called(node)
            case promql.BinaryExpr():
                return self._find_both(node)
        return frozenset()

    def _find_selected(self, selector: Any) -> frozenset[str]:
        if selector.name not in self._known:
            raise KeyError(f"nobody exposes {selector.name}")
        labels = self._known[selector.name] | TARGET_LABELS
        asked = {matcher.name for matcher in selector.matchers.matchers}
        _check(asked, labels, selector.name)
        return labels

    def _find_aggregated(self, node: Any) -> frozenset[str]:
        inner = self._find(node.expr)
        if node.modifier is None:
            return inner if node.param is not None else frozenset()
        named = frozenset(node.modifier.labels)
        if node.modifier.type == promql.AggModifierType.Without:
            return inner - named
        _check(named, inner, str(node.expr))
        return named

    def _find_called(self, node: Any) -> frozenset[str]:
        found = [self._find(argument) for argument in node.args]
        if node.func.name == "label_replace":
            _check({node.args[3].val}, found[0], "label_replace")
            return found[0] | {node.args[1].val}
        if node.func.name == "absent":
            return frozenset()
        return frozenset().union(*found)

    def _find_both(self, node: Any) -> frozenset[str]:
        left, right = self._find(node.lhs), self._find(node.rhs)
        text = f"{node.lhs} {node.op} {node.rhs}"
        matching = node.modifier.matching if node.modifier is not None else None
        if matching is not None and matching.type == promql.LabelModifierType.Include:
            _check(set(matching.labels), left & right, text)
        if str(node.op) in _FIRST_ONLY or isinstance(node.rhs, promql.NumberLiteral):
            return left
        if isinstance(node.lhs, promql.NumberLiteral):
            return right
        if node.modifier is not None and node.modifier.card == promql.VectorMatchCardinality.ManyToOne:
            return left  # group_left
        # One side without labels is a constant, or matched by on(): the other's stay.
        return left & right or left | right


def _check(asked: set[str] | frozenset[str], labels: frozenset[str], what: str) -> None:
    if not asked <= labels:
        raise ValueError(f"{what} has no label {', '.join(sorted(asked - labels))}; it has {sorted(labels)}")
