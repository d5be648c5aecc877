"""What can go wrong in the kit itself; what a server does wrong is a result, not an error."""

from __future__ import annotations


class KitError(Exception):
    """The kit cannot do what was asked; the message says what to change."""


class UsageError(KitError):
    """The address, the model or the example cannot be used."""


class NotApplicableError(Exception):
    """A check's precondition is not there; the message says which."""


class BrokenError(Exception):
    """The server broke a rule; the message says how."""
