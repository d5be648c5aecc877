"""What the five addresses answer when they are asked for something real."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import func, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from clients import names
from clients.errors import ClientError, NotFoundError
from clients.kubeflow import Kubeflow
from clients.ledger import schema
from clients.ledger.engine import open_engine
from clients.settings import Settings
from clients.store import Store
from clients.tracking import Tracking
from console.context import Need
from console.doctor.document import shorten
from console.doctor.observation import Answer
from console.errors import ConsoleError

Open = Callable[[Need], Settings]
"""Returns settings by which one address can be reached from here."""

_HOUR = 3_600_000_000
_TIMEOUT = 10.0


def ask_addresses(
    open_address: Open, pipeline: Path, services: list[dict[str, Any]]
) -> Iterator[tuple[str, Answer]]:
    """Ask each address for something real; none keeps the others from being asked.

    Args:
        open_address: The way to an address.
        pipeline: The compiled training pipeline that belongs to this code.
        services: InferenceServices whose models are to answer.
    """
    questions: tuple[tuple[str, Need, Callable[[Settings], str | Answer]], ...] = (
        ("store", "store", _ask_store),
        ("tracking", "tracking", _ask_tracking),
        ("ledger", "ledger", _ask_ledger),
        ("events", "ledger", _ask_events),
        ("runs", "runs", _ask_runs),
        ("pipeline", "runs", lambda settings: _ask_pipeline(settings, pipeline)),
    )
    silent: set[str] = set()
    for name, need, question in questions:
        if need in silent:
            continue  # said once
        answer = _ask(question, open_address, need)
        if not answer.good and name in ("ledger", "runs"):
            silent.add(need)
        yield name, answer
    for service in services:
        ask = _make_question(service)
        yield f"model {service['metadata']['name']}", _ask(ask, open_address, "gateway")


def _ask(question: Callable[[Settings], str | Answer], open_address: Open, need: Need) -> Answer:
    try:
        said = question(open_address(need))
    except (ClientError, ConsoleError) as error:
        return Answer(good=False, text=shorten(str(error)))
    return said if isinstance(said, Answer) else Answer(good=True, text=said)


def _ask_store(settings: Settings) -> str:
    store = Store.connect(settings)
    found = store.list(f"s3://{settings.s3_bucket}/bundles/")
    bundles = {stored.uri.split("/")[4] for stored in found if stored.uri.count("/") > 4}
    return f"bucket {settings.s3_bucket} is readable ({len(bundles)} bundles)"


def _ask_tracking(settings: Settings) -> str:
    from mlflow.exceptions import MlflowException

    tracking = Tracking.connect(settings)
    with tracking.translate("listing models"):
        try:
            found = tracking.client.search_registered_models(max_results=100)
        except MlflowException as error:
            if "401" not in str(error):
                raise
            raise ConsoleError("it refuses the login") from error
    return f"it lets us in ({len(found)} registered models)"


def _ask_ledger(settings: Settings) -> str | Answer:
    if settings.ledger_url is None:
        return Answer(good=False, text="TENURE_LEDGER_URL is not set")
    engine = open_engine(settings.ledger_url.get_secret_value(), read_only=True)
    try:
        inspector = inspect(engine)
        there = set(inspector.get_table_names())
        missing = [name for name in schema.metadata.tables if name not in there]
        missing += [
            f"{table.name}.{column.name}"
            for table in schema.metadata.sorted_tables
            if table.name in there
            for column in table.columns
            if column.name not in {one["name"] for one in inspector.get_columns(table.name)}
        ]
    except SQLAlchemyError as error:
        return Answer(good=False, text=_explain(error))
    finally:
        engine.dispose()
    if missing:
        return Answer(good=False, text=f"it is older than this code: {', '.join(missing[:5])} missing")
    return "its tables are those of this code"


def _ask_events(settings: Settings) -> str | Answer:
    if settings.ledger_url is None:
        return Answer(good=False, text="?TENURE_LEDGER_URL is not set")
    since = time.time_ns() // 1000 - _HOUR
    engine = open_engine(settings.ledger_url.get_secret_value(), read_only=True)
    predictions, letters, losses = schema.predictions, schema.dead_letters, schema.losses
    try:
        with engine.connect() as connection:
            newest = connection.execute(select(func.max(predictions.c.recorded_at))).scalar()
            dead = _count(connection, letters, letters.c.received_at, since)
            lost = _count(connection, losses, losses.c.time, since)
    except SQLAlchemyError as error:
        return Answer(good=False, text=_explain(error))
    finally:
        engine.dispose()
    if dead or lost:
        return Answer(
            good=False, text=f"in the last hour {dead} could not be understood and {lost} lost their half"
        )
    if newest is None:
        return "none has come yet"
    age = max(0.0, time.time() - newest / 1e6)
    return f"the newest prediction was recorded {_say_age(age)} ago; none lost in the last hour"


def _ask_runs(settings: Settings) -> str:
    Kubeflow.connect(settings)
    return "the pipelines API takes our token"


def _ask_pipeline(settings: Settings, pipeline: Path) -> str | Answer:
    try:
        version = Kubeflow.connect(settings).find_version()
    except NotFoundError:
        return Answer(good=False, text="it was never uploaded")
    if not pipeline.is_file():
        return f"version {version.name}"
    ours = hashlib.sha256(pipeline.read_bytes()).hexdigest()[:12]
    if version.name.partition("-")[0] != ours:
        return Answer(good=False, text=f"the newest version there is {version.name}, this code's is {ours}")
    return f"version {version.name} is this code's"


def _make_question(service: Mapping[str, Any]) -> Callable[[Settings], str | Answer]:
    name = service["metadata"]["name"]

    def ask(settings: Settings) -> str | Answer:
        host = names.hostname(name, service["metadata"]["namespace"], settings.ingress_domain)
        url = f"{settings.gateway_url.rstrip('/')}/v2/models/{name}/ready"
        try:
            answer = httpx.get(url, headers={"host": host}, timeout=_TIMEOUT, trust_env=False)
        except httpx.TransportError as error:
            return Answer(good=False, text=f"the gateway at {settings.gateway_url} does not answer ({error})")
        if answer.status_code == 200:
            return "answers through the gateway"
        what = {
            404: "the gateway knows no route for it (404)",
            503: "the gateway has nobody to pass it to (503)",
        }.get(answer.status_code, f"status {answer.status_code}: {shorten(answer.text, 120)}")
        return Answer(good=False, text=f"{what}, asked as {host}")

    return ask


def _count(connection: Any, table: Any, column: Any, since: int) -> int:
    return int(
        connection.execute(select(func.count()).select_from(table).where(column >= since)).scalar_one()
    )


def _explain(error: SQLAlchemyError) -> str:
    """Return the database's own words: SQLAlchemy's would show the statement."""
    return shorten(str(getattr(error, "orig", None) or error))


def _say_age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
