"""Exceptions of the reconciler."""

from embedded.errors import EmbeddedError


class ModelError(EmbeddedError):
    """A model cannot be fetched; the text says from where and why."""
