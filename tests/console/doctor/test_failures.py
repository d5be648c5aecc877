"""Failures of first installs, as people told them: the doctor names each cause, and blames nobody else.

webhooks.py and workloads.py play them. `thread` is where a failure is told; messages are those of the thread,
shortened.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from doctor_failure import FAILURES, Failure


@pytest.mark.parametrize("told", FAILURES, ids=lambda told: told.name)
def test_the_cause_is_named(stage: Any, told: Failure) -> None:
    told.play(stage)
    found = stage.list_bad()
    named = [
        finding for finding in found if finding.check == told.check and re.search(told.says, finding.text)
    ]
    assert named, "\n".join(f"{finding.check}: {finding.text}" for finding in found) or "nothing was found"
    assert re.search(told.fix, named[0].fix)
    assert {finding.check for finding in found} <= {told.check, *told.beside}


def test_there_are_enough_of_them() -> None:
    assert len(FAILURES) >= 20
    assert len({told.thread for told in FAILURES}) == len(FAILURES)
