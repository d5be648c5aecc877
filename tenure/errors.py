"""The domain's exceptions: one tree, each class a kind of problem that a caller may treat differently."""


class TenureError(Exception):
    """Base of every error raised by the domain. Its text says what is wrong, where, and what to do."""


class ProjectError(TenureError):
    """A project file is missing, is not YAML, or holds an unknown key or a wrong value."""


class SourceError(TenureError):
    """The customers cannot be read: empty, truncated, wrongly encoded, header-less or of unknown format."""


class ContractError(TenureError):
    """Rows break the contract in a way that no row can be set aside for: a column is missing or mistyped."""


class RowError(ContractError):
    """One request row breaks the contract.

    Attributes:
        column: Name of the offending column (the V2 tensor's name).
    """

    def __init__(self, column: str, message: str) -> None:
        super().__init__(f"{column}: {message}")
        self.column = column


class TooManyBadRowsError(TenureError):
    """Validation set aside more rows than the project allows."""


class TrainingError(TenureError):
    """A model cannot be trained: too few rows, one class only, or no trial that finished."""


class BundleError(TenureError):
    """A bundle is incomplete, altered, or written by an incompatible version."""


class EvaluationError(TenureError):
    """A model cannot be judged: too few held-out rows, or one class only."""


class SimulationError(TenureError):
    """Customers cannot be simulated: the scenario is unknown, or speaks of columns that are not there."""


class DriftError(TenureError):
    """A window cannot be compared with a reference: columns, scores or labels do not fit."""
