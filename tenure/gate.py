"""The gate: may a challenger meet customers? Rules over held-out results, each with its reason.

There are two burdens of proof, and each rule says which is its own.

*Against the champion, on all rows, the challenger must prove itself.* Let d be challenger minus champion in
the gate's metric, turned so that more is better, with its paired 95 % interval [low, high].

- `superior`: approved only if low > margin.
- `non_inferior` (for a retrain on newer data): approved only if low >= -margin.

So two models with identical scores (d = 0, interval [0, 0]) are non-inferior at every margin, also 0, and
superior at none. Too few held-out rows make a wide interval, and a wide interval is a rejection.

*On a slice, a loss must be proven.* The challenger is rejected only if the whole paired interval on that
slice lies below -slice_margin (high < -slice_margin). Asking every slice for a proof of non-inferiority would
be wrong: some thirty slices are looked at, many of a few hundred rows, and among that many intervals of
equally good models a low lower bound is the rule, not the exception (with 43 slices of 1,733 Telco customers,
60 % of 30 pairs of equally good models had a lower bound below -0.05 on some slice, and 47 % an upper bound
below 0 on some slice, but none an upper bound below -0.05). For the same reason no further correction for
looking often is made: a challenger as good as the champion on a slice is rejected there only if chance moves
the difference by the margin and half the interval's width on top; the 2.5 % per slice of an unlucky interval
are reached only by a slice that already is as bad as allowed. (So do not set slice_margin to 0.) Slices with
too few rows of a class are counted, and not judged.

*Against logistic regression, a loss must be beyond chance and matter*: the challenger is rejected only if the
paired interval excludes equality (high < 0) and the difference itself is below -baseline_margin. The first
alone would reject over differences that do not matter, the second alone over noise; and asking for a proof of
non-inferiority would reject good first models of small data sets, where trees and logistic regression are
equals and no interval is narrow enough to show it.

*Floors* hold for the metric itself, not for its lower bound: they catch a broken model, not an unlucky one.
For log-loss the floor is a ceiling.

Without a champion only floors and baseline are asked.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from tenure.bootstrap import Interval
from tenure.errors import EvaluationError
from tenure.evaluation import BASELINE, CHALLENGER, CHAMPION, EvaluationReport, Slice
from tenure.metrics import is_higher_better
from tenure.project import Gate

_NAMED = 5  # slices named in a reason; the report shows them all


class Reason(BaseModel):
    """What one rule said.

    Attributes:
        rule: `champion`, `floor:METRIC`, `slices` or `baseline`.
        passed: Whether the challenger passed it.
        text: Why, with the numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rule: str
    passed: bool
    text: str


