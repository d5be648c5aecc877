"""Exceptions of the laptop platform."""


class EmbeddedError(Exception):
    """Base of every error raised here. Its text says what was wrong, where, and what to do next."""


class StartError(EmbeddedError):
    """A service did not come up; the text names its log file and quotes its last lines."""


class SpecError(EmbeddedError):
    """A resource asks for something that the laptop platform does not do; names the field."""


class StorageError(EmbeddedError):
    """A database of the platform cannot be read or written: the disk is full, read-only or broken.

    What was to be written was not; what was there before still is.
    """
