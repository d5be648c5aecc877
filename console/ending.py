"""The last lines of a demonstration: what was live, how right it was, where to go on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from rich.text import Text

from clients.ledger.reader import Ledger
from clients.settings import Settings
from console import display
from console.performance import Measured
from tenure.bootstrap import Interval
from tenure.project import Project


def print_history(ledger: Ledger, service: str, since: datetime) -> None:
    """Print every transition since then: what served which share of the customers from then on, and why."""
    rows = [
        (
            f"{one.at.astimezone():%H:%M:%S}",
            one.outcome.replace("_", " "),
            _say_shares(one.shares),
            one.reason,
        )
        for one in ledger.read_transitions(service)
        if one.at >= since
    ]
    display.out.print()
    display.out.print(Text("What was live", "bold"))
    display.out.print(display.build_table(("TIME", "", "SHARES FROM THEN ON", "WHY"), rows))


def print_measured(measured: Sequence[Measured]) -> None:
    """Print how right each version was in each phase."""
    rows = [
        (
            one.phase,
            one.version,
            one.rows,
            f"{one.left:.0%}",
            _say_interval(one.roc_auc),
            _say_interval(one.log_loss),
        )
        for one in measured
    ]
    header = ("PRICE RISE", "VERSION", "OUTCOMES", "LEFT", "ROC-AUC", "LOG-LOSS")
    display.out.print()
    display.out.print(Text("How right it was, by what the ledger knows (95 % intervals)", "bold"))
    display.out.print(display.build_table(header, rows, right=(2, 3)))


def print_addresses(settings: Settings, project: Project) -> None:
    """Print where to look next."""
    service = project.rollout.service
    gateway = settings.gateway_url.rstrip("/")
    programs = _shorten(str(Path(sys.executable).parent))
    kubeconfig = _shorten(str(settings.kubeconfig))
    lines = (
        ("MLflow", settings.tracking_url),
        ("V2 endpoint", f"{gateway}/v2/models/{service}/infer"),
        ("", ""),
        ("try", f"{programs}/tenure rollout history"),
        ("", f"{programs}/tenure simulate --scenario concept"),
        ("", f"{programs}/kubectl --kubeconfig {kubeconfig} get inferenceservices"),
        ("stop", "make down"),
    )
    display.out.print()
    for name, value in lines:
        display.out.print(Text(f"  {name:<13}", "dim") + Text(value))


def _say_shares(shares: Mapping[str, int]) -> str:
    return ", ".join(f"{version} {share} %" for version, share in shares.items() if share)


def _say_interval(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval.value:.3f} ({interval.low:.3f} – {interval.high:.3f})"


def _shorten(path: str) -> str:
    """Return a path relative to here where it lies below."""
    file = Path(path)
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else path
