"""Exceptions of the pilot."""


class PilotError(Exception):
    """Base of every error raised here."""


class SpecificationError(PilotError):
    """An InferenceService holds something that the pilot cannot act on; the text names the field."""
