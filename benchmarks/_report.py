"""What benchmarks/serving.py has measured: its tables, its ratios, and which goals are met."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
from _load import Load

OURS, STOCK, USUAL = "tenure", "kserve", "fastapi, usual pipeline"
FLOOR = "grpc.aio, remembered answers"
FAMILIES = {"json": "JSON", "rows": "JSON", "codes": "JSON", "binary": "binary"}  # the others are themselves
CPU_GOAL, PIPELINE_GOAL, START_GOAL = 7.0, 40.0, 1.5


@dataclass
class Cell:
    """One server under one kind of load; a round without an answer is None."""

    server: str
    kind: str
    rows: int
    clients: int
    loads: list[Load | None] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def family(self) -> str:
        """What it is compared with: FastAPI's JSON is no V2, but does the same job."""
        return FAMILIES.get(self.kind, self.kind)

    def middle(self, measure: str) -> float | None:
        """Return the median of the rounds."""
        values = [getattr(load, measure) for load in self.loads if load is not None]
        return statistics.median(values) if values else None

    def compare(self, other: Cell, measure: str) -> float | None:
        """Return the median over the rounds of ours divided by the other's in the same round."""
        ratios = [
            getattr(ours, measure) / getattr(theirs, measure)
            for ours, theirs in zip(self.loads, other.loads, strict=True)
            if ours is not None and theirs is not None and getattr(theirs, measure)
        ]
        return statistics.median(ratios) if ratios else None


@dataclass
class Start:
    """How long the starts of one server took, and the memory that it then had."""

    seconds: list[float] = field(default_factory=list)
    ready_mib: list[float] = field(default_factory=list)
    loaded_mib: float | None = None


@dataclass
class Goal:
    """A goal under one kind of load. `reached` is at least 1 where it is met."""

    goal: str
    where: str
    measured: str
    reached: float | None

    @property
    def verdict(self) -> str:
        if self.reached is None:
            return "not measured"
        return f"yes, {self.reached:.2f} of it" if self.reached >= 1 else f"no, {self.reached:.2f} of it"


@dataclass
class Report:
    """Everything that was measured."""

    machine: dict[str, Any]
    starts: dict[str, Start] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    events: dict[str, float] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)

    def to_document(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "machine": self.machine,
            "starts": {name: asdict(start) for name, start in self.starts.items()},
            "cells": msgspec.to_builtins(self.cells),
            "events": self.events,
            "goals": [{**asdict(goal), "verdict": goal.verdict} for goal in self.goals],
        }

    def pairs(self, server: str | None = None, *, floor: bool = False) -> Iterator[tuple[Cell, list[Cell]]]:
        """Give each of our cells with the cells of one server, or of all, under the same kind of load.

        The floor is only among them if it is asked for: nobody can be quicker.
        """
        for ours in self.cells:
            if ours.server != OURS:
                continue
            others = [
                cell
                for cell in self.cells
                if cell.server not in (OURS, *(() if floor else (FLOOR,)))
                and server in (None, cell.server)
                and (cell.family, cell.rows, cell.clients) == (ours.family, ours.rows, ours.clients)
            ]
            if others:
                yield ours, others


def judge(report: Report) -> list[Goal]:
    """Compare what was measured with the goals; each counts at its worst number of clients."""
    goals = [
        *judge_ratio(
            report, STOCK, f"CPU a request at most 1/{CPU_GOAL:.0f} of kserve's", "cpu_us", CPU_GOAL
        ),
        *judge_tails(report),
        *judge_ratio(
            report, USUAL, f"{PIPELINE_GOAL:.0f} times the usual pipeline", "per_second", PIPELINE_GOAL
        ),
    ]
    ours, stock = report.starts[OURS], report.starts[STOCK]
    if ours.loaded_mib is not None and stock.loaded_mib is not None:
        measured = f"{ours.loaded_mib:.0f} MiB, kserve {stock.loaded_mib:.0f} MiB"
        goals.append(
            Goal("memory below kserve's", "after the load", measured, stock.loaded_mib / ours.loaded_mib)
        )
    seconds = statistics.median(ours.seconds)
    goals.append(Goal(f"ready within {START_GOAL} s", "launch", f"{seconds:.2f} s", START_GOAL / seconds))
    return goals


def judge_ratio(report: Report, server: str, goal: str, measure: str, needed: float) -> Iterator[Goal]:
    """Judge ours against one server, for each kind of load."""
    found: dict[tuple[str, int], dict[int, float | None]] = {}
    for ours, (theirs, *_) in report.pairs(server):
        ratio = ours.compare(theirs, measure)
        if measure == "cpu_us" and ratio:
            ratio = 1 / ratio  # less is better
        found.setdefault((ours.family, ours.rows), {})[ours.clients] = ratio
    sign = "1/" if measure == "cpu_us" else "x "
    for (family, rows), ratios in found.items():
        known = [ratio for ratio in ratios.values() if ratio is not None]
        measured = ", ".join(f"c={clients} {sign}{show(ratio)}" for clients, ratio in ratios.items())
        worst = min(known) / needed if len(known) == len(ratios) else None
        yield Goal(goal, f"{family}, {count_rows(rows)}", measured, worst)


