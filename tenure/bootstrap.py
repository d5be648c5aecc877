"""How sure a held-out number is: seeded bootstrap intervals for metrics and for paired differences.

Rows are drawn with replacement from all rows (not within each class): the share of leavers in the held-out
part is itself a matter of chance, and average precision, log-loss, precision and lift move with it. Fixing
it, as a stratified bootstrap does, would make their intervals too narrow. In return a resample of very few
rows may hold one class only: what it cannot define is left out of the quantiles, and callers ask for
`MIN_CLASS_ROWS` rows of each class, with which that happens to fewer than one resample in 20,000.

Intervals are the 2.5 % and 97.5 % quantiles of the resampled values (Efron's percentile interval). The
calibration error is the exception, see `summarise`.

Everything that is compared uses the same resamples: models differ far less on the same customers than any of
them varies from sample to sample, and only the paired difference shows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from tenure.errors import EvaluationError
from tenure.metrics import CALIBRATION_NOISE, METRICS, Floats, Ranking, compute_metrics

LEVEL = 0.95
MIN_CLASS_ROWS = 10
_TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
_CELLS = 1 << 17  # rows x resamples measured at once: a block's arrays stay in the processor's cache


class Interval(BaseModel):
    """A value and the bounds of its 95 % interval, all finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


Scores = tuple[ArrayLike, float]
"""One model: its probabilities, shape [rows], and its threshold."""


def bootstrap_metrics(
    y: ArrayLike,
    p: ArrayLike,
    threshold: float,
    *,
    resamples: int = 1000,
    seed: int = 0,
    precision: float = 0.6,
) -> dict[str, Interval]:
    """Compute every metric with its interval.

    Args:
        y: Labels 0 or 1, shape [rows]; both must occur.
        p: Probabilities, shape [rows].
        threshold: The probability from which a row counts as leaving.
        resamples: How many resamples to draw.
        seed: The same seed and number of rows draw the same resamples.
        precision: The precision of `recall_at_precision`.

    Raises:
        EvaluationError: See `metrics.compute_metrics`; or too few rows for an interval.
    """
    draws = resample_models(y, {"model": (p, threshold)}, resamples=resamples, seed=seed, precision=precision)
    values = compute_metrics(y, p, threshold, precision)
    return summarise(values, draws["model"])


def bootstrap_difference(
    y: ArrayLike,
    first: Scores,
    second: Scores,
    *,
    resamples: int = 1000,
    seed: int = 0,
    precision: float = 0.6,
) -> dict[str, Interval]:
    """Compute first minus second for every metric, both measured on the same resamples.

    Raises:
        EvaluationError: See `bootstrap_metrics`.
    """
    models = {"first": first, "second": second}
    draws = resample_models(y, models, resamples=resamples, seed=seed, precision=precision)
    ours, theirs = (compute_metrics(y, p, threshold, precision) for p, threshold in (first, second))
    return {
        name: summarise_difference(ours[name] - theirs[name], draws["first"][name], draws["second"][name])
        for name in METRICS
    }


def resample_models(
    y: ArrayLike,
    models: Mapping[str, Scores],
    *,
    resamples: int,
    seed: int,
    precision: float = 0.6,
) -> dict[str, dict[str, Floats]]:
    """Measure every metric of every model on the same resamples.

    Returns:
        Model name -> metric name (and `CALIBRATION_NOISE`) -> array [resamples]; NaN where a resample does
        not define the metric.
    """
    names = (*METRICS, CALIBRATION_NOISE)
    rankings = {model: Ranking(y, p, threshold, precision) for model, (p, threshold) in models.items()}
    rows = np.asarray(y).shape[0]
    blocks: dict[str, list[Floats]] = {model: [] for model in rankings}
    for counts in draw_counts(rows, resamples, seed):
        for model, ranking in rankings.items():
            blocks[model].append(ranking.measure(counts, names))
    return {
        model: dict(zip(names, np.concatenate(parts, axis=1), strict=True)) for model, parts in blocks.items()
    }


