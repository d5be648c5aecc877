"""The tests by alibi-detect, and the choice of who computes them.

alibi-detect's licence (Business Source License 1.1) excludes production use without a contract, and its numpy
is older than everybody else's: it lives in an environment of its own, imported only when a project asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from serving.detector.errors import BackendError
from tenure.drift.backend import Backend, ScipyBackend, check_columns
from tenure.drift.contingency import count_both, encode_groups, group_rare

if TYPE_CHECKING:
    from tenure.drift.reference import Reference, Sample


class AlibiBackend:
    """`TabularDrift` of alibi-detect; thread-safe, keeps nothing between windows.

    It knows neither missing values nor pooling, so it gets numbers in which missing is the smallest value of
    all, and the number of its group for each category: just what `ScipyBackend` tests.

    Args:
        reference: What windows are compared with.

    Raises:
        BackendError: alibi-detect is not installed here.
    """

    def __init__(self, reference: Reference) -> None:
        try:
            from alibi_detect.cd import TabularDrift
        except ImportError as error:
            raise BackendError(
                f"alibi-detect cannot be imported ({error}): run `make environment-detector` and "
                "start the detector with .venv-detector/bin/python, or say `backend: scipy` under the "
                "project's `drift`"
            ) from error
        self._make: Any = TabularDrift
        self._reference = reference

    def test(self, sample: Sample) -> dict[str, float]:
        """See `Backend.test`; the p-values have the precision of float32."""
        reference = self._reference
        check_columns(reference, sample)
        if not sample.rows:
            return dict.fromkeys(reference.columns, 1.0)
        known = np.empty((reference.rows, len(reference.columns)))
        recent = np.empty((sample.rows, len(reference.columns)))
        categorical: dict[int, None] = {}
        for index, name in enumerate(reference.columns):
            before, after = reference.columns[name], sample.columns[name]
            if name in reference.counts:
                categorical[index] = None
                names, table = count_both(reference.counts[name], after)
                groups = group_rare(table)
                before, after = (encode_groups(values, names, groups) for values in (before, after))
            known[:, index], recent[:, index] = before, after
        detector = self._make(known, categories_per_feature=categorical)
        # Neither the verdict nor the correction for many columns is taken from it: the monitor has its own.
        answer = detector.predict(recent, drift_type="feature")
        return dict(zip(reference.columns, map(float, answer["data"]["p_val"]), strict=True))


def open_backend(name: str, reference: Reference) -> Backend:
    """Return the backend that a project asks for.

    Args:
        name: `alibi-detect` or `scipy`.
        reference: What windows are compared with.

    Raises:
        BackendError: It is not installed here, or there is none of that name.
    """
    if name == "scipy":
        return ScipyBackend(reference)
    if name == "alibi-detect":
        return AlibiBackend(reference)
    raise BackendError(f"there is no drift backend {name!r}: say `alibi-detect` or `scipy`")
