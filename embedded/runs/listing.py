"""Filter, order and pages of list calls, as the API's filter.proto and list calls define them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from embedded.runs.errors import BadRequestError

T = TypeVar("T")

DEFAULT_PAGE = 20
LARGEST_PAGE = 200
_OPERATIONS = {
    1: "EQUALS",
    2: "NOT_EQUALS",
    3: "GREATER_THAN",
    5: "GREATER_THAN_EQUALS",
    6: "LESS_THAN",
    7: "LESS_THAN_EQUALS",
    8: "IN",
    9: "IS_SUBSTRING",
}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "EQUALS": lambda found, wanted: found == wanted,
    "NOT_EQUALS": lambda found, wanted: found != wanted,
    "GREATER_THAN": lambda found, wanted: found > wanted,
    "GREATER_THAN_EQUALS": lambda found, wanted: found >= wanted,
    "LESS_THAN": lambda found, wanted: found < wanted,
    "LESS_THAN_EQUALS": lambda found, wanted: found <= wanted,
    "IN": lambda found, wanted: found in wanted,
    "IS_SUBSTRING": lambda found, wanted: wanted in found,
}
_VALUES = ("string_value", "timestamp_value", "int_value", "long_value")
_LISTS = ("string_values", "int_values", "long_values")


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page, the number of all that match, and the token of the next page ("" after the last)."""

    items: list[T]
    total: int
    next_token: str


def select_page(
    items: Iterable[T], columns: Mapping[str, Callable[[T], str]], query: Mapping[str, str], scope: str
) -> Page[T]:
    """Return the page that `query` asks for.

    A token names the last item of the page before it, so that items which come or go in between shift
    nothing.

    Args:
        items: All of them, oldest first; each needs the column `id`.
        columns: What may be filtered and sorted by: name -> text of an item. Must hold `id` and `created_at`.
        query: page_size, page_token, sort_by (`FIELD [asc|desc]`), filter (JSON).
        scope: What else the call was restricted to; a token is good for the same scope, order and filter
            only.

    Raises:
        BadRequestError: A part of the query is wrong.
    """
    column, descending = _read_order(query.get("sort_by") or "created_at asc", columns)
    size = _read_size(query.get("page_size") or "0")
    matches = _read_filter(query.get("filter") or "", columns)
    read_key, read_id = columns[column], columns["id"]
    found = sorted(
        (item for item in items if matches(item)),
        key=lambda item: (read_key(item), read_id(item)),
        reverse=descending,
    )
    binding = [scope, query.get("sort_by") or "", query.get("filter") or ""]
    rest = found
    token = query.get("page_token") or ""
    if token:
        last = _read_token(token, binding)
        rest = [
            item
            for item in found
            if (
                (read_key(item), read_id(item)) < last
                if descending
                else (read_key(item), read_id(item)) > last
            )
        ]
    page = rest[:size]
    next_token = ""
    if len(rest) > size:
        next_token = _write_token((read_key(page[-1]), read_id(page[-1])), binding)
    return Page(page, len(found), next_token)


def _read_order(text: str, columns: Mapping[str, Any]) -> tuple[str, bool]:
    parts = text.split()
    if len(parts) not in (1, 2) or (len(parts) == 2 and parts[1].lower() not in ("asc", "desc")):
        raise BadRequestError(f"sort_by must be `FIELD`, `FIELD asc` or `FIELD desc`, not {text!r}")
    if parts[0] not in columns:
        raise BadRequestError(f"cannot sort by {parts[0]!r}; choose one of {', '.join(sorted(columns))}")
    return parts[0], len(parts) == 2 and parts[1].lower() == "desc"


def _read_size(text: str) -> int:
    try:
        size = int(text)
    except ValueError:
        size = -1
    if size < 0:
        raise BadRequestError(f"page_size must be a whole number from 0 on, not {text!r}")
    return min(size or DEFAULT_PAGE, LARGEST_PAGE)


def _read_filter(text: str, columns: Mapping[str, Callable[[T], str]]) -> Callable[[T], bool]:
    if not text:
        return lambda item: True
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BadRequestError(f"filter is not JSON: {error}") from error
    predicates = document.get("predicates") if isinstance(document, dict) else None
    if not isinstance(predicates, list) or not all(isinstance(entry, dict) for entry in predicates):
        raise BadRequestError('filter must be {"predicates": [{"operation", "key", "string_value"}]}')
    tests = [_read_predicate(entry, columns) for entry in predicates]
    return lambda item: all(test(item) for test in tests)


def _read_predicate(
    document: Mapping[str, Any], columns: Mapping[str, Callable[[T], str]]
) -> Callable[[T], bool]:
    entry = {_to_snake_case(key): value for key, value in document.items()}
    operation = entry.get("operation")
    operation = _OPERATIONS.get(operation, "") if isinstance(operation, int) else str(operation)
    if operation not in _COMPARISONS:
        raise BadRequestError(
            f"filter: unknown operation {entry.get('operation')!r}; choose one of {', '.join(_COMPARISONS)}"
        )
    key = str(entry.get("key"))
    if key not in columns:
        raise BadRequestError(f"cannot filter by {key!r}; choose one of {', '.join(sorted(columns))}")
    names = _LISTS if operation == "IN" else _VALUES
    given = [name for name in names if name in entry]
    if len(given) != 1:
        raise BadRequestError(f"filter by {key!r}: {operation} needs exactly one of {', '.join(names)}")
    value = entry[given[0]]
    wanted: Any = str(value)
    if operation == "IN":
        values = value.get("values") if isinstance(value, dict) else value
        if not isinstance(values, list):
            raise BadRequestError(f'filter by {key!r}: {given[0]} must be {{"values": [...]}}')
        wanted = {str(entry) for entry in values}
    read, compare = columns[key], _COMPARISONS[operation]
    return lambda item: compare(read(item), wanted)


def _write_token(last: tuple[str, str], binding: list[str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([list(last), binding]).encode()).decode("ascii")


def _read_token(token: str, binding: list[str]) -> tuple[str, str]:
    try:
        last, bound = json.loads(base64.urlsafe_b64decode(token.encode("ascii")))
        value, identity = map(str, last)
    except (ValueError, TypeError) as error:
        raise BadRequestError("page_token is not one that this API gave; start again without it") from error
    if bound != binding:
        raise BadRequestError("page_token belongs to a list call with another order, filter or scope")
    return value, identity


def _to_snake_case(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