def draw_counts(rows: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Draw resamples of all rows with replacement, a block at a time.

    Yields:
        How often each resample holds each row, shape [rows, some of the resamples]. The resamples depend on
        `rows` and `seed` alone, not on the size of the blocks; fewer resamples are the first of more.
    """
    generator = np.random.default_rng(seed)
    block = max(1, min(resamples, _CELLS // max(rows, 1)))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        counts = np.empty((size, rows))
        for row in counts:
            row[:] = np.bincount(generator.integers(0, rows, size=rows), minlength=rows)
        yield np.ascontiguousarray(counts.T)


def summarise(values: Mapping[str, float], draws: Mapping[str, Floats]) -> dict[str, Interval]:
    """Turn each metric's value and its resampled values into an interval.

    A calibration error is a sum of absolute values, so noise only adds to it: a resample's is above the
    sample's, and the sample's above the truth; the percentile interval of a well-calibrated model always lies
    above the truth (0 % coverage in simulation). By the triangle inequality the error cannot be further from
    the truth than the bins are, summed, so the lower bound is the value minus the 97.5 % quantile of that
    distance, and not below 0. The interval is on the wide side: in simulation it covers the truth in 95 % to
    100 % of cases.

    Args:
        values: Metric -> value on the rows themselves.
        draws: As `resample_models` returns for one model.

    Raises:
        EvaluationError: More than half of the resamples do not define a metric.
    """
    intervals = {}
    for name, value in values.items():
        low, high = _find_quantiles(draws[name])
        if name == "calibration_error":
            low, high = max(0.0, value - _find_quantiles(draws[CALIBRATION_NOISE])[1]), max(value, high)
        intervals[name] = Interval(value=value, low=low, high=high)
    return intervals


def summarise_difference(value: float, first: Floats, second: Floats) -> Interval:
    """Turn a difference and both models' values on the same resamples into a (percentile) interval.

    Raises:
        EvaluationError: More than half of the resamples do not define the metric.
    """
    low, high = _find_quantiles(first - second)
    return Interval(value=value, low=low, high=high)


def _find_quantiles(draws: Floats) -> tuple[float, float]:
    defined = draws[~np.isnan(draws)]
    if 2 * len(defined) < len(draws) or len(defined) == 0:
        raise EvaluationError(
            f"{len(draws) - len(defined)} of {len(draws)} resamples hold one class only: too few rows to say "
            f"how sure a metric is; judge on at least {MIN_CLASS_ROWS} rows of each class"
        )
    low, high = np.quantile(defined, _TAILS)
    return float(low), float(high)


def resample_slices(
    y: ArrayLike,
    models: Mapping[str, Scores],
    masks: Sequence[np.ndarray],
    metric: str,
    *,
    resamples: int,
    seed: int,
    precision: float = 0.6,
) -> dict[str, list[Floats]]:
    """Measure one metric on several slices of the rows, every model on the same resamples of all rows.

    Args:
        y: Labels 0 or 1, shape [rows].
        models: Name -> scores.
        masks: A boolean array [rows] per slice; each must hold both classes.
        metric: The metric.
        resamples: How many resamples to draw.
        seed: As everywhere: the same resamples as `resample_models` draws.
        precision: The precision of `recall_at_precision`.

    Returns:
        Model name -> per slice an array [resamples].
    """
    labels = np.asarray(y, dtype=np.float64)
    indexes = [np.flatnonzero(mask) for mask in masks]
    rankings = {
        model: [
            Ranking(labels[index], np.asarray(p, dtype=np.float64)[index], threshold, precision)
            for index in indexes
        ]
        for model, (p, threshold) in models.items()
    }
    blocks: dict[str, list[list[Floats]]] = {model: [[] for _ in masks] for model in models}
    for counts in draw_counts(len(labels), resamples, seed):
        for position, index in enumerate(indexes):
            part = counts[index]
            for model in models:
                blocks[model][position].append(rankings[model][position].measure(part, (metric,))[0])
    return {model: [np.concatenate(part) for part in parts] for model, parts in blocks.items()}
