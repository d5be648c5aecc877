"""What trains and serves does not know where it runs: five addresses tell it everything."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("components", "pipelines", "serving", "clients", "tenure")
PLACES = re.compile(
    r"KUBERNETES_SERVICE_HOST|/var/run/secrets|\.svc\b|\bkind-|\bin_cluster\b|\bis_cluster\b|\bis_laptop\b|sys\.platform"
)
READERS = {
    "clients/settings.py": "the addresses",
    "clients/cluster.py": "the kubeconfig, as every client of Kubernetes finds it",
    "serving/predictor/__main__.py": "KServe hands settings over as variables",
    "clients/store.py": "where certificates lie",
    "clients/tracking.py": "what MLflow's client reads there and nowhere else",
    "tenure/version.py": "the code version",
}
"""Modules that may look at the environment, and what for."""

MODULES = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_module_asks_for_no_place(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    texts += [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    texts += [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert not [text for text in texts if PLACES.search(text)]
    asks = [text for text in texts if re.fullmatch(r"os\.(environ|getenv)(\..*)?", text)]
    assert not asks or str(file.relative_to(ROOT)) in READERS, asks


def test_every_reader_of_the_environment_is_one() -> None:
    for name in READERS:
        assert re.search(r"os\.(environ|getenv)", (ROOT / name).read_text()), name
