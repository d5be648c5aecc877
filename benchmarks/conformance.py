"""The Open Inference Protocol's conformance kit on our predictor, on stock KServe and on MLServer.

    python benchmarks/conformance.py [--requests 10000] [--seed 1] [--write]

All three serve the same bundle and get the same requests: first every check, then generated requests. What
ours answers to those is held against the bundle's own predictions; what a peer answers, against its answers
to the same rows alone. --write puts the result into docs/conformance.md. Needs `make environment-peers`.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from _oracle import BundleOracle
from _servers import NAME, ROOT, build_predictor_command, find_port, run, train_bundle

from oip_conformance.checks import Failure, list_checks
from oip_conformance.fuzzing import Tally, fuzz, render_tally
from oip_conformance.runner import run_checks
from oip_conformance.scorecard import Scorecard, render_counts, render_text
from oip_conformance.session import open_session
from oip_conformance.target import Target
from tenure.bundle import load_bundle

PAGE = ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- begin: written by make conformance -->", "<!-- end -->"
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
DATATYPES = {"string": "BYTES", "float": "FP64", "integer": "INT64", "boolean": "BOOL"}
ROWS = 12


@dataclass(frozen=True)
class Contender:
    """One server and what it did."""

    name: str
    version: str
    card: Scorecard
    tally: Tally


def write_example(file: Path, directory: Path) -> None:
    """Write a request of some rows that have every value."""
    bundle = load_bundle(directory)
    columns = bundle.contract.features
    rows = [row for row in bundle.probe() if all(row[column.name] is not None for column in columns)][:ROWS]
    inputs = [
        {
            "name": column.name,
            "shape": [len(rows)],
            "datatype": DATATYPES[column.type],
            "data": [row[column.name] for row in rows],
        }
        for column in columns
    ]
    file.write_text(json.dumps({"inputs": inputs}), encoding="utf-8")


def list_commands(directory: Path) -> Iterator[tuple[str, list[str], int, int]]:
    """Return name, command and both ports of each server."""
    port, grpc_port = find_port(), find_port()
    yield "Tenure", build_predictor_command(directory, port, grpc_port, None), port, grpc_port
    for name, python, module in (
        ("KServe", sys.executable, "benchmarks.peers.stock_kserve"),
        ("MLServer", str(PEERS_PYTHON), "benchmarks.peers.mlserver"),
    ):
        port, grpc_port = find_port(), find_port()
        command = [python, "-m", module, "--bundle", str(directory), "--name", NAME]
        yield name, [*command, "--port", str(port), "--grpc-port", str(grpc_port)], port, grpc_port


def check(count: int, seed: int) -> Iterator[Contender]:
    """Run the checks and the generated requests on one server after the other."""
    with tempfile.TemporaryDirectory() as folder:
        directory, example = Path(folder) / "bundle", Path(folder) / "example.json"
        train_bundle(directory)
        write_example(example, directory)
        for name, command, port, grpc_port in list_commands(directory):
            target = Target(f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", NAME, example)
            oracle = BundleOracle(load_bundle(directory)) if name == "Tenure" else None
            with (
                run(name, command, port, Path(folder) / f"{name}.log", grpc_port),
                open_session(target) as one,
            ):
                card = Scorecard.collect(one, run_checks(one, list_checks()))
                yield Contender(name, find_version(name, card), card, fuzz(one, count, seed, oracle))


def find_version(name: str, card: Scorecard) -> str:
    """Return the server's version."""
    return importlib.metadata.version("tenure") if name == "Tenure" else card.server.rpartition(" ")[2]


def tabulate(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]


def render(contenders: list[Contender], count: int, seed: int) -> str:
    """Return the generated part of the page."""
    names = [f"{one.name} {one.version}" for one in contenders]
    packages = ", ".join(
        f"{one} {importlib.metadata.version(one)}" for one in ("grpcio", "httpx", "protobuf")
    )
    lines = [f"Python {platform.python_version()}, {packages}; {len(list_checks())} checks.", ""]
    lines += ["Rules kept, of those that apply: binding, and advised.", ""]
    tables = [render_counts(one.card)[1:] for one in contenders]
    rows = [
        [title, *("-" if must == "-" else f"{must}, {should}" for _, must, should, _ in part)]
        for (title, *_), part in ((parts[0], parts) for parts in zip(*tables, strict=True))
    ]
    lines += [*tabulate(["", *names], rows), "", "How the others failed:", ""]
    ways = [one.card.count_failures() for one in contenders]
    lines += tabulate(["", *names], [[way.value, *(str(each[way]) for each in ways)] for way in Failure])
    lines += [
        "",
        f"{count:,} generated requests of seed {seed}, over every transport that the server has:",
        "",
    ]
    sums = [sum_outcomes(one.tally) for one in contenders]
    outcomes = sorted({outcome for each in sums for outcome in each})
    lines += tabulate(["", *names], [[one, *(f"{each[one]:,}" for each in sums)] for one in outcomes])
    lines += ["", "### Every check that one of them fails", "", *list_failures(contenders)]
    return "\n".join(lines)


def sum_outcomes(tally: Tally) -> Counter[str]:
    totals: Counter[str] = Counter()
    for (_, outcome), number in tally.outcomes.items():
        totals[outcome] += number
    return totals


def list_failures(contenders: list[Contender]) -> list[str]:
    """Return the table of the checks that somebody fails."""
    rows = []
    for each in zip(*(one.card.rows for one in contenders), strict=True):
        asked = each[0][0]
        if any(found.failure for _, found in each):
            words = [str(found.failure or found.verdict) for _, found in each]
            rows.append([f"`{asked.id}`", asked.level.value, asked.rule.replace("|", "\\|"), *words])
    return tabulate(["check", "level", "rule or request", *(one.name for one in contenders)], rows)


def write_page(text: str) -> None:
    """Put the result between the page's marks."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{PAGE.name} lacks its marks: {BEGIN} and {END}")
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000, help="that are generated for each server")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="the result into docs/conformance.md")
    options = parser.parse_args()
    if not PEERS_PYTHON.exists():
        raise SystemExit(f"there is no {PEERS_PYTHON.relative_to(ROOT)}: run `make environment-peers`")
    contenders = []
    for one in check(options.requests, options.seed):
        print(f"\n== {one.name}\n\n{render_text(one.card)}\n\n{render_tally(one.tally)}", flush=True)
        contenders.append(one)
    if options.write:
        write_page(render(contenders, options.requests, options.seed))
    own = contenders[0]
    if own.tally.misses:
        raise SystemExit(f"{len(own.tally.misses)} generated requests were not answered as they should")


if __name__ == "__main__":
    main()
