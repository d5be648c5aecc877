"""The contract: the columns a customer row must have, used alike by validation, training and serving."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
DnsLabel = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$")]


class Strict(BaseModel):
    """Base of every model that a person writes: unknown keys are errors, instances are immutable.

    Numbers are finite, so that a model survives JSON.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Role(StrEnum):
    """What a column is for."""

    ID = "id"
    TIME = "time"
    FEATURE = "feature"
    LABEL = "label"


class Type(StrEnum):
    """A column's logical type; each has one V2 datatype (BYTES, FP64, INT64, BOOL)."""

    STRING = "string"
    FLOAT = "float"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TIMESTAMP = "timestamp"


class Unseen(StrEnum):
    """What happens to a value that training never saw."""

    ACCEPT = "accept"
    REJECT = "reject"


class Column(Strict):
    """One column of the contract.

    `minimum` and `maximum` bound what is possible at all: a value beyond them is an error everywhere.
    `unseen` says what happens to a possible value that training never saw: a category that is not listed,
    or a number beyond the training range. It is accepted by default, so that drift can be seen.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
    role: Role = Role.FEATURE
    type: Type
    nullable: bool = False
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=1000)
    unseen: Unseen = Unseen.ACCEPT
    positive: str | None = Field(default=None, description="The label value that means the customer left.")
    from_row_order: bool = Field(
        default=False, description="The source has no such column: number the rows in file order."
    )
    description: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        numeric = self.type in (Type.FLOAT, Type.INTEGER)
        if not numeric and (self.minimum is not None or self.maximum is not None):
            raise ValueError(f"minimum/maximum belong to float and integer columns, not to {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}")
        if self.categories is not None and self.type is not Type.STRING:
            raise ValueError(f"categories belong to string columns, not to {self.type}")
        if self.categories is not None and len(set(self.categories)) != len(self.categories):
            doubled = sorted({value for value in self.categories if self.categories.count(value) > 1})
            raise ValueError(f"categories are listed twice: {', '.join(map(repr, doubled))}")
        if self.categories is not None and not all(value.strip() for value in self.categories):
            raise ValueError("a category is blank; an empty cell means missing, say `nullable: true` for it")
        if self.role is Role.LABEL:
            if self.type not in (Type.STRING, Type.BOOLEAN):
                raise ValueError("a label is of type string (with `positive`) or boolean")
            if (self.positive is None) == (self.type is Type.STRING):
                raise ValueError("`positive` names the value that means churn; a string label needs it")
            if self.categories is not None and self.positive not in self.categories:
                raise ValueError(f"positive {self.positive!r} is not one of the categories")
        elif self.positive is not None:
            raise ValueError("`positive` belongs to the label")
        if (self.role is Role.TIME) != (self.type is Type.TIMESTAMP):
            raise ValueError("a time column is of type timestamp, and no other column is")
        if self.role is Role.ID and self.type not in (Type.STRING, Type.INTEGER):
            raise ValueError("an id is of type string or integer")
        if self.role is Role.ID and self.nullable:
            raise ValueError("an id cannot be nullable")
        if self.from_row_order and (self.role is not Role.ID or self.type is not Type.STRING):
            raise ValueError("from_row_order belongs to an id of type string")
        return self


class Contract(Strict):
    """All columns of a customer row: exactly one id, one label, at most one time, at least one feature."""

    columns: tuple[Column, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [column.name for column in self.columns]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"columns are named twice: {', '.join(doubled)}")
        counts = {role: sum(column.role is role for column in self.columns) for role in Role}
        if counts[Role.ID] != 1:
            raise ValueError(f"exactly one column has role id, found {counts[Role.ID]}")
        if counts[Role.LABEL] != 1:
            raise ValueError(f"exactly one column has role label, found {counts[Role.LABEL]}")
        if counts[Role.TIME] > 1:
            raise ValueError(f"at most one column has role time, found {counts[Role.TIME]}")
        if counts[Role.FEATURE] == 0:
            raise ValueError("at least one column has role feature")
        return self

    @property
    def features(self) -> tuple[Column, ...]:
        """The feature columns, in the order in which every matrix holds them."""
        return tuple(column for column in self.columns if column.role is Role.FEATURE)

    @property
    def id(self) -> Column:
        """The column that names the customer."""
        return next(column for column in self.columns if column.role is Role.ID)

    @property
    def label(self) -> Column:
        """The column that says whether the customer left."""
        return next(column for column in self.columns if column.role is Role.LABEL)

    @property
    def time(self) -> Column | None:
        """The column that says when the row was true, if the source has one."""
        return next((column for column in self.columns if column.role is Role.TIME), None)

    def __getitem__(self, name: str) -> Column:
        """Return the column called `name`; raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)
