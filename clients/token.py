"""The bearer token of the pipelines API: given once, or in a file that somebody keeps fresh."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

from clients.errors import RefusedError
from clients.settings import Settings

_TOKEN = re.compile(r"[\x21-\x7e]+")  # what a header may hold; anything else would end up in an error's text


class Token:
    """A token, read anew whenever it is needed.

    On a cluster it lies in a projected volume, whose file the kubelet replaces long before the token expires.
    The text of this object, and of every error, holds where the token is and never the token.
    """

    def __init__(self, value: str | None = None, file: Path | None = None) -> None:
        self._value = value
        self._file = file

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the token that the settings name; the file goes before the value."""
        value = settings.runs_token.get_secret_value() if settings.runs_token else None
        return cls(value, settings.runs_token_file)

    def __repr__(self) -> str:
        return f"Token({self.origin})"

    @property
    def origin(self) -> str:
        """Where it comes from, for people."""
        if self._file is not None:
            return f"TENURE_RUNS_TOKEN_FILE={self._file}"
        return "TENURE_RUNS_TOKEN" if self._value else "neither TENURE_RUNS_TOKEN nor TENURE_RUNS_TOKEN_FILE"

    @property
    def given(self) -> bool:
        """Whether the settings name one at all."""
        return self._file is not None or bool(self._value)

    def read(self) -> str | None:
        """Return the token as it is now; None when there is none.

        Raises:
            RefusedError: The file cannot be read, or what is there is no token.
        """
        if self._file is None:
            found = self._value
        else:
            try:
                found = self._file.read_text(encoding="ascii").strip()
            except OSError as error:
                raise RefusedError(
                    f"{self.origin}: no token can be read there ({error.strerror}); it should be a projected "
                    "service account token with the audience pipelines.kubeflow.org"
                ) from error
            except UnicodeDecodeError:
                found = ""
        if not found and self._file is None:
            return None
        if not found or not _TOKEN.fullmatch(found):
            raise RefusedError(f"{self.origin}: what is there is no token (empty, or not one line of ASCII)")
        return found

    def headers(self) -> dict[str, str]:
        """Return the header that carries it; none without a token."""
        found = self.read()
        return {"authorization": f"Bearer {found}"} if found else {}

    def refresh_api_key_hook(self, config: Any) -> None:
        """Put the token into kfp's configuration; its client calls this before each request.

        That makes a token what `kfp.Client` takes as `credentials`.
        """
        found = self.read()
        if found:
            config.api_key["authorization"] = found
