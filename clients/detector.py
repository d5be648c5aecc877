"""The detector's address: where outcomes and transitions are reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx
from pydantic import SecretStr

from clients.errors import RefusedError, SettingsError, UnreachableError
from clients.settings import Settings

_TIMEOUT = 60.0
_SHOWN = 300


@dataclass(frozen=True)
class Refusal:
    """A row that the detector does not take: its place from 0, which field is wrong, and how."""

    row: int
    field: str
    message: str


class Detector:
    """Reports to the detector; use it as a context manager. Not thread-safe.

    Args:
        url: Its address.
        timeout: Seconds that it may take to answer.
        token: What it asks for from those who post, if it does.
    """

    def __init__(self, url: str, timeout: float = _TIMEOUT, token: SecretStr | None = None) -> None:
        self._url = url.rstrip("/")
        headers = {"authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        # It is this machine's or this cluster's: a proxy from the environment cannot reach it.
        self._client = httpx.Client(base_url=self._url, timeout=timeout, trust_env=False, headers=headers)

    @classmethod
    def connect(cls, settings: Settings, timeout: float = _TIMEOUT) -> Self:
        """Build the client; sends nothing yet.

        Raises:
            SettingsError: No detector is configured.
        """
        if settings.detector_url is None:
            raise SettingsError("no detector is configured: set TENURE_DETECTOR_URL (`tenure up` does)")
        return cls(settings.detector_url, timeout, settings.detector_token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def post_labels(self, labels: Sequence[Mapping[str, Any]]) -> list[Refusal]:
        """Report outcomes; those that are not refused are kept for good. The same again changes nothing.

        Args:
            labels: Each with service, customer_id, outcome, true_at, and known_at unless it is now.

        Returns:
            The rows that are not taken.

        Raises:
            UnreachableError: The detector does not answer, or cannot write: nothing is acknowledged.
            RefusedError: It does not understand the whole.
        """
        answer = self._post("/labels", list(labels), "labels")
        return [Refusal(one["row"], one["field"], one["message"]) for one in answer.json()["refused"]]

    def post_transitions(self, transitions: Sequence[Mapping[str, Any]]) -> None:
        """Have the ledger remember what the pilot did. The same again changes nothing.

        Args:
            transitions: Each with id, service, at (microseconds since 1970), outcome, shares, reason and
                evidence.

        Raises:
            UnreachableError: The detector does not answer, or cannot write: nothing is acknowledged.
            RefusedError: It does not take them.
        """
        self._post("/transitions", list(transitions), "transitions")

    def read_status(self) -> dict[str, Any]:
        """Return what the detector says of its queue, and of who is watched and what is waited for.

        Raises:
            UnreachableError: It does not answer, or cannot read its ledger.
            RefusedError: What answers is no detector.
        """
        answer = self._send("GET", "/status", "to say how it is")
        try:
            status: dict[str, Any] = answer.json()
        except ValueError as error:
            raise RefusedError(f"what answers at {self._url}/status is no detector") from error
        return status

    def _post(self, path: str, rows: list[Mapping[str, Any]], what: str) -> httpx.Response:
        return self._send("POST", path, what, rows)

    def _send(
        self, method: str, path: str, what: str, rows: list[Mapping[str, Any]] | None = None
    ) -> httpx.Response:
        try:
            answer = self._client.request(method, path, json=rows)
        except httpx.HTTPError as error:
            raise UnreachableError(
                f"the detector at {self._url} does not answer ({type(error).__name__}): does it run "
                "(`tenure status`)?"
            ) from error
        if answer.status_code >= 500 or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise UnreachableError(
                f"the detector at {self._url} answers {answer.status_code}: {answer.text[:_SHOWN]}; try again"
            )
        if not answer.is_success:
            raise RefusedError(
                f"the detector at {self._url} refuses {what}: {answer.status_code}: {answer.text[:_SHOWN]}"
            )
        return answer
