"""Who serves, and a person's say in it: `tenure rollout`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from clients import names
from clients.errors import NotFoundError
from clients.services import Services, get_condition
from clients.settings import load_settings
from console import display
from console.errors import FAILED, REFUSED, ConsoleError
from console.options import DEFAULT_PROJECT, Json, ProjectFile
from tenure.project import load_project

app = typer.Typer(
    no_args_is_help=True,
    help="Show the rollout and decide about it: the pilot carries out what you ask within seconds.",
)

Wait = Annotated[
    float, typer.Option("--timeout", min=1, help="Seconds to wait for the pilot to carry it out.")
]


class Variant(BaseModel):
    """One version in front of customers.

    Attributes:
        weight: Percent of the requests that the route gives it now.
        asked: Percent that the InferenceService asks for.
    """

    name: str
    role: str
    version: str
    digest: str
    weight: int
    asked: int
    ready: bool


class State(BaseModel):
    """An InferenceService as its owner wants to see it."""

    name: str
    namespace: str
    variants: list[Variant]
    paused: bool
    pending: list[str]
    transition: dict[str, str] | None
    previous: str | None


def describe_service(service: Mapping[str, Any], route: Mapping[str, Any] | None) -> State:
    """Read the state of a rollout from its InferenceService and the route in front of it."""
    metadata, spec = service["metadata"], service["spec"]
    annotations = metadata.get("annotations") or {}
    backends = route["spec"]["rules"][-1]["backendRefs"] if route is not None else []
    weights = {backend["name"]: int(backend.get("weight", 1)) for backend in backends}
    statuses = service.get("status", {}).get("canaryStatuses") or []
    ready = {status["name"]: bool(status.get("ready")) for status in statuses}
    canaries = spec.get("canary") or []

    def build(predictor: Mapping[str, Any], role: str, asked: int, is_ready: bool) -> Variant:
        digest = names.digest_of(predictor["model"]["storageUri"])
        backend = names.service_name(metadata["name"], predictor.get("name"))
        return Variant(
            name=predictor.get("name") or names.STABLE,
            role=role,
            version=digest[:12],
            digest=digest,
            weight=weights.get(backend, 0),
            asked=asked,
            ready=is_ready,
        )

    condition = get_condition(service, "PredictorReady")
    rest = 100 - sum(int(canary.get("trafficPercent", 0)) for canary in canaries)
    stable_ready = condition is not None and condition.get("status") == "True"
    variants = [build(spec["predictor"], "stable", rest, stable_ready)]
    for canary in canaries:
        predictor = canary["predictor"]
        asked = int(canary.get("trafficPercent", 0))
        variants.append(build(predictor, "canary", asked, ready.get(predictor["name"], False)))
    pending = [action for action in (names.PROMOTE, names.ROLLBACK) if action in annotations]
    transition = annotations.get(names.TRANSITION)
    previous = annotations.get(names.PREVIOUS)
    return State(
        name=metadata["name"],
        namespace=metadata["namespace"],
        variants=variants,
        paused=annotations.get(names.PAUSE, "").lower() == "true",
        pending=[action.rpartition("/")[2] for action in pending],
        transition=json.loads(transition) if transition else None,
        previous=names.digest_of(previous)[:12] if previous else None,
    )


@app.command()
def status(project: ProjectFile = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Show each version in front of customers: its share, whether it is ready, what happened last."""
    cluster, name = _connect(project)
    state = _read(cluster, name)
    if as_json:
        display.print_json(state.model_dump(mode="json"))
        return
    rows = [
        (one.role, one.name, one.version, f"{one.weight} %", f"{one.asked} %", "yes" if one.ready else "no")
        for one in state.variants
    ]
    header = ("ROLE", "VARIANT", "VERSION", "TRAFFIC", "ASKED", "READY")
    display.out.print(display.build_table(header, rows, right=(3, 4)))
    facts: dict[str, Any] = {}
    if state.transition:
        facts["last"] = _say_transition(state.transition)
    if state.pending:
        facts["asked for"] = ", ".join(state.pending)
    if state.paused:
        facts["paused"] = "yes: shares stay as they are until `tenure rollout resume`"
    if state.previous:
        facts["before this"] = state.previous
    if facts:
        display.out.print(display.format_facts(facts))


