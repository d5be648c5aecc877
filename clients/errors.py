"""Exceptions of the typed ways to the five addresses."""


class ClientError(Exception):
    """Base of every error raised here. Its text names the address, what was asked, and what to do."""


class SettingsError(ClientError):
    """A `TENURE_*` setting is missing or wrong."""


class UnreachableError(ClientError):
    """An address does not answer."""


class NotFoundError(ClientError):
    """The address answers, but what was asked for is not there."""


class ConflictError(ClientError):
    """Someone else changed the resource first; read it again and retry."""


class RefusedError(ClientError):
    """The address understood the request and refused it; the text carries its reason."""


class IntegrityError(ClientError):
    """Bytes read back differ from the bytes written."""
