"""The project: one YAML file that says where the customers come from and how their model is made."""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from tenure.canary import Rollout
from tenure.contract import Contract, DnsLabel, Fraction, Strict
from tenure.errors import ProjectError
from tenure.monitoring import Drift, Labels, Retraining, Value

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Metric(StrEnum):
    """Metrics that training may optimise and the gate may compare."""

    ROC_AUC = "roc_auc"
    AVERAGE_PRECISION = "average_precision"
    RECALL_AT_PRECISION = "recall_at_precision"
    LOG_LOSS = "log_loss"

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is the better one."""
        return self is not Metric.LOG_LOSS


class Source(Strict):
    """Where the customers come from."""

    uri: str = Field(
        min_length=1,
        description="A path (relative to the project file), s3://bucket/key or ledger://SERVICE.",
    )
    format: Literal["csv", "parquet"] | None = Field(default=None, description="By default the URI's suffix.")


class Split(Strict):
    """Shares of the customers, fixed for ever by a hash of the id (or by time, newest held out)."""

    train: Fraction = 0.6
    held_out: Fraction = 0.25
    stream: Fraction = 0.15

    @model_validator(mode="after")
    def _check(self) -> Self:
        if abs(self.train + self.held_out + self.stream - 1) > 1e-9:
            raise ValueError("train + held_out + stream must be 1")
        if self.train == 0 or self.held_out == 0:
            raise ValueError("train and held_out must be above 0")
        return self


class Validation(Strict):
    """How much bad data a run tolerates."""

    max_bad_fraction: Fraction = 0.01


class Threshold(Strict):
    """How the score from which a customer counts as leaving is chosen, on out-of-fold scores."""

    rule: Literal["max_f1", "top_fraction", "fixed"] = "max_f1"
    value: Fraction | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.value is None) != (self.rule == "max_f1"):
            raise ValueError("top_fraction and fixed need a value; max_f1 takes none")
        return self


class Training(Strict):
    """How a model is searched for and fitted. Every random choice follows from `seed`."""

    objective: Metric = Metric.ROC_AUC
    precision: Fraction = Field(default=0.6, description="The precision of recall_at_precision.")
    trials: int = Field(default=20, ge=1, le=10_000)
    folds: int = Field(default=5, ge=2, le=20)
    max_rounds: int = Field(default=400, ge=1, le=10_000)
    early_stopping_rounds: int = Field(default=30, ge=1)
    imbalance: tuple[Literal["none", "weight"], ...] = Field(default=("none",), min_length=1)
    threshold: Threshold = Threshold()
    seed: int = Field(default=7, ge=0, lt=2**31)


class Evaluation(Strict):
    """How a model is judged on the held-out part."""

    bootstrap: int = Field(default=1000, ge=100, le=100_000)
    seed: int = Field(default=11, ge=0, lt=2**31)
    slices: tuple[str, ...] | None = Field(
        default=None, description="By default all string and boolean features."
    )
    min_slice_rows: int = Field(default=100, ge=2)


class Gate(Strict):
    """When a challenger may meet customers. Margins are in the metric's own unit."""

    metric: Metric = Metric.ROC_AUC
    rule: Literal["superior", "non_inferior"] = "non_inferior"
    margin: float = Field(default=0.01, ge=0)
    floors: dict[Metric, float] = Field(default_factory=dict)
    slice_margin: float = Field(default=0.05, ge=0)
    baseline_margin: float = Field(default=0.01, ge=0)


class Project(Strict):
    """Everything a run needs to know; it travels to the components as one JSON string."""

    name: DnsLabel
    source: Source
    contract: Contract
    split: Split = Split()
    validation: Validation = Validation()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    gate: Gate = Gate()
    rollout: Rollout
    labels: Labels = Labels()
    value: Value = Value()
    drift: Drift = Drift()
    retraining: Retraining = Retraining()

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = {column.name for column in self.contract.features}
        for name in self.evaluation.slices or ():
            if name not in names:
                raise ValueError(f"evaluation.slices: {name!r} is not a feature of the contract")
        return self