@app.command()
def promote(project: ProjectFile = DEFAULT_PROJECT, timeout: Wait = 60, as_json: Json = False) -> None:
    """Let the canary take over: all traffic first, then the InferenceService. No request is lost."""
    cluster, name = _connect(project)
    state = _read(cluster, name)
    canary = next((variant for variant in state.variants if variant.role == "canary"), None)
    if canary is None:
        raise ConsoleError(f"{name} has no canary to promote; a run of the pipeline makes one", REFUSED)
    _ask(cluster, name, names.PROMOTE, canary.name, {"promoted"}, timeout, as_json)


@app.command()
def rollback(project: ProjectFile = DEFAULT_PROJECT, timeout: Wait = 180, as_json: Json = False) -> None:
    """Take the canary away; or, when there is none, bring back the version that was stable before."""
    cluster, name = _connect(project)
    state = _read(cluster, name)
    variant = next((one for one in state.variants if one.role == "canary"), state.variants[0])
    _ask(cluster, name, names.ROLLBACK, variant.name, {"rolled_back"}, timeout, as_json)


@app.command()
def pause(project: ProjectFile = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Freeze the shares as they are; a rollback still works."""
    _set_pause(project, "true", as_json)


@app.command()
def resume(project: ProjectFile = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Go on after a pause."""
    _set_pause(project, None, as_json)


def _set_pause(project: Path, value: str | None, as_json: bool) -> None:
    cluster, name = _connect(project)
    state = _read(cluster, name)
    cluster.inference.patch(name, {"metadata": {"annotations": {names.PAUSE: value}}})
    if as_json:
        display.print_json(state.model_copy(update={"paused": value is not None}).model_dump(mode="json"))
    else:
        display.out.print(f"{name}: {'resumed' if value is None else 'paused'}")


def _say_transition(transition: Mapping[str, str]) -> str:
    """Say what the pilot did last, as `promoted bfc94dbfbcbc, before 44dd0e6d9c95, at TIME`."""
    words = [transition["outcome"].replace("_", " ")]
    if "digest" in transition:
        words[0] += f" {transition['digest'][:12]}"
    if "previous" in transition:
        words.append(f"before {transition['previous'][:12]}")
    if "reason" in transition:
        words.append(transition["reason"])
    return ", ".join([*words, f"at {transition['at']}"])


def _connect(project: Path) -> tuple[Services, str]:
    return Services.connect(load_settings()), load_project(project).rollout.service


def _read(cluster: Services, name: str) -> State:
    service = cluster.inference.find(name)
    if service is None:
        raise NotFoundError(f"there is no InferenceService {name} yet; `tenure run` trains and makes one")
    return describe_service(service, cluster.routes.find(name))


def _ask(
    cluster: Services, name: str, annotation: str, value: str, goals: set[str], timeout: float, as_json: bool
) -> None:
    """Annotate the InferenceService, then wait until the pilot says what became of it."""
    before = cluster.inference.get(name)["metadata"].get("annotations", {}).get(names.TRANSITION)
    cluster.inference.patch(name, {"metadata": {"annotations": {annotation: value}}})
    deadline = time.monotonic() + timeout
    transition: dict[str, str] = {}
    while time.monotonic() < deadline:
        now = cluster.inference.get(name)["metadata"].get("annotations", {})
        if now.get(names.TRANSITION) not in (None, before):
            transition = json.loads(now[names.TRANSITION])
            if transition["outcome"] != "reverting":
                break
        time.sleep(0.2)
    else:
        asked = annotation.rpartition("/")[2]
        raise ConsoleError(
            f"{name}: {asked} was asked for, but not carried out within {timeout:.0f} s. "
            "It stays asked for; look at `tenure rollout status` and `tenure logs pilot`.",
            FAILED,
        )
    state = _read(cluster, name)
    if as_json:
        display.print_json(state.model_dump(mode="json"))
    if transition["outcome"] not in goals:
        raise ConsoleError(f"{name}: {transition['outcome']}: {transition.get('reason', '')}", REFUSED)
    if not as_json:
        display.out.print(f"{name}: {transition['outcome'].replace('_', ' ')} ({transition['digest'][:12]})")
