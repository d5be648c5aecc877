"""Kills what runs, under load, in an order that follows from a seed: docs/chaos.md."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import pytest
from chaos_campaign import Campaign
from chaos_schedule import plan_blows, read_seeds

SEED = 11
"""Of the short one that runs with all other tests."""

SHORT = 3

pytestmark = [
    # Python closes no TLS connection whose other end has died before the handshake.
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
    # A busy machine takes its time; each wait has its own bound.
    pytest.mark.timeout(2400),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked_for = metafunc.config.getoption("--seeds")
    seeds = read_seeds(asked_for) if asked_for else [SEED]
    metafunc.parametrize("seed", seeds)


def test_nothing_is_lost_whoever_is_killed(
    seed: int, stage: Any, platform: Any, request: pytest.FixtureRequest
) -> None:
    blows = plan_blows(seed)
    if not request.config.getoption("--seeds"):
        blows = blows[:SHORT]

    def tell(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    tell(f"\nseed {seed}: {'; '.join(map(str, blows))}")
    try:
        problems = Campaign(stage, platform.tracking, seed, blows, tell).carry_out()
    except Exception:
        # At once: the other seeds take a while.
        tell(f"seed {seed}: broke\n{traceback.format_exc()}")
        raise
    for problem in problems:
        tell(f"  WRONG: {problem}")
    tell(f"seed {seed}: {'FAILED' if problems else 'passed'}")
    if problems:
        pytest.fail(f"replay with `make chaos SEEDS={seed}`:\n" + "\n".join(problems), pytrace=False)
