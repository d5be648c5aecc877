"""Scores requests together that wait for the event loop anyway. Nobody waits for company.

One call of the trees costs more than one row in it. A request that is alone is scored at once; one that
others wait behind goes into the batch that is scored as soon as those have been read, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_MAX_ROWS = 256  # a fraction of a millisecond's work for most models

Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]


class Batch:
    """Matrices that are scored in one call. Used from one event loop.

    What is wrong with a request is found before its matrix is made, so none can fail its neighbours.

    Args:
        score: From a matrix, shape [rows, features], to its scores, shape [rows].
    """

    def __init__(self, score: Score) -> None:
        self._score = score
        self._waiting: list[tuple[NDArray[np.float32], asyncio.Future[NDArray[np.float64]]]] = []
        self._rows = 0

    async def score(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the scores of a matrix, once those requests that came with it have theirs."""
        loop = asyncio.get_running_loop()
        if self._rows + len(matrix) > _MAX_ROWS:
            self._flush()
        if not self._waiting:
            # It runs behind all that is ready now, such as the other requests that were just received.
            loop.call_soon(self._flush)
        future: asyncio.Future[NDArray[np.float64]] = loop.create_future()
        self._waiting.append((matrix, future))
        self._rows += len(matrix)
        return await future

    def _flush(self) -> None:
        """Score what waits."""
        waiting, self._waiting, self._rows = self._waiting, [], 0
        if not waiting:
            return
        try:
            matrices = [matrix for matrix, _ in waiting]
            scores = self._score(matrices[0] if len(matrices) == 1 else np.concatenate(matrices))
        except BaseException as error:
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for matrix, future in waiting:
            end = start + len(matrix)
            if not future.done():  # its client may have gone
                future.set_result(scores[start:end])
            start = end
