"""Refusals of the API, each a Kubernetes `Status`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from embedded.errors import EmbeddedError


@dataclass(frozen=True)
class Cause:
    """One wrong field: its path, why (a Kubernetes cause type) and a sentence for people."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def to_document(self) -> dict[str, str]:
        """Return the cause as `Status.details.causes` holds it."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


class ApiError(EmbeddedError):
    """An answer other than success.

    Attributes:
        code: The HTTP status.
        reason: Kubernetes' machine-readable reason, such as `NotFound`.
        details: `Status.details`, or None.
    """

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = details

    def to_status(self) -> dict[str, Any]:
        """Return the `Status` object that clients are sent."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            "code": self.code,
        }
        if self.details is not None:
            status["details"] = self.details
        return status


def _details(group: str, plural: str, name: str) -> dict[str, Any]:
    details = {"name": name, "group": group, "kind": plural}
    return {key: value for key, value in details.items() if value}


def _qualify(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def not_found(group: str, plural: str, name: str) -> ApiError:
    """Say that an object does not exist (404)."""
    message = f'{_qualify(group, plural)} "{name}" not found'
    return ApiError(HTTPStatus.NOT_FOUND, "NotFound", message, _details(group, plural, name))


def unknown_path(path: str) -> ApiError:
    """Say that the API has no such path (404), and what it has instead."""
    message = (
        f"the laptop platform does not serve {path}: it knows InferenceServices, ServingRuntimes, "
        "HTTPRoutes, namespaces and events (see `kubectl api-resources`)"
    )
    return ApiError(HTTPStatus.NOT_FOUND, "NotFound", message, {})


def already_exists(group: str, plural: str, name: str) -> ApiError:
    """Say that a name is taken (409)."""
    message = f'{_qualify(group, plural)} "{name}" already exists'
    return ApiError(HTTPStatus.CONFLICT, "AlreadyExists", message, _details(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str | None = None) -> ApiError:
    """Say that somebody else changed the object first (409)."""
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    message = f'Operation cannot be fulfilled on {_qualify(group, plural)} "{name}": {why}'
    return ApiError(HTTPStatus.CONFLICT, "Conflict", message, _details(group, plural, name))


def invalid(group: str, plural: str, kind: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """Say which fields are wrong (422)."""
    problems = [f"{cause.field}: {cause.message}" for cause in causes]
    text = problems[0] if len(problems) == 1 else "[" + ", ".join(problems) + "]"
    message = f'{_qualify(group, kind)} "{name}" is invalid: {text}'
    details = _details(group, kind, name) | {"causes": [cause.to_document() for cause in causes]}
    return ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message, details)


def bad_request(message: str) -> ApiError:
    """Say that a request cannot be understood (400)."""
    return ApiError(HTTPStatus.BAD_REQUEST, "BadRequest", message)


def forbidden(group: str, plural: str, name: str, why: str) -> ApiError:
    """Say that something may not be done at all (403)."""
    message = f'{_qualify(group, plural)} "{name}" is forbidden: {why}'
    return ApiError(HTTPStatus.FORBIDDEN, "Forbidden", message, _details(group, plural, name))


def method_not_allowed(method: str, what: str) -> ApiError:
    """Say that a resource is not changed this way (405)."""
    message = f"{method} is not supported on {what}"
    return ApiError(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", message)


def unsupported_media(content_type: str, allowed: Sequence[str], why: str = "") -> ApiError:
    """Say which content types are read (415)."""
    message = (
        f"the content type {content_type or '(none)'!r} is not read here{why}; send one of: "
        + ", ".join(allowed)
    )
    return ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)


def insufficient_storage(message: str) -> ApiError:
    """Say that nothing can be kept at the moment (507)."""
    return ApiError(HTTPStatus.INSUFFICIENT_STORAGE, "InsufficientStorage", message)


def expired(message: str) -> ApiError:
    """Say that a resourceVersion is too old to continue a watch from (410)."""
    return ApiError(HTTPStatus.GONE, "Expired", message)