def judge_tails(report: Report) -> Iterator[Goal]:
    """Judge our p99 against the lowest of all peers."""
    found: dict[tuple[str, int], list[tuple[str, float | None]]] = {}
    for ours, others in report.pairs():
        own = ours.middle("p99_ms")
        tails = [(tail, cell.server) for cell in others if (tail := cell.middle("p99_ms")) is not None]
        entries = found.setdefault((ours.family, ours.rows), [])
        if own is None or not tails:
            entries.append((f"c={ours.clients} -", None))
            continue
        tail, server = min(tails)
        entries.append((f"c={ours.clients} {own:.2f} ms, {server} {tail:.2f}", tail / own))
    for (family, rows), entries in found.items():
        known = [ratio for _, ratio in entries if ratio is not None]
        worst = min(known) if len(known) == len(entries) else None
        measured = "; ".join(text for text, _ in entries)
        yield Goal("p99 below every peer's", f"{family}, {count_rows(rows)}", measured, worst)


def print_report(report: Report) -> None:
    """Print Markdown."""
    machine = report.machine
    print(
        f"# Serving\n\n{machine['trees']} trees of depth {machine['depth']}, {machine['features']} features, "
        f"{machine['cores']} cores, load average {machine['load_average']:.1f} before. Medians of "
        f"{machine['rounds']} rounds of {machine['seconds']:g} s; CPU is that of all processes of a server. "
        f"{machine['minutes']} minutes in all."
    )
    print_starts(report)
    print_loads(report)
    print_ratios(report)
    print("\n## Goals\n\n| goal | where | measured | met |\n|---|---|---|---|")
    for goal in report.goals:
        print(f"| {goal.goal} | {goal.where} | {goal.measured} | {goal.verdict} |")
    print_notes(report)


def print_starts(report: Report) -> None:
    print("\n## Start and memory\n\n| server | ready after s | of starts | MiB when ready | MiB after load |")
    print("|---|---|---|---|---|")
    for name, start in report.starts.items():
        several = ", ".join(f"{seconds:.2f}" for seconds in start.seconds)
        print(
            f"| {name} | {statistics.median(start.seconds):.2f} | {several} "
            f"| {statistics.median(start.ready_mib):.0f} | {show(start.loaded_mib, 0)} |"
        )


def print_loads(report: Report) -> None:
    for rows in sorted({cell.rows for cell in report.cells}):
        print(f"\n## {count_rows(rows).capitalize()} a request\n")
        print("| server | request | clients | requests/s | p50 ms | p99 ms | CPU us/request |")
        print("|---|---|---|---|---|---|---|")
        for cell in sorted(
            (cell for cell in report.cells if cell.rows == rows), key=lambda cell: (cell.family, cell.clients)
        ):
            print(
                f"| {cell.server} | {cell.kind} | {cell.clients} | {show(cell.middle('per_second'), 0)} "
                f"| {show(cell.middle('p50_ms'), 2)} | {show(cell.middle('p99_ms'), 2)} "
                f"| {show(cell.middle('cpu_us'), 0)} |"
            )


def print_ratios(report: Report) -> None:
    print("\n## Ours against each\n\n| server | request | rows | clients | requests/s | CPU | p99 |")
    print("|---|---|---|---|---|---|---|")
    for ours, others in report.pairs(floor=True):
        for cell in others:
            rate, cpu, tail = (ours.compare(cell, name) for name in ("per_second", "cpu_us", "p99_ms"))
            print(
                f"| {cell.server} | {cell.kind} | {cell.rows} | {cell.clients} | x {show(rate)} "
                f"| 1/{show(1 / cpu if cpu else None)} | 1/{show(1 / tail if tail else None)} |"
            )


def print_notes(report: Report) -> None:
    """Say what the load itself cost, what became of the events, and what went wrong."""
    costs: dict[str, list[float]] = {}
    for cell in report.cells:
        cost = cell.middle("client_cpu_us")
        if cost is not None:
            costs.setdefault("gRPC" if cell.kind.startswith("grpc") else "HTTP", []).append(cost)
    for wire, values in costs.items():
        print(f"\nThe load generator used {statistics.median(values):.0f} us of CPU a request over {wire}.")
    counts = ", ".join(f"{count:.0f} {outcome}" for outcome, count in sorted(report.events.items()))
    print(f"\nEvents of ours: {counts}.")
    for cell in report.cells:
        for error in cell.errors:
            print(
                f"\n**{cell.server}, {cell.kind}, {count_rows(cell.rows)}, {cell.clients} clients**: {error}"
            )


def count_rows(rows: int) -> str:
    return "one row" if rows == 1 else f"{rows} rows"


def show(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
