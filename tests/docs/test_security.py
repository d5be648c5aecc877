"""SECURITY.md names the tests that hold its claims: each of them exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def list_claims() -> list[tuple[str, str]]:
    """Return (file, test) of every name between backticks; a name without a file is of the one before."""
    claims, file = [], ""
    for name in re.findall(r"`((?:tests/)?[a-z_/0-9]*(?:\.py)?(?:::test_[a-z_0-9]+)?)`", PAGE):
        path, _, test = name.partition("::")
        if path.endswith(".py"):
            file = path if path.startswith("tests/") else str(Path(file).parent / path)
        if path.endswith(".py") or test:
            claims.append((file, test))
    return claims


def test_every_test_that_is_named_exists() -> None:
    claims = list_claims()
    assert len(claims) >= 40
    for file, test in claims:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in text, f"{file}::{test}"
