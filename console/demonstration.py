"""`tenure demo`: the whole loop on this machine, with real customers."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from clients import names
from clients.runs import Runs
from clients.services import Services
from clients.settings import Settings, load_settings
from clients.store import Store
from clients.tracking import CHAMPION, Tracking
from console import display
from console.errors import FAILED, ConsoleError
from console.options import DEFAULT_PROJECT, ProjectFile
from console.platform import call_platform
from console.prediction import open_client
from console.rollout import State, Variant, describe_service
from console.traffic import Traffic, send
from console.training import check_run, follow_run, submit
from tenure.evaluation import BASELINE, CHALLENGER, EvaluationReport
from tenure.evaluation import CHAMPION as CHAMPION_MODEL
from tenure.gate import decide
from tenure.project import Project, load_project

_FIRST_SHARE = 0.6
"""Share of the source's rows, in file order, that the older snapshot has."""

_ROUTE_SECONDS = 30.0

_METRICS = {
    "roc_auc": "ROC-AUC",
    "average_precision": "average precision",
    "log_loss": "log-loss",
    "brier": "Brier score",
    "recall_top_decile": "recall in the top decile",
}


@dataclass(frozen=True)
class Customers:
    """Rows to send: features and ids of the held-out customers."""

    rows: list[dict[str, Any]]
    ids: list[str]


def demo(
    project: ProjectFile = DEFAULT_PROJECT,
    requests: Annotated[
        int, typer.Option(min=1, max=20_000, help="Requests to send, one held-out customer each.")
    ] = 1500,
) -> None:
    """Show the whole loop: start the platform, train twice, roll out a canary, send it real customers.

    Everything stays up afterwards; `tenure down` (or `make down`) stops it. It may be run again at any time.
    """
    started = time.monotonic()
    plan = load_project(project)
    _tell(started, "starting the platform")
    if call_platform("up").returncode:
        raise ConsoleError("the platform did not start; the lines above say why", FAILED)
    settings = load_settings()
    cluster, runs = Services.connect(settings), Runs.connect(settings)
    exports = _upload_exports(settings, plan)
    service = plan.rollout.service
    if cluster.inference.find(service) is None:
        _tell(started, "training the first model on the older customers")
        _train(runs, plan, exports[0], "demo: first model, older customers")
        customers = read_held_out(plan)
        with open_client(settings, plan) as client:
            answer = client.predict(service, customers.rows[:1], plan.contract)
        _tell(started, f"first prediction: {answer.probabilities[0]:.3f} by version {answer.version}")
    else:
        _tell(started, f"{service} serves already; its first model is kept")
        customers = read_held_out(plan)
    _tell(started, "training a challenger on all customers")
    _train(runs, plan, exports[1], "demo: challenger, all customers")
    state = _wait_for_route(cluster, service)
    _tell(started, f"sending {requests} requests of held-out customers through the gateway")
    traffic = _send(settings, plan, customers, requests)
    _tell(started, "done")
    _print_summary(settings, plan, state, traffic)
    if traffic.failures:
        reasons = ", ".join(f"{count} x {reason}" for reason, count in traffic.failures.most_common(3))
        raise ConsoleError(f"{sum(traffic.failures.values())} requests failed: {reasons}", FAILED)


def _tell(started: float, text: str) -> None:
    display.err.print(Text(f"[{time.monotonic() - started:5.1f} s] ", "dim") + Text(text, "bold"))


def _upload_exports(settings: Settings, project: Project) -> tuple[str, str]:
    """Put two exports of the source into the store, as a customer system would: an older and a newer one."""
    path = Path(project.source.uri)
    if "://" in project.source.uri or path.suffix != ".csv":
        raise ConsoleError(f"the demo needs a project whose source is a CSV file, not {project.source.uri}")
    lines = path.read_bytes().splitlines(keepends=True)
    older = lines[: 1 + int(_FIRST_SHARE * (len(lines) - 1))]
    store = Store.connect(settings)
    folder = f"s3://{settings.s3_bucket}/landing/{project.name}"
    uris = (f"{folder}-older.csv", f"{folder}-newer.csv")
    for uri, part in zip(uris, (older, lines), strict=True):
        store.put_bytes(b"".join(part), uri)
    return uris


def _train(runs: Runs, project: Project, source: str, reason: str) -> None:
    run_id = submit(runs, project, source=source, name=reason, reason=reason)
    check_run(runs, follow_run(runs, run_id, timeout=900))


def read_held_out(project: Project) -> Customers:
    """Return the held-out customers: no model has seen them."""
    from tenure.partition import Part, assign_parts
    from tenure.snapshot import read_source
    from tenure.validation import validate_frame

    frame = read_source(Path(project.source.uri), project.source.format, project.contract)
    good = validate_frame(frame, project.contract).good
    parts = assign_parts(good, project.contract, project.split, project.name)
    held_out = good[parts == Part.HELD_OUT]
    features = [column.name for column in project.contract.features]
    rows: list[dict[str, Any]] = held_out[features].to_dict("records")
    return Customers(rows, [str(one) for one in held_out[project.contract.id.name]])


