"""Exceptions of the predictor, each bound to its HTTP and gRPC status."""

from __future__ import annotations

from typing import ClassVar


class PredictorError(Exception):
    """Base of every error that a caller is told about. Its text says what was wrong, and where.

    Attributes:
        status: The HTTP status.
        grpc_status: Name of the member of `grpc.StatusCode`.
    """

    status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"


class RequestError(PredictorError):
    """The request cannot be understood, or breaks the contract; the text names the tensor (and the row)."""

    status = 400
    grpc_status = "INVALID_ARGUMENT"


class TooLargeError(PredictorError):
    """The body has more bytes than this server reads."""

    status = 413
    grpc_status = "RESOURCE_EXHAUSTED"


class UnsupportedMediaError(PredictorError):
    """The body is of a type, or in an encoding, that this server does not read."""

    status = 415
    grpc_status = "UNIMPLEMENTED"


class BusyError(PredictorError):
    """More requests are being answered than may be: this one is refused at once, and may be sent again."""

    status = 503
    grpc_status = "RESOURCE_EXHAUSTED"


class UnknownModelError(PredictorError):
    """No model of that name, or not in that version, is served here."""

    status = 404
    grpc_status = "NOT_FOUND"


class RefusedError(PredictorError):
    """The request is understood, but nobody may do that over the network."""

    status = 403
    grpc_status = "PERMISSION_DENIED"


class StartError(Exception):
    """The server cannot start: a wrong setting, an unusable bundle or a port that is taken."""
