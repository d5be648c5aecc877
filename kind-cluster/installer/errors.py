"""What ends an installation. Each text says what was wrong, where, and what to do next."""


class InstallError(Exception):
    """Base of every error raised here."""


class OptionError(InstallError):
    """A variable given to `make up` has no meaning, or contradicts another."""


class CheckError(InstallError):
    """This machine or the cluster lacks something; the findings were printed before."""


class ProgramError(InstallError):
    """A program that the installation runs failed."""


class TransientError(ProgramError):
    """A program failed in a way that passes: a webhook that does not answer yet, a type not served yet."""


class WaitError(InstallError):
    """Something did not become ready in time; the text has the last reason."""


class SourceError(InstallError):
    """A third party's manifests could not be had, or are not what they were."""