def load_project(path: str | Path) -> Project:
    """Read a project file; a relative `source.uri` is resolved against the file's folder.

    Raises:
        ProjectError: With the file, the path of the key and what is allowed there, a line for each problem.
    """
    file = Path(path)
    try:
        document = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader # nosec B506
    except OSError as error:
        raise ProjectError(f"{file}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ProjectError(f"{file}: is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ProjectError(f"{file}: a project is a mapping with the keys {', '.join(Project.model_fields)}")
    project = parse_project(document, where=str(file))
    uri = project.source.uri
    if "://" not in uri:
        uri = str((file.parent / uri).resolve())
    return project.model_copy(update={"source": project.source.model_copy(update={"uri": uri})})


def parse_project(document: str | dict[str, object], where: str = "project") -> Project:
    """Build a project from its JSON text or from a parsed document.

    Raises:
        ProjectError: As `load_project` does; `where` stands for the file.
    """
    try:
        if isinstance(document, str):
            return Project.model_validate_json(document)
        return Project.model_validate(document)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        inner = {problem["loc"][:-1] for problem in problems if problem["loc"]}
        lines = [
            _describe(problem, document, where)
            for problem in problems
            # A list whose items are all wrong counts as too short as well: that says nothing new.
            if not (problem["type"] == "too_short" and problem["loc"] in inner | {loc[:-1] for loc in inner})
        ]
        raise ProjectError("\n".join(lines)) from error


class _Loader(yaml.SafeLoader):
    """YAML as usual, but a key that stands twice in one mapping is an error; usually the last one wins."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _describe(problem: ErrorDetails, document: object, where: str) -> str:
    """Say one pydantic problem as `file: path: message`."""
    location, kind, found = problem["loc"], problem["type"], problem["input"]
    message = problem["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        model = _find_model(location[:-1])
        message = f"is not a known key, allowed are {', '.join(model.model_fields)}"
        close = difflib.get_close_matches(str(location[-1]), model.model_fields, n=1)
        message += f" (did you mean {close[0]}?)" if close else ""
    elif kind == "missing":
        message = "is required, but missing"
    elif kind in ("model_type", "model_attributes_type"):
        message = f"should be a mapping with the keys {', '.join(_find_model(location).model_fields)}"
        message += f", found {_show(found)}"
    elif kind not in ("value_error", "json_invalid"):
        message = re.sub("^(Input|String|Tuple|List|Value) should", "should", message)
        message += f", found {_show(found)}"
        if kind == "string_type" and isinstance(found, bool | int | float):
            message += " (YAML takes it for another type: put it in quotes)"
    return f"{where}: {_join(location, document)}: {message}"


def _find_model(location: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the model at a place in the project; a place inside a value counts for the model around it."""
    model: type[BaseModel] = Project
    for part in location:
        field = model.model_fields.get(str(part))
        if field is not None:
            model = next(_list_models(field.annotation), model)
    return model


def _list_models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models inside an annotation such as `tuple[Column, ...]` or `Split | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _list_models(argument)


def _join(location: tuple[int | str, ...], document: object) -> str:
    """Write a place as `contract.columns[3].type`, with the name of the column if it has one."""
    path, name = "", ""
    for part in location:
        if part == "[key]":  # pydantic's mark for a dictionary's key
            continue
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
        if isinstance(document, dict):
            document = document.get(part)
        elif isinstance(document, list | tuple) and isinstance(part, int) and part < len(document):
            document = document[part]
            if isinstance(document, dict) and "name" in document:
                name = f" (of {_show(document['name'])})"
        else:
            document = None
    return (path.removeprefix(".") or "(top level)") + name


def _show(value: object) -> str:
    """Quote a value, at most 60 characters of it."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
