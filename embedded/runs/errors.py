"""Errors of the runs API; each class is bound to its HTTP status and its gRPC code."""

from __future__ import annotations

from typing import Any, ClassVar

from embedded.errors import EmbeddedError


class ApiError(EmbeddedError):
    """Base of what the API answers with; the text is shown to the person who asked."""

    status: ClassVar[int] = 500
    code: ClassVar[int] = 13

    def to_document(self) -> dict[str, Any]:
        """Return the body as Kubeflow's API server writes it: a `google.rpc.Status` with its text twice."""
        return make_status_document(self.code, str(self))


class BadRequestError(ApiError):
    """The request, a pipeline or a parameter is wrong (INVALID_ARGUMENT)."""

    status = 400
    code = 3


class PreconditionError(ApiError):
    """The request is fine but not in this state (FAILED_PRECONDITION)."""

    status = 400
    code = 9


class UnauthenticatedError(ApiError):
    """The bearer token is missing or wrong (UNAUTHENTICATED)."""

    status = 401
    code = 16


class ForbiddenError(ApiError):
    """The request came by a name that is not this machine's (PERMISSION_DENIED)."""

    status = 403
    code = 7


class MissingError(ApiError):
    """There is no such path or resource (NOT_FOUND)."""

    status = 404
    code = 5


class MethodError(ApiError):
    """The path exists, with other methods (UNIMPLEMENTED)."""

    status = 405
    code = 12


class ConflictError(ApiError):
    """The name is taken (ALREADY_EXISTS)."""

    status = 409
    code = 6


class TooLargeError(ApiError):
    """The body is larger than the API takes (RESOURCE_EXHAUSTED)."""

    status = 413
    code = 8


class StorageFailedError(ApiError):
    """Nothing can be kept at the moment: the disk is full or read-only (RESOURCE_EXHAUSTED)."""

    status = 507
    code = 8


class UnsupportedError(ApiError):
    """Kubeflow Pipelines can do it, the laptop cannot (UNIMPLEMENTED)."""

    status = 501
    code = 12


def make_status_document(code: int, text: str) -> dict[str, Any]:
    """Return a `google.rpc.Status` document as the API's gateway renders it."""
    return {
        "error": text,
        "code": code,
        "message": text,
        "details": [{"@type": "type.googleapis.com/google.rpc.Status", "code": code, "message": text}],
    }
