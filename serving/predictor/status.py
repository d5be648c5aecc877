"""Which statuses an error has, be it ours or one of kserve's own."""

from __future__ import annotations

from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady

from serving.predictor.errors import PredictorError

_KSERVE = {
    InvalidInput: (400, "INVALID_ARGUMENT"),
    ModelNotFound: (404, "NOT_FOUND"),
    ModelNotReady: (503, "UNAVAILABLE"),
    NotImplementedError: (501, "UNIMPLEMENTED"),
}
KSERVE_ERRORS = tuple(_KSERVE)
"""Those that tell a caller what is wrong with the request."""


def find_statuses(error: Exception) -> tuple[int, str] | None:
    """Return an error's HTTP status and its gRPC status by name; None if it is not the caller's mistake."""
    if isinstance(error, PredictorError):
        return error.status, error.grpc_status
    return next((statuses for kind, statuses in _KSERVE.items() if isinstance(error, kind)), None)
