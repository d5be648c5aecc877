"""Exceptions of the detector."""


class DetectorError(Exception):
    """Base of every error raised here."""


class EventError(DetectorError):
    """An event or its body cannot be understood; the text is kept with it in the dead letters."""


class LabelError(DetectorError):
    """A label lacks something or says what the contract does not know; the text names row and field."""


class BackendError(DetectorError):
    """The drift backend that a project asks for is not installed here."""


class LedgerError(DetectorError):
    """The ledger cannot be written or migrated."""
