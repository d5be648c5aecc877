"""From a request to the columns that the featuriser reads. Knows the protocols and the contract's tensors.

Which datatypes a column takes (the first is the one that the metadata announce):

* string: BYTES, UTF-8;
* float: FP64, FP32 or any integer;
* integer: INT64 or any other integer but UINT64; FP64 if it is nullable (whole numbers, NaN for missing);
* boolean: BOOL; FP64 if it is nullable (0, 1, NaN for missing).

A missing value of a nullable column is null in JSON. gRPC and binary tensors have no null, so there NaN
stands for it, and the empty string in string columns (everywhere, unless training knew that as a category).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from serving.predictor.conversion import (
    INTEGERS,
    Column,
    Convert,
    check_id,
    check_integers,
    check_strings,
    convert_column,
    make_converters,
    shorten,
)
from serving.predictor.errors import RequestError
from serving.predictor.keys import (
    check_keys,
    count_pairs,
    explain_not_number,
    find_not_number,
    parse_leniently,
)
from serving.predictor.tensors import Output, Parameters, Request, Tensor, read_switch
from tenure.contract import Contract, Type
from tenure.encoding import show
from tenure.featuriser import Featuriser
from tenure.normalisation import drop_empties, takes_empty_for_missing

PROBABILITY, CHURN, REASONS = "churn_probability", "churn", "reasons"
OUTPUTS = {PROBABILITY: "FP64", CHURN: "BOOL", REASONS: "BYTES"}
DATATYPES = {Type.STRING: "BYTES", Type.FLOAT: "FP64", Type.INTEGER: "INT64", Type.BOOLEAN: "BOOL"}

_FEW_NAMES = 12


@dataclass(frozen=True, slots=True)
class Wanted:
    """One output tensor of the answer, and whether it goes into the binary tail of a REST body."""

    name: str
    binary: bool = False


COMPLETE = (Wanted(PROBABILITY), Wanted(CHURN))
"""What an answer has if nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Query:
    """A request, understood.

    Attributes:
        columns: For each feature its values, one per row.
        rows: How many rows; at least one.
        wanted: Output tensors, in the order in which they were asked for.
        reasons: How many reasons each row gets at most; 0 if none were asked for.
        altered: Whether the columns hold other values than the request, such as None for an empty string.
    """

    columns: dict[str, Column]
    rows: int
    wanted: tuple[Wanted, ...]
    reasons: int = 0
    altered: bool = False


