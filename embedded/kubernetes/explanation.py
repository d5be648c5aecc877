"""What is wrong with an object, said as a real API server says it: by field, with its path."""

from __future__ import annotations

from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from embedded.kubernetes.errors import Cause
from embedded.kubernetes.schemas import Schema


def check_schema(model: type[Schema], body: dict[str, Any]) -> list[Cause]:
    """Return one cause for each field of `body` that is unknown, missing or wrong; none when all is well."""
    try:
        model.model_validate(body)
    except ValidationError as error:
        return [_explain(model, problem) for problem in error.errors(include_url=False)]
    return []


def _explain(model: type[BaseModel], problem: Any) -> Cause:
    """Turn one of pydantic's problems into a cause with a path as Kubernetes writes it."""
    location: tuple[str | int, ...] = problem["loc"]
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    path = path.lstrip(".")
    if problem["type"] == "extra_forbidden":
        known = ", ".join(sorted(_list_fields(model, location[:-1])))
        message = f"Forbidden: unknown here, or not done on the laptop platform; known fields: {known}"
        return Cause(path, message, "FieldValueForbidden")
    if problem["type"] == "missing":
        return Cause(path, "Required value", "FieldValueRequired")
    if problem["type"] == "literal_error":
        message = f"Unsupported value: {problem['input']!r}: supported: {problem['ctx']['expected']}"
        return Cause(path, message, "FieldValueNotSupported")
    shown = problem["input"]
    value = f"{shown!r}: " if isinstance(shown, str | int | float) else ""
    return Cause(path, f"Invalid value: {value}{problem['msg']}")


def _list_fields(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Return the field names that are known at `location` below `model`."""
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        by_alias = {field.alias or name: field for name, field in current.model_fields.items()}
        current = _find_model(by_alias[part].annotation)
    return [field.alias or name for name, field in current.model_fields.items()]


def _find_model(annotation: Any) -> Any:
    """Return the schema inside `X | None`, `list[X]` and the like; None when there is none."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, dict, Union, Annotated) or get_args(annotation):
        for argument in get_args(annotation):
            found = _find_model(argument)
            if found is not None:
                return found
    return None