class Decision(BaseModel):
    """Whether the challenger may meet customers: only if it passed every rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    approved: bool
    reasons: list[Reason]

    def to_markdown(self) -> str:
        """Write the decision and every reason as Markdown, failures first."""
        lines = [f"# {'Approved' if self.approved else 'Rejected'}", ""]
        lines += ["| | rule | reason |", "|---|---|---|"]
        for reason in sorted(self.reasons, key=lambda reason: reason.passed):
            mark = "passed" if reason.passed else "**failed**"
            lines.append(f"| {mark} | {_escape(reason.rule)} | {_escape(reason.text)} |")
        return "\n".join(lines) + "\n"


def decide(report: EvaluationReport, gate: Gate) -> Decision:
    """Apply the gate's rules (see the module's text) to an evaluation.

    Args:
        report: The evaluation; its slices must have been measured in the gate's metric.
        gate: The rules' settings.

    Raises:
        EvaluationError: The report lacks what a rule needs.
    """
    reasons = []
    if CHAMPION in report.models:
        reasons.append(_compare_champion(report, gate))
        reasons.append(_compare_slices(report, gate))
    else:
        text = "there is no champion yet: floors and baseline decide alone"
        reasons.append(Reason(rule="champion", passed=True, text=text))
    reasons += [_check_floor(report, metric.value, floor) for metric, floor in gate.floors.items()]
    reasons.append(_compare_baseline(report, gate))
    return Decision(approved=all(reason.passed for reason in reasons), reasons=reasons)


def _compare_champion(report: EvaluationReport, gate: Gate) -> Reason:
    gain = _find_gain(report, CHAMPION, gate)
    if gate.rule == "superior":
        bar = gate.margin
        passed = gain.low > bar
        wanted = f"superior means that the interval lies above {_sign(bar)}"
    else:
        bar = -gate.margin
        passed = gain.low >= bar
        wanted = f"non-inferior means that the interval does not reach below {_sign(bar)}"
    if not passed and gain.high > bar:
        wanted += " (undecided: more held-out rows would make it narrower)"
    return Reason(rule="champion", passed=passed, text=f"{_describe_gain(report, CHAMPION, gate)}; {wanted}")


def _compare_slices(report: EvaluationReport, gate: Gate) -> Reason:
    if report.metric is not gate.metric:
        raise EvaluationError(
            f"the slices were measured in {report.metric}, but the gate compares {gate.metric}: evaluate "
            "again with the project that the gate belongs to"
        )
    judged = [part for part in report.slice_differences if part.interval is not None]
    skipped = len(report.slice_differences) - len(judged)
    gains = [(part, _orient(part.interval, gate)) for part in judged if part.interval is not None]
    worse = sorted(
        ((part, gain) for part, gain in gains if gain.high < -gate.slice_margin),
        key=lambda pair: pair[1].value,
    )
    note = f"; {skipped} with too few rows of a class were not judged" if skipped else ""
    if worse:
        named = "; ".join(_describe_slice(part, gain) for part, gain in worse[:_NAMED])
        more = f"; and {len(worse) - _NAMED} more" if len(worse) > _NAMED else ""
        text = (
            f"on {len(worse)} of {len(judged)} slices {gate.metric} is worse than the champion's by more "
            f"than {gate.slice_margin:g} with its whole interval: {named}{more}{note}"
        )
        return Reason(rule="slices", passed=False, text=text)
    text = (
        f"on none of {len(judged)} slices is {gate.metric} worse than the champion's by more than "
        f"{gate.slice_margin:g} with its whole interval"
    )
    if gains:
        part, gain = min(gains, key=lambda pair: pair[1].high)
        text += f" (closest to it: {_describe_slice(part, gain)})"
    return Reason(rule="slices", passed=True, text=text + note)


def _check_floor(report: EvaluationReport, metric: str, floor: float) -> Reason:
    interval = report.models[CHALLENGER].metrics[metric]
    higher = is_higher_better(metric)
    passed = interval.value >= floor if higher else interval.value <= floor
    text = (
        f"{metric} is {interval.value:.4f} (95 % interval {interval.low:.4f} to {interval.high:.4f}); "
        f"{'at least' if higher else 'at most'} {floor:g} is asked"
    )
    return Reason(rule=f"floor:{metric}", passed=passed, text=text)


def _compare_baseline(report: EvaluationReport, gate: Gate) -> Reason:
    gain = _find_gain(report, BASELINE, gate)
    passed = not (gain.high < 0 and gain.value < -gate.baseline_margin)
    text = (
        f"{_describe_gain(report, BASELINE, gate)}; too bad would be more than "
        f"{gate.baseline_margin:g} worse, with an interval below 0"
    )
    return Reason(rule="baseline", passed=passed, text=text)


def _find_gain(report: EvaluationReport, other: str, gate: Gate) -> Interval:
    """Look up challenger minus `other` in the gate's metric, turned so that more is better."""
    try:
        difference = report.differences[f"{CHALLENGER}-{other}"][gate.metric]
    except KeyError:
        raise EvaluationError(
            f"the evaluation does not compare the challenger with {other!r} in {gate.metric}: evaluate again"
        ) from None
    return _orient(difference, gate)


def _orient(difference: Interval, gate: Gate) -> Interval:
    """Turn a difference so that more is better."""
    if is_higher_better(gate.metric):
        return difference
    return Interval(value=-difference.value, low=-difference.high, high=-difference.low)


def _describe_gain(report: EvaluationReport, other: str, gate: Gate) -> str:
    gain = _find_gain(report, other, gate)
    ours, theirs = (report.models[name].metrics[gate.metric].value for name in (CHALLENGER, other))
    name = {CHAMPION: "the champion", BASELINE: "logistic regression"}[other]
    return f"{gate.metric} {ours:.4f} against {theirs:.4f} of {name}, a gain of {_describe(gain)}"


def _describe_slice(part: Slice, gain: Interval) -> str:
    return f"{part.column} = {part.value} ({part.rows} rows): {_describe(gain)}"


def _describe(gain: Interval) -> str:
    return f"{_sign(gain.value, 4)} (95 % interval {_sign(gain.low, 4)} to {_sign(gain.high, 4)})"


def _sign(number: float, digits: int | None = None) -> str:
    text = f"{number:+g}" if digits is None else f"{number:+.{digits}f}"
    return text if float(text) else text.lstrip("+-")


def _escape(text: str) -> str:
    """Keep text from ending a table cell or starting markup."""
    for mark in "\\`*[]<>|":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())