class Decoder:
    """Understands requests for one model. Instances are immutable and safe to share between threads.

    Attributes:
        datatypes: The V2 datatype of each tensor's own type.
    """

    def __init__(self, contract: Contract, featuriser: Featuriser, max_rows: int, reasons: int = 5) -> None:
        """Prepare the table of tensors.

        Args:
            contract: Names, types and nullability of the tensors.
            featuriser: Knows which categories training saw.
            max_rows: A request with more rows is refused.
            reasons: How many reasons a row gets if the request does not say.
        """
        self._reasons = min(reasons, len(featuriser.features))
        self._names = tuple(feature.column.name for feature in featuriser.features)
        self.datatypes = {column.name: DATATYPES[column.type] for column in (contract.id, *contract.features)}
        self._id = contract.id
        self._max_rows = max_rows
        self._converters: dict[str, dict[str, Convert | None]] = {
            feature.column.name: make_converters(feature) for feature in featuriser.features
        }
        self._converters[self._id.name] = {"BYTES": check_strings}
        if self._id.type is Type.INTEGER:
            self._converters[self._id.name] |= dict.fromkeys(INTEGERS, check_integers)
        self._empties = {
            feature.column.name for feature in featuriser.features if takes_empty_for_missing(feature)
        }

    def read(self, request: Request) -> Query:
        """Understand a V2 request.

        Raises:
            RequestError: A tensor is missing, extra or doubled, has a datatype or shape that its column does
                not take, or another number of rows than the others; there are too many rows; an output is
                unknown.
        """
        columns: dict[str, Column] = {}
        rows = -1
        first = ""
        altered = False
        for tensor in request.inputs:
            name = tensor.name
            converters = self._converters.get(name)
            if converters is None:
                raise RequestError(f"{shorten(name)}: {self._explain_extra(name)}")
            if name in columns:
                raise RequestError(f"{name}: the tensor is there twice, expected once")
            try:
                convert = converters[tensor.datatype]
            except KeyError:
                raise RequestError(
                    f"{name}: datatype {show(tensor.datatype)}, expected {' or '.join(converters)}"
                ) from None
            values = self._open(tensor)
            if len(values) != rows:
                if rows >= 0:
                    raise RequestError(f"{name}: shape {tensor.shape}, but {first} has {rows} rows")
                rows, first = len(values), name
            if convert is not None:
                converted = convert_column(name, convert, values)
                altered = altered or converted is not values
                values = converted
            columns[name] = values
        self._check_complete(columns)
        altered = self._drop_empties(columns) or altered
        return Query(columns, rows, *self._select(request), altered)

    def parse_instances(self, body: bytes) -> Query:
        """Understand the body of a V1 request.

        Raises:
            RequestError: It is not JSON (NaN and Infinity are none), has a key twice in one object, or is
                refused by `read_instances`.
        """
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _find_wrong_number(body) or RequestError(f"the body is not JSON: {error}") from error
        except RecursionError as error:
            raise RequestError("the body is not JSON that is read here: it is nested too deeply") from error
        check_keys(body, count_pairs(document) if isinstance(document, dict) else 0)
        return self.read_instances(document)

    def read_instances(self, document: object) -> Query:
        """Understand a V1 request: `{"instances": [{feature: value, ...}, ...]}`.

        Reasons come with `"parameters": {"reasons": true}`, or a number of them.

        Raises:
            RequestError: The document is no such thing; a row lacks a feature, or has one that is none.
        """
        if not isinstance(document, Mapping):
            raise RequestError('the body is not a JSON object with "instances", a list of rows')
        instances = document.get("instances")
        if not isinstance(instances, list):
            raise RequestError("instances: expected a list of rows, each an object of features")
        self._check_rows(len(instances), "instances")
        columns: dict[str, list[Any]] = {name: [] for name in self._names}
        whole: dict[str, Column] = {**columns}
        for row, instance in enumerate(instances):
            if not isinstance(instance, Mapping):
                raise RequestError(f"instances: row {row}: expected an object of features")
            for name, values in columns.items():
                try:
                    values.append(instance[name])
                except KeyError:
                    raise RequestError(f"{name}: row {row}: is not there (null if it is not known)") from None
            if len(instance) != len(columns):
                self._check_extra(instance, row)
        self._drop_empties(whole)
        parameters = document.get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            raise RequestError("parameters: expected an object")
        reasons = self._read_reasons(parameters)
        wanted = (*COMPLETE, Wanted(REASONS)) if reasons else COMPLETE
        return Query(whole, len(instances), wanted, reasons)

    def _open(self, tensor: Tensor) -> Column:
        """Return a tensor's values, one per row, having checked its shape against them."""
        name, shape = tensor.name, tensor.shape
        values: Column | None = tensor.data
        if values is None:
            raise RequestError(f"{name}: has no data, expected one value per row")
        if not (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
            raise RequestError(f"{name}: shape {show(shape)}, expected [n] or [n, 1]")
        self._check_rows(shape[0], name)
        if len(values) != shape[0]:
            raise RequestError(
                f"{name}: shape {shape}, but there are {len(values)} values, expected {shape[0]}"
            )
        if len(shape) == 2 and isinstance(values[0], list):
            for row, value in enumerate(values):
                if not isinstance(value, list) or len(value) != 1:
                    raise RequestError(f"{name}: row {row}: expected a list of one value, as in row 0")
            values = [value[0] for value in values]
        return values

    def _check_rows(self, rows: int, name: str) -> None:
        """Refuse no rows at all, and too many."""
        if rows < 1:
            raise RequestError(
                f"{name}: has no rows: their number is {show(rows)}, expected 1 to {self._max_rows}"
            )
        if rows > self._max_rows:
            raise RequestError(
                f"{name}: has {show(rows)} rows, at most {self._max_rows} go into a request: send several"
            )

    def _check_complete(self, columns: Mapping[str, object]) -> None:
        """Refuse a request that lacks a feature."""
        if len(columns) < len(self._names) or not all(name in columns for name in self._names):
            missing = [name for name in self._names if name not in columns]
            raise RequestError(f"{_list(missing)}: missing; every feature needs its tensor")

    def _check_extra(self, instance: Mapping[Any, Any], row: int) -> None:
        """Refuse a V1 row with keys that are no feature; the customer's id is welcome."""
        for name in instance:
            if name not in self._converters:
                raise RequestError(f"{shorten(name)}: row {row}: {self._explain_extra(name)}")
        if self._id.name in instance:
            convert_column(self._id.name, check_id, [instance[self._id.name]], row)

    def _explain_extra(self, name: str) -> str:
        return (
            f"is not an input of this model; those are {_list(self._names)}, and optionally {self._id.name}"
        )

    def clean_instances(self, body: bytes) -> bytes:
        """Return the body of a good V1 request with null for what is missing."""
        if not self._empties or b'""' not in body:
            return body
        document = msgspec.json.decode(body)
        for instance in document["instances"]:
            for name in self._empties:
                if instance[name] == "":
                    instance[name] = None
        return msgspec.json.encode(document)

    def _drop_empties(self, columns: dict[str, Column]) -> bool:
        """Make empty strings in nullable string columns missing values; say whether there were any."""
        found = False
        for name in self._empties:
            values = columns[name]
            if isinstance(values, list):  # strings always are
                columns[name] = drop_empties(values)
                found = found or columns[name] is not values
        return found

    def _read_reasons(self, parameters: Parameters | None) -> int:
        """Return how many reasons are asked for, 0 if none are."""
        value = None if parameters is None else parameters.get(REASONS)
        if value is None or value is False:
            return 0
        if value is True:
            return self._reasons
        if type(value) is not int or not 1 <= value <= len(self._names):
            raise RequestError(
                f"parameters: {REASONS} is {show(value)}, expected true, false, or how many: a whole "
                f"number from 1 to {len(self._names)}, the number of features"
            )
        return value

    def _select(self, request: Request) -> tuple[tuple[Wanted, ...], int]:
        """Return the outputs that are asked for, by name or else probability and decision, and the number of
        reasons.
        """
        parameters, outputs = request.parameters, request.outputs
        if parameters is None and outputs is None:
            return COMPLETE, 0
        reasons = self._read_reasons(parameters)
        binary = bool(read_switch(parameters, "binary_data_output", "parameters"))
        if outputs:
            wanted = []
            names = set()
            for output in outputs:
                wanted.append(_read_output(output, binary))
                if output.name in names:
                    raise RequestError(f"{output.name}: this output is asked for twice, expected once")
                names.add(output.name)
        else:
            wanted = [Wanted(PROBABILITY, binary), Wanted(CHURN, binary)]
            names = {PROBABILITY, CHURN}
        if REASONS in names:
            reasons = reasons or self._reasons
        elif reasons:
            wanted.append(Wanted(REASONS, binary))
        return tuple(wanted), reasons


def _read_output(output: Output, binary: bool) -> Wanted:
    """Check one output that is asked for; `binary` is what the request says of all."""
    if output.name not in OUTPUTS:
        raise RequestError(f"{shorten(output.name)}: is not an output; those are {', '.join(OUTPUTS)}")
    if output.parameters is not None and output.parameters.get("classification"):
        raise RequestError(f"{output.name}: the classification extension is not supported")
    own = read_switch(output.parameters, "binary_data", output.name)
    return Wanted(output.name, binary if own is None else own)


def _find_wrong_number(body: bytes) -> RequestError | None:
    """Return the error that names the feature of a V1 row that is NaN or the like; None if there is none."""
    document = parse_leniently(body)
    instances = document.get("instances") if isinstance(document, dict) else None
    for row, instance in enumerate(instances if isinstance(instances, list) else ()):
        for name, value in instance.items() if isinstance(instance, dict) else ():
            found = find_not_number([value])
            if found is not None:
                return explain_not_number(name, row, found[1])
    return None


def _list(names: Sequence[str]) -> str:
    """Join names, not too many of them."""
    more = f" and {len(names) - _FEW_NAMES} more" if len(names) > _FEW_NAMES else ""
    return ", ".join(names[:_FEW_NAMES]) + more


def list_inputs(contract: Contract, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the metadata of the input tensors: the features, then the (optional) customer id."""
    columns = [contract[name] for name in names]
    tensors = [{"name": column.name, "datatype": DATATYPES[column.type], "shape": [-1]} for column in columns]
    return [*tensors, {"name": contract.id.name, "datatype": "BYTES", "shape": [-1]}]


def list_outputs() -> list[dict[str, Any]]:
    """Return the metadata of the output tensors: those that a request gets which names none.

    The protocol wants it so; reasons are an output for those who ask.
    """
    return [{"name": one.name, "datatype": OUTPUTS[one.name], "shape": [-1]} for one in COMPLETE]