def _wait_for_route(cluster: Services, service: str) -> State:
    """Wait until the split that is asked for is the split in effect."""
    deadline = time.monotonic() + _ROUTE_SECONDS
    while True:
        state = describe_service(cluster.inference.get(service), cluster.routes.find(service))
        if all(variant.weight == variant.asked for variant in state.variants):
            return state
        if time.monotonic() > deadline:
            shares = ", ".join(f"{one.name} {one.weight} of {one.asked} %" for one in state.variants)
            raise ConsoleError(
                f"the split was not in effect after {_ROUTE_SECONDS:.0f} s ({shares}); "
                "look at `tenure logs pilot`",
                FAILED,
            )
        time.sleep(0.1)


def _send(settings: Settings, project: Project, customers: Customers, requests: int) -> Traffic:
    rollout = project.rollout
    times = -(-requests // len(customers.rows))
    host = names.hostname(rollout.service, rollout.namespace, settings.ingress_domain)
    return asyncio.run(
        send(
            settings.gateway_url,
            host,
            rollout.service,
            (customers.rows * times)[:requests],
            (customers.ids * times)[:requests],
            project.contract,
        )
    )


def _print_summary(settings: Settings, project: Project, state: State, traffic: Traffic) -> None:
    out = display.out
    canary = next((variant for variant in state.variants if variant.role == "canary"), None)
    report = _load_report(settings, project, canary or state.variants[0])
    out.print()
    out.print(Text(f"Judged on {report.rows} held-out customers (95 % intervals)", "bold"))
    out.print(_build_metrics(report, state))
    decision = decide(report, project.gate)
    out.print()
    out.print(Text(f"The gate said {'yes' if decision.approved else 'no'}", "bold"))
    for reason in decision.reasons:
        mark = Text("  ✓ ", "green") if reason.passed else Text("  ✗ ", "red")
        out.print(mark + Text(reason.text))
    out.print()
    out.print(
        Text(f"Traffic: {traffic.answered} requests answered, {traffic.failures.total()} failed", "bold")
    )
    for variant in state.variants:
        share = traffic.versions[variant.version] / max(1, traffic.answered)
        out.print(
            f"  {variant.role} {variant.version}: {share:.1%} of the answers, {variant.asked} % asked for"
        )
    if canary is None:
        out.print("  there is no canary: the newest bundle is the stable one already")
    p50, p99 = (1000 * traffic.find_quantile(share) for share in (0.5, 0.99))
    rate = traffic.answered / traffic.elapsed
    out.print(f"  latency p50 {p50:.1f} ms, p99 {p99:.1f} ms, {rate:.0f} requests/s over 2 connections")
    out.print()
    _print_addresses(settings, project)


def _load_report(settings: Settings, project: Project, variant: Variant) -> EvaluationReport:
    """Read what evaluation said about a version from MLflow."""
    tracking = Tracking.connect(settings)
    version = tracking.find_version(project.name, variant.digest) or tracking.find_alias(
        project.name, CHAMPION
    )
    if version is None or version.run_id is None:
        raise ConsoleError(f"MLflow knows no run of version {variant.version}", FAILED)
    return EvaluationReport.model_validate_json(tracking.load_text(version.run_id, "evaluation.json"))


def _build_metrics(report: EvaluationReport, state: State) -> Any:
    titles: dict[str, str] = {}
    if CHAMPION_MODEL in report.models:
        titles[CHAMPION_MODEL] = f"stable {report.models[CHAMPION_MODEL].version[:12]}"
    role = "canary" if len(state.variants) > 1 else "challenger"
    titles[CHALLENGER] = f"{role} {report.models[CHALLENGER].version[:12]}"
    titles[BASELINE] = "logistic regression"
    rows: list[Sequence[Any]] = []
    for metric, title in _METRICS.items():
        cells = [report.models[model].metrics[metric] for model in titles]
        rows.append((title, *(f"{cell.value:.4f} ({cell.low:.3f} – {cell.high:.3f})" for cell in cells)))
    return display.build_table(("", *titles.values()), rows)


def _print_addresses(settings: Settings, project: Project) -> None:
    service = project.rollout.service
    gateway = settings.gateway_url.rstrip("/")
    programs = _shorten(str(Path(sys.executable).parent))
    kubeconfig = _shorten(str(settings.kubeconfig))
    lines = (
        ("MLflow", settings.tracking_url),
        ("V2 endpoint", f"{gateway}/v2/models/{service}/infer"),
        ("", ""),
        ("try", f"curl -s {gateway}/v2/models/{service}"),
        ("", f"{programs}/kubectl --kubeconfig {kubeconfig} get inferenceservices"),
        ("", f"{programs}/tenure predict {_shorten(project.source.uri)}"),
        ("", ""),
        ("next", f"{programs}/tenure rollout promote, or {programs}/tenure rollout rollback"),
        ("stop", "make down"),
    )
    for name, value in lines:
        display.out.print(Text(f"  {name:<13}", "dim") + Text(value))


def _shorten(path: str) -> str:
    """Return a path relative to here where it lies below."""
    file = Path(path)
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else path
