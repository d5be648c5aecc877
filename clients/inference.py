"""Asking a model through the gateway: the V2 protocol over JSON, one tensor per feature."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from clients.errors import ClientError, NotFoundError, RefusedError, UnreachableError
from clients.names import CUSTOMER_HEADER, VARIANT_HEADER
from tenure.contract import Contract, Type

DATATYPES = {
    Type.STRING: "BYTES",
    Type.FLOAT: "FP64",
    Type.INTEGER: "INT64",
    Type.BOOLEAN: "BOOL",
    Type.TIMESTAMP: "BYTES",
}
"""The V2 datatype of each contract type."""

OUTPUTS = ("churn_probability", "churn", "reasons")
"""The answer's tensors; the last one only when asked for."""


@dataclass(frozen=True)
class Predictions:
    """The answer for n rows.

    Attributes:
        version: The bundle version that answered (`model_version`).
        probabilities: n probabilities of leaving.
        churn: n decisions at the bundle's threshold.
        reasons: n texts (JSON) of what weighed most, or None when not asked for.
    """

    version: str
    probabilities: list[float]
    churn: list[bool]
    reasons: list[str] | None = None


class InferenceClient:
    """A keep-alive connection to the gateway; thread-safe; close it or use it with `with`.

    Args:
        gateway_url: Where customers' requests enter.
        host: The host by which the gateway knows the service (`names.hostname`), if it is not the URL's.
        timeout: Seconds to wait for an answer.
    """

    def __init__(self, gateway_url: str, host: str | None, timeout: float = 10.0) -> None:
        self._url = gateway_url
        self._host = host
        # The gateway is this machine's or this cluster's: a proxy from the environment cannot reach it.
        self._http = httpx.Client(
            base_url=gateway_url, headers={"host": host} if host else {}, timeout=timeout, trust_env=False
        )

    def predict(
        self,
        service: str,
        rows: Sequence[Mapping[str, Any]],
        contract: Contract,
        *,
        customer_ids: Sequence[str] | None = None,
        variant: str | None = None,
        reasons: bool = False,
    ) -> Predictions:
        """Score n rows.

        Args:
            service: The InferenceService's name, which is also the model's.
            rows: Feature values by name; a missing or null value is sent as null.
            contract: Says which features there are and of which type.
            customer_ids: n ids, for the ledger; one id also goes into the header that may keep a customer
                on one side of a split.
            variant: Ask this variant (a predictor's name or `stable`) and no other.
            reasons: Ask for the reasons too.

        Raises:
            RefusedError: The model names the tensor that it does not accept.
            NotFoundError: No such model behind the gateway.
            UnreachableError: Nothing (healthy) answers.
        """
        headers = {VARIANT_HEADER: variant} if variant else {}
        if customer_ids is not None and len(set(customer_ids)) == 1:
            headers[CUSTOMER_HEADER] = customer_ids[0]
        body = build_request(rows, contract, customer_ids=customer_ids, reasons=reasons)
        answer = self._ask("POST", f"/v2/models/{service}/infer", headers=headers, json=body)
        return self._read_predictions(answer, len(rows))

    def metadata(self, service: str, variant: str | None = None) -> dict[str, Any]:
        """Return the model's V2 metadata: name, versions, inputs, outputs."""
        headers = {VARIANT_HEADER: variant} if variant else {}
        return self._ask("GET", f"/v2/models/{service}", headers=headers)

    def ready(self, service: str, variant: str | None = None) -> bool:
        """Say whether the model answers that it is ready."""
        headers = {VARIANT_HEADER: variant} if variant else {}
        try:
            answer = self._http.get(f"/v2/models/{service}/ready", headers=headers)
        except httpx.TransportError:
            return False
        if answer.status_code != 200:
            return False
        try:
            document = answer.json()
        except ValueError:
            return True
        return not isinstance(document, dict) or bool(document.get("ready", True))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        where = f"{self._url}{path}" + (f" (host {self._host})" if self._host else "")
        try:
            answer = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise UnreachableError(f"{where}: no answer ({error or type(error).__name__})") from error
        if answer.status_code != 200:
            raise _translate(answer, where)
        try:
            document = answer.json()
        except ValueError as error:
            raise RefusedError(f"{where}: the answer is not JSON: {answer.text[:200]!r}") from error
        if not isinstance(document, dict):
            raise RefusedError(f"{where}: the answer is not a JSON object")
        return document

    def _read_predictions(self, answer: dict[str, Any], rows: int) -> Predictions:
        outputs = {output.get("name"): output.get("data") for output in answer.get("outputs", ())}
        probabilities, churn = outputs.get("churn_probability"), outputs.get("churn")
        for name, data in (("churn_probability", probabilities), ("churn", churn)):
            if not isinstance(data, list) or len(data) != rows:
                raise RefusedError(
                    f"{self._url}: the answer has no {rows} values of {name!r}; is this a Tenure model?"
                )
        assert isinstance(probabilities, list)  # noqa: S101 - checked above
        assert isinstance(churn, list)  # noqa: S101
        return Predictions(
            version=str(answer.get("model_version") or ""),
            probabilities=[float(value) for value in probabilities],
            churn=[bool(value) for value in churn],
            reasons=outputs.get("reasons"),
        )


def build_request(
    rows: Sequence[Mapping[str, Any]],
    contract: Contract,
    *,
    customer_ids: Sequence[str] | None = None,
    reasons: bool = False,
) -> dict[str, Any]:
    """Return the V2 inference request for n rows: one tensor of shape [n] per feature, null for missing.

    Raises:
        RefusedError: No row at all, a value of a kind that JSON cannot carry, or ids that do not match.
    """
    if not rows:
        raise RefusedError("there is no row to predict")
    inputs = [
        {
            "name": column.name,
            "shape": [len(rows)],
            "datatype": DATATYPES[column.type],
            "data": [_to_json(row.get(column.name), column.name) for row in rows],
        }
        for column in contract.features
    ]
    if customer_ids is not None:
        if len(customer_ids) != len(rows):
            raise RefusedError(f"{len(customer_ids)} customer ids for {len(rows)} rows")
        inputs.append(
            {
                "name": contract.id.name,
                "shape": [len(rows)],
                "datatype": "BYTES",
                "data": [str(identity) for identity in customer_ids],
            }
        )
    if not reasons:
        return {"inputs": inputs}
    return {"inputs": inputs, "outputs": [{"name": name} for name in OUTPUTS]}


def _to_json(value: Any, column: str) -> Any:
    """Return a plain JSON value: numpy's and pandas' scalars become Python's, every kind of missing null."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if math.isinf(value):
            raise RefusedError(f"{column}: {value} is not a number that JSON can carry")
        return value
    if isinstance(value, (str, bool, int)):
        return value
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    raise RefusedError(f"{column}: a {type(value).__name__} is neither text, number, truth value nor null")


def _translate(answer: httpx.Response, where: str) -> ClientError:
    """Build our exception from an answer that is not 200, with the server's own words."""
    try:
        document = answer.json()
        message = document.get("error") or document.get("detail") or document
    except (ValueError, AttributeError):
        message = answer.text.strip()[:500] or answer.reason_phrase
    text = f"{where}: {message} (status {answer.status_code})"
    if answer.status_code == 404:
        return NotFoundError(text)
    if answer.status_code in (408, 429) or answer.status_code >= 500:
        return UnreachableError(text)
    return RefusedError(text)
