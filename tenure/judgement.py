"""What the pilot concludes about a canary from live traffic: take it back, let it go on, or wait.

Two kinds of error, two ways of keeping them rare, both at every moment and over the canary's whole life:

- *A harmless canary is taken back* with probability at most `alpha`. It is split evenly over the five signals
  that chance can move (a union bound). Harm means: surely worse than the stable version (the lower bound is
  above 0), *and* by more than the tolerance as far as is known. Asking that it surely be worse than the
  tolerance would let a canary hurt for long that is just beyond it; asking for no more than "surely worse"
  would, with enough traffic, take back everything that is not exactly equal.
- *A canary that is worse than its tolerance in some signal goes on* with probability at most `alpha`. That
  needs no split: it goes on only if all signals call it safe, so the one in which it is not must err (Berger
  1982). Safe means: the upper bound is below the tolerance.

Scores are the exception: harm there means surely beyond the tolerance, as the two versions are meant to score
differently, and what evaluation expects of the difference is itself an estimate. A score that is not what the
canary's own bundle gives is harm at once. Calibration and profit come late, with the labels: they may take a
canary back, but nothing waits for them.

Errors and latency are compared within each step (`Progress.finished`), so that an outage that comes while the
canary has half of the traffic is not laid at its door. See `tenure.sequence` for the tests.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from tenure.canary import Rollout
from tenure.contract import Strict
from tenure.evidence import Evidence, Progress, Stage, Traffic, compute_profits
from tenure.signal import LATE, Signal, measure

__all__ = [
    "Action",
    "Evidence",
    "Judgement",
    "Progress",
    "Signal",
    "Stage",
    "Traffic",
    "compute_profits",
    "judge",
]

LOGGED = 0.5
"""Share of the canary's answers that must be in the log of predictions before it goes on."""

Action = Literal["wait", "advance", "promote", "rollback", "hold"]


class Judgement(Strict):
    """What to do with a canary, and why."""

    action: Action
    signals: tuple[Signal, ...]
    text: str

    @property
    def harms(self) -> tuple[Signal, ...]:
        """The signals that call for taking the canary back."""
        return tuple(signal for signal in self.signals if signal.harm)


def judge(rollout: Rollout, evidence: Evidence, progress: Progress, now: datetime) -> Judgement:
    """Judge a canary; may be asked at any time and as often as one likes.

    Args:
        rollout: The project's demands.
        evidence: All that is known since the canary's first traffic.
        progress: How far it has come.
        now: The time of the judgement.

    Returns:
        `rollback` on harm; `advance` or, on the last step, `promote` once there is enough evidence of no harm
        (`hold` where a person promotes); `wait` before; and past the deadline what the project says.
    """
    signals = tuple(measure(rollout, evidence, progress))
    harms = [signal for signal in signals if signal.harm]
    if harms:
        text = "take it back: " + "; ".join(signal.text for signal in harms)
        return Judgement(action="rollback", signals=signals, text=text)
    if not rollout.steps and not rollout.mirror_percent:
        text = "the project has neither steps nor a dark launch: it waits for a person to promote it"
        return Judgement(action="hold", signals=signals, text=text)
    waits = _list_waits(rollout, evidence, progress, now, signals)
    last = progress.step + 1 >= len(rollout.steps)
    if not waits:
        if not last:
            text = f"no harm in {evidence.step_requests} answers: on to {rollout.steps[progress.step + 1]} %"
            return Judgement(action="advance", signals=signals, text=text)
        if rollout.promotion == "manual":
            return Judgement(action="hold", signals=signals, text="no harm found: a person may promote it")
        return Judgement(
            action="promote", signals=signals, text="no harm found up to the last step: promote it"
        )
    text = "waits for " + ", ".join(waits)
    if now - progress.since < timedelta(minutes=rollout.deadline_minutes):
        return Judgement(action="wait", signals=signals, text=text)
    action: Action = rollout.on_deadline
    if action == "promote" and rollout.promotion == "manual":
        action = "hold"
    text = f"past the deadline of {rollout.deadline_minutes:g} minutes it still {text}: {action}"
    return Judgement(action=action, signals=signals, text=text)


def _list_waits(
    rollout: Rollout, evidence: Evidence, progress: Progress, now: datetime, signals: tuple[Signal, ...]
) -> list[str]:
    """Return in words what is still lacking for the next step, nothing if nothing is."""
    waits: list[str] = []
    dark = progress.step < 0
    if dark and not rollout.mirror_percent:
        return waits  # nothing can be learnt at 0 % without copies
    missing = (rollout.mirror_requests if dark else rollout.min_requests) - evidence.step_requests
    if missing > 0:
        waits.append(f"{missing} more {'copied requests' if dark else 'answers'}")
    # Scores that are not seen cannot be found wrong: what is missing in the log may be what is wrong.
    answered = evidence.canary.requests - evidence.canary.errors
    if evidence.logged is not None and evidence.logged < LOGGED * answered:
        waits.append(f"the log of its predictions ({evidence.logged} of {answered} answers have arrived)")
    left = timedelta(minutes=rollout.min_minutes) - (now - progress.since)
    if left > timedelta(0):
        waits.append(f"{left.total_seconds() / 60:.1f} more minutes")
    waits += [
        f"surer {signal.name} ({signal.text})"
        for signal in signals
        if not signal.safe and signal.name not in LATE
    ]
    return waits
