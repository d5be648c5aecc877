"""What was counted since a canary began, although counters start anew with what counts."""

from __future__ import annotations

from collections.abc import Mapping

from serving.pilot.page import Backend, Counters
from tenure.judgement import Progress, Traffic

CANARY, STABLE = "canary", "stable"
"""The arms, as keys of `Progress.counters` for their sums; `ARM:NAME` has the last reading of a part."""

PODS = "pods"
"""Key of `Progress.counters` for the gateway's pods: since when each has counted."""

SLACK_SECONDS = 5
"""By how much what a pod says of its age may differ between two readings."""


def add_up(before: Counters, raw: Counters) -> tuple[Counters, dict[str, int]]:
    """Find what was counted since an earlier reading, although a counter may have started anew.

    Args:
        before: The earlier reading.
        raw: This one.

    Returns:
        The reading to go on from (what is gone is kept, in case it comes back), and the sums of increases.
    """
    sums: dict[str, int] = {}
    for name, counts in raw.items():
        known = before.get(name)
        for counter, value in counts.items():
            # A counter that is new for a known process has only now become readable; one of a new process has
            # counted from 0.
            old = 0 if known is None else known.get(counter, value)
            sums[counter] = sums.get(counter, 0) + (value - old if value >= old else value)
    return {**before, **raw}, sums


def to_traffic(arm: str, sums: Mapping[str, int]) -> Traffic:
    """Return the sums of an arm's counters as traffic.

    The stable version's own tries include those of requests that it answers in the canary's place, so its
    errors are those that clients saw; nobody stands in for it. A request that is under way may be counted in
    one place and not yet in another: no difference counts below 0, and no errors above the requests.
    """

    def get(name: str) -> int:
        return sums.get(name, 0)

    if arm == CANARY:
        errors = max(get("meant") - get("tried"), 0) + max(get("failed") - get("refused"), 0)
    else:
        errors = get("server_errors")
    requests = get("meant")
    return Traffic(
        requests=requests,
        errors=min(errors + get("client_errors"), requests),
        timed=max(get("timed"), get("slow")),
        slow=get("slow"),
    )


def count(progress: Progress, canary: Backend, stable: Backend) -> Progress:
    """Return the progress with what the gateway counted since the last reading.

    What is slow is fixed by the first reading in which the stable version has answered often enough.
    """
    slow_ms = progress.slow_ms
    if slow_ms is None:
        slow_ms = stable.find_slow_ms()
    counters: Counters = dict(progress.counters)
    for arm, backend in ((CANARY, canary), (STABLE, stable)):
        prefix = f"{arm}:"
        before = {
            name.removeprefix(prefix): counts
            for name, counts in progress.counters.items()
            if name.startswith(prefix)
        }
        raw = backend.count_raw(slow_ms)
        _heed_pods(before, raw, backend.pods, progress)
        after, sums = add_up(before, raw) if arm in counters else (raw, {})
        counters |= {f"{prefix}{name}": counts for name, counts in after.items()}
        total = counters.get(arm, {})
        counters[arm] = {counter: total.get(counter, 0) + sums.get(counter, 0) for counter in {*total, *sums}}
    if canary.pods:
        counters[PODS] = {**counters.get(PODS, {}), **canary.pods}
    return progress.model_copy(update={"slow_ms": slow_ms, "counters": counters})


def _heed_pods(before: Counters, raw: Counters, pods: Mapping[str, int], progress: Progress) -> None:
    """Correct `before` where the age of a pod of the gateway says what its counters alone do not.

    One that was there before the canary, but is read for the first time, has counted others' requests under
    the same names. One that started anew has counted from 0, even where it is past the earlier reading.
    """
    known = progress.counters.get(PODS, {})
    for name, counts in raw.items():
        pod = name.rpartition("@")[2]
        since = pods.get(pod)
        if since is None:
            continue
        if pod in known:
            if since > known[pod] + SLACK_SECONDS:
                before[name] = dict.fromkeys(counts, 0)
        elif since < progress.began.timestamp():
            before[name] = counts
