"""In which order a route changes so that no request meets a gateway without the cluster it is sent to.

A gateway such as Envoy Gateway keeps a cluster for each backend of a rule, called by the backend's place in
the list, and none for a weight of 0. It adds, drops and renames clusters a moment before or after the routes
that name them, and answers 500 in between. Two habits keep customers out of such a moment:

- a Service keeps its place for as long as the route knows it; a place that becomes free is held by the stable
  Service with weight 0 until another canary takes it;
- a backend comes and goes by way of the weight `KEEP` in `SCALE`: its cluster appears, and disappears, while
  next to nobody is sent there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

KEEP, SCALE = 1, 1_000_000
"""One request in a million: as little as a weight can say, and yet a backend."""


def assign_places(now: Sequence[tuple[str, int]], wanted: Sequence[str]) -> list[str | None]:
    """Return which Service has which place in a rule; None is a place that somebody must hold.

    Args:
        now: The Services and weights of the rule as it is, in their order.
        wanted: The Services that must have a place.
    """
    places: list[str | None] = [None] * len(now)
    for name in wanted:
        weights = {index: weight for index, (other, weight) in enumerate(now) if other == name}
        if weights:  # named twice: the place where its requests come in
            places[max(weights, key=lambda index: weights[index])] = name
    for name in wanted:
        if name in places:
            continue
        if None in places:
            places[places.index(None)] = name
        else:
            places.append(name)
    while places and places[-1] is None:
        places.pop()
    return places


def step(now: Mapping[str, int], wanted: Mapping[str, int]) -> dict[str, int]:
    """Return the weights to give next on the way from `now` to `wanted`, which are those at its end.

    Args:
        now: Weights by Service as they are; whoever is not among those wanted is gone and is left out.
        wanted: Weights by Service as they shall be.
    """
    present = {name: now.get(name, 0) for name in wanted}
    total = sum(present.values())
    if not total:
        return dict(wanted)
    entering = [name for name, weight in wanted.items() if weight and not present[name]]
    if entering:
        return _fill(present, entering)
    leaving = [name for name, weight in wanted.items() if not weight and present[name] * SCALE > KEEP * total]
    return _fill(wanted, leaving) if leaving else dict(wanted)


def _fill(weights: Mapping[str, int], kept: Sequence[str]) -> dict[str, int]:
    """Return the weights on the great scale, with the least one for `kept`; they add up to `SCALE`."""
    others = {name: weight for name, weight in weights.items() if name not in kept}
    total, room = sum(others.values()), SCALE - KEEP * len(kept)
    filled = {name: weight and max(weight * room // total, KEEP) for name, weight in others.items()}
    largest = max(filled, key=lambda name: filled[name])
    filled[largest] += room - sum(filled.values())
    return {name: KEEP if name in kept else filled[name] for name in weights}
