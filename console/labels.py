"""`tenure labels`: report what became of customers, and look it up."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from clients.detector import Detector, Refusal
from clients.errors import UnreachableError
from clients.ledger.reader import Ledger
from clients.settings import Settings
from clients.store import Store
from console import display
from console.context import open_settings
from console.errors import BAD_INPUT, ConsoleError
from console.options import DEFAULT_PROJECT, Json, ProjectFile, ServiceName
from tenure.contract import Column, Contract, Role, Type
from tenure.outcome import join_outcomes
from tenure.project import load_project
from tenure.snapshot import read_source

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(no_args_is_help=True, help="Report what became of customers, and look it up.")

BATCH = 1000
"""Labels in one request: the detector keeps all that are good in one transaction."""

_SHOWN_ROWS = 50
_NEEDED = ("customer_id", "outcome", "true_at")
_FIELDS = (*_NEEDED, "known_at")
# How a file of labels is read; what its cells mean is the detector's business.
_CONTRACT = Contract(
    columns=(
        Column(name="customer_id", role=Role.ID, type=Type.STRING),
        Column(name="outcome", role=Role.LABEL, type=Type.STRING, positive="left"),
        *(Column(name=name, type=Type.STRING) for name in ("true_at", "known_at")),
    )
)


@app.command()
def add(
    file: Annotated[str, typer.Argument(help="A .csv or .parquet file, or s3://bucket/key of one.")],
    project: ProjectFile = DEFAULT_PROJECT,
    service: ServiceName = "",
    as_json: Json = False,
) -> None:
    """Report outcomes: columns customer_id, outcome, true_at and, unless it is now, known_at.

    Times are ISO 8601, in UTC if they do not say otherwise. Rows that are wrong are listed with the reason,
    the others are kept, and the exit code is 3. The same file again changes nothing if it says known_at.
    """
    stored = file.startswith("s3://")
    settings = open_settings("detector", "store") if stored else open_settings("detector")
    plan = load_project(project)
    frame = _read(file, settings)
    missing = [name for name in _NEEDED if name not in frame.columns]
    if missing:
        raise ConsoleError(f"{file}: has no column {', '.join(missing)}", BAD_INPUT)
    labels = list(_list_labels(frame, service or plan.rollout.service))
    refused: list[Refusal] = []
    with Detector.connect(settings) as detector:
        for start in range(0, len(labels), BATCH):
            try:
                found = detector.post_labels(labels[start : start + BATCH])
            except UnreachableError as error:
                raise UnreachableError(f"{error}\nthe rows before row {start} are done with") from error
            refused += [Refusal(start + one.row, one.field, one.message) for one in found]
    if as_json:
        document = {
            "accepted": len(labels) - len(refused),
            "refused": [{"row": one.row, "field": one.field, "message": one.message} for one in refused],
        }
        display.print_json(document)
    else:
        display.out.print(f"{len(labels) - len(refused)} labels kept")
    for one in refused[:_SHOWN_ROWS]:
        display.err.print(Text(f"not kept: row {one.row}, {one.field}: {one.message}", "yellow"))
    if refused:
        rest = len(refused) - _SHOWN_ROWS
        more = f", {rest} more than shown" if rest > 0 else ""
        raise ConsoleError(
            f"{len(refused)} of {len(labels)} rows are not kept{more}: correct them (row 0 is the first) and "
            "add them anew",
            BAD_INPUT,
        )


@app.command()
def show(
    customer: Annotated[str, typer.Argument(help="The customer's id.")],
    project: ProjectFile = DEFAULT_PROJECT,
    service: ServiceName = "",
    limit: Annotated[int, typer.Option(min=1, help="Predictions to show at most, the newest.")] = 20,
    as_json: Json = False,
) -> None:
    """Show what is known of a customer: every label, and the predictions with the outcome each has by now."""
    settings, plan = open_settings("ledger"), load_project(project)
    ledger, name = Ledger.connect(settings), service or plan.rollout.service
    labels = ledger.read_labels(name, customer=customer)
    predictions = ledger.read_predictions(name, customer=customer, limit=limit, newest=True, features=False)
    horizon = timedelta(days=plan.labels.horizon_days)
    joined = join_outcomes(predictions, labels, horizon, datetime.now(UTC))
    told = [
        {"outcome": row.outcome, "true_at": _show_time(row.true_at), "known_at": _show_time(row.known_at)}
        for row in labels.itertuples()
    ]
    asked = [
        {
            "time": _show_time(row.time),
            "version": row.version,
            "score": row.score,
            "churn": row.churn,
            "outcome": outcome,
        }
        for row, outcome in zip(predictions.itertuples(), joined["outcome"], strict=True)
    ]
    if as_json:
        display.print_json({"customer": customer, "labels": told, "predictions": asked})
        return
    if not told and not asked:
        raise ConsoleError(f"the ledger knows no customer {customer!r} of {name}", BAD_INPUT)
    display.out.print(
        display.build_table(("OUTCOME", "TRUE AT", "KNOWN AT"), [tuple(one.values()) for one in told])
    )
    display.out.print()
    rows = [
        (
            one["time"],
            one["version"],
            f"{one['score']:.3f}",
            "yes" if one["churn"] else "no",
            one["outcome"] or "–",
        )
        for one in asked
    ]
    display.out.print(
        display.build_table(("ASKED", "VERSION", "P(CHURN)", "FLAGGED", "OUTCOME"), rows, right=(2,))
    )


def _read(file: str, settings: Settings) -> pd.DataFrame:
    if not file.startswith("s3://"):
        return read_source(Path(file), None, _CONTRACT)
    with tempfile.TemporaryDirectory() as directory:
        path = Store.connect(settings).get_file(file, Path(directory) / PurePosixPath(file).name)
        return read_source(path, None, _CONTRACT)


def _list_labels(frame: pd.DataFrame, service: str) -> Iterator[dict[str, Any]]:
    """Yield each row as the detector takes it; an empty cell is no field, and a time is text."""
    fields = [name for name in _FIELDS if name in frame.columns]
    columns = [zip(frame[name].astype(object), frame[name].notna(), strict=True) for name in fields]
    for row in zip(*columns, strict=True):
        label: dict[str, Any] = {"service": service}
        for name, (value, known) in zip(fields, row, strict=True):
            if known:
                label[name] = value.isoformat() if isinstance(value, date) else value
        yield label


def _show_time(moment: Any) -> str:
    """Return a moment of the ledger as ISO 8601."""
    return str(moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"))
