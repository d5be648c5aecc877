"""`tenure predict`: ask the serving model about customers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from clients import names
from clients.inference import InferenceClient, Predictions
from clients.settings import Settings
from console import display
from console.context import open_settings
from console.errors import BAD_INPUT, ConsoleError
from console.options import DEFAULT_PROJECT, Json, ProjectFile
from tenure.contract import Contract, Type
from tenure.project import Project, load_project

BATCH = 500
"""Rows per request."""

_SHOWN_ROWS = 50


def open_client(settings: Settings, project: Project) -> InferenceClient:
    """Open a connection to the gateway for the project's service."""
    rollout = project.rollout
    namespace = rollout.namespace or settings.namespace
    host = names.hostname(rollout.service, namespace, settings.ingress_domain)
    return InferenceClient(settings.gateway_url, host)


def predict(
    file: Annotated[
        Path | None,
        typer.Argument(help="Customers as .csv, .parquet or .json (one object or a list); - reads JSON."),
    ] = None,
    row: Annotated[str | None, typer.Option("--row", help="One customer as a JSON object.")] = None,
    project: ProjectFile = DEFAULT_PROJECT,
    variant: Annotated[
        str | None, typer.Option(help="Ask this variant (see `tenure rollout status`), whatever the split.")
    ] = None,
    reasons: Annotated[bool, typer.Option("--reasons", help="Say what weighed most for each.")] = False,
    as_json: Json = False,
) -> None:
    """Ask the serving model how likely customers are to leave.

    Rows of a file that break the contract are not sent: they are listed with the reason, the others are
    answered, and the exit code is 3. Example: tenure predict data/telco.csv
    """
    settings, plan = open_settings("gateway"), load_project(project)
    if (file is None) == (row is None):
        raise ConsoleError("give one FILE or one --row; `tenure predict --help` shows both", BAD_INPUT)
    ids, rows, bad = _read_rows(file, row, plan.contract)
    results: list[dict[str, Any]] = []
    with open_client(settings, plan) as client:
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            part_ids = ids[start : start + BATCH] if ids is not None else None
            answer = client.predict(
                plan.rollout.service,
                part,
                plan.contract,
                customer_ids=part_ids,
                variant=variant,
                reasons=reasons,
            )
            results.extend(_list_results(answer, part_ids))
    if as_json:
        display.print_json({"predictions": results, "bad": bad})
    else:
        _print_results(results)
    if bad:
        for problem in bad[:_SHOWN_ROWS]:
            place = f"row {problem['row']}, {problem['column']}"
            display.err.print(Text(f"not sent: {place}: {problem['rule']}: {problem['value']!r}", "yellow"))
        broken = len({problem["row"] for problem in bad})
        raise ConsoleError(f"{broken} rows of {file} break the contract and were not sent", BAD_INPUT)


def _read_rows(
    file: Path | None, row: str | None, contract: Contract
) -> tuple[list[str] | None, list[dict[str, Any]], list[dict[str, Any]]]:
    """Return ids (if there are any), rows, and the violations of rows that were left out."""
    if file is None or str(file) == "-" or file.suffix == ".json":
        rows = _parse_json(row, file)
        known = contract.id.name
        if all(known in one for one in rows):
            return [str(one[known]) for one in rows], [_pick_features(one, contract) for one in rows], []
        return None, [_pick_features(one, contract) for one in rows], []
    return _read_table(file, contract)


def _parse_json(text: str | None, file: Path | None) -> list[dict[str, Any]]:
    where = "--row" if text is not None else str(file)
    try:
        if text is None:
            assert file is not None  # noqa: S101
            text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        document = json.loads(text)
    except OSError as error:
        raise ConsoleError(f"{where}: cannot be read: {error.strerror}", BAD_INPUT) from error
    except ValueError as error:
        raise ConsoleError(f"{where}: is not JSON: {error}", BAD_INPUT) from error
    rows = document if isinstance(document, list) else [document]
    if not rows or not all(isinstance(one, dict) for one in rows):
        raise ConsoleError(f"{where}: expected one JSON object, or a list of them", BAD_INPUT)
    return rows


def _pick_features(row: dict[str, Any], contract: Contract) -> dict[str, Any]:
    """Return the row's features; a key that is no column of the contract is a typing error."""
    known = {column.name for column in contract.columns}
    unknown = sorted(set(row) - known)
    if unknown:
        raise ConsoleError(
            f"{', '.join(unknown)}: not in the contract; its columns are: {', '.join(sorted(known))}",
            BAD_INPUT,
        )
    return {column.name: row.get(column.name) for column in contract.features}


def _read_table(
    file: Path, contract: Contract
) -> tuple[list[str], list[dict[str, Any]], list[dict[str, Any]]]:
    from tenure.snapshot import read_source
    from tenure.validation import validate_frame

    frame = read_source(file, None, contract)
    label = contract.label
    # Who is asked about has no label yet; a file that has one is welcome too.
    frame[label.name] = label.positive if label.type is Type.STRING else True
    if contract.time is not None and contract.time.name not in frame:
        frame[contract.time.name] = "1970-01-01T00:00:00Z"
    validated = validate_frame(frame, contract)
    good = validated.good
    rows = good[[column.name for column in contract.features]].to_dict("records")
    bad = validated.bad.to_dict("records")
    return [str(one) for one in good[contract.id.name]], rows, bad  # type: ignore[return-value]


def _list_results(answer: Predictions, ids: list[str] | None) -> Iterator[dict[str, Any]]:
    for index, probability in enumerate(answer.probabilities):
        result: dict[str, Any] = {"id": ids[index] if ids is not None else None}
        result |= {"churn_probability": probability, "churn": answer.churn[index]}
        result["version"] = answer.version
        if answer.reasons is not None:
            result["reasons"] = json.loads(answer.reasons[index])
        yield result


def _print_results(results: list[dict[str, Any]]) -> None:
    shown = results[:_SHOWN_ROWS]
    with_reasons = any("reasons" in one for one in shown)
    rows = [
        (
            one["id"] or "",
            f"{one['churn_probability']:.3f}",
            Text("leaves", "red") if one["churn"] else Text("stays", "green"),
            one["version"],
            *([_say_reasons(one["reasons"])] if with_reasons else []),
        )
        for one in shown
    ]
    header = ("CUSTOMER", "P(LEAVES)", "DECISION", "VERSION", *(["REASONS"] if with_reasons else []))
    display.out.print(display.build_table(header, rows, right=(1,)))
    if len(results) > len(shown):
        display.out.print(f"and {len(results) - len(shown)} more; --json prints all")


def _say_reasons(reasons: Any) -> str:
    pairs = reasons.items() if isinstance(reasons, dict) else reasons
    return ", ".join(
        f"{pair[0]} {pair[1]:+.2f}" if not isinstance(pair, dict) else json.dumps(pair) for pair in pairs
    )
