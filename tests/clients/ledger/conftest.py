from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from clients.ledger.reader import Ledger
from serving.detector.writer import Writer


@pytest.fixture
def writer(ledger_engine: Engine) -> Writer:
    return Writer(ledger_engine, clock=lambda: 1_000_000)


@pytest.fixture
def ledger(ledger_engine: Engine, ledger_url: str) -> Iterator[Ledger]:
    """The reader of what `writer` writes."""
    reader = Ledger(ledger_url)
    yield reader
    reader.close()
