"""What the groups of calls share: pages and archiving."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from embedded.runs.listing import select_page
from embedded.runs.records import ARCHIVED, AVAILABLE

Columns = Mapping[str, Callable[[Any], str]]
COMMON_COLUMNS: Columns = {
    "id": lambda record: record.id,
    "name": lambda record: record.display_name,
    "display_name": lambda record: record.display_name,
    "description": lambda record: record.description,
    "created_at": lambda record: record.created_at,
}


def answer_page(
    request: Request,
    key: str,
    items: list[Any],
    columns: Columns,
    show: Callable[[Any], dict[str, Any]],
    scope: str = "",
) -> Response:
    """Answer a list call with the page that its query asks for, under `key`; `scope` as in `select_page`."""
    page = select_page(items, columns, request.query_params, f"{key}/{scope}")
    document: dict[str, Any] = {key: [show(item) for item in page.items], "total_size": page.total}
    if page.next_token:
        document["next_page_token"] = page.next_token
    return JSONResponse(document)


def archive(record: Any) -> Any:
    """Return an experiment or a run as archived."""
    return record.model_copy(update={"storage_state": ARCHIVED})


def unarchive(record: Any) -> Any:
    """Return an experiment or a run as available."""
    return record.model_copy(update={"storage_state": AVAILABLE})
