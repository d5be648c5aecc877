from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from serving.predictor.batch import Batch
from serving.predictor.engine import Engine
from serving.predictor.errors import BusyError, RequestError
from serving.predictor.metrics import Metrics
from serving.predictor.settings import Settings
from serving.predictor.tensors import parse_request
from tenure.bundle import Bundle
from tenure.scorer import Scorer

Rows = list[dict[str, Any]]
MakeBody = Callable[..., dict[str, Any]]


class Sums:
    """Scores a row by its sum, and remembers how many rows came at a time."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, matrix: Any) -> Any:
        self.calls.append(len(matrix))
        return matrix.sum(axis=1, dtype=np.float64)


def matrices(sizes: list[int]) -> list[Any]:
    total = np.arange(2 * sum(sizes), dtype=np.float32).reshape(-1, 2)
    return np.split(total, np.cumsum(sizes)[:-1])


@given(st.lists(st.integers(1, 64), min_size=1, max_size=20))
@settings(deadline=None)
def test_each_gets_its_own_scores(sizes: list[int]) -> None:
    sums, sent = Sums(), matrices(sizes)

    async def run() -> list[Any]:
        batch = Batch(sums)
        return await asyncio.gather(*(batch.score(matrix) for matrix in sent))

    for matrix, scores in zip(sent, asyncio.run(run()), strict=True):
        np.testing.assert_array_equal(scores, matrix.sum(axis=1))
    assert sum(sums.calls) == sum(sizes)
    assert max(sums.calls) <= 256
    assert len(sums.calls) <= 1 + sum(sizes) // (256 - 63)


def test_a_client_that_goes_away_takes_nobody_along() -> None:
    async def run() -> list[Any]:
        batch = Batch(Sums())
        tasks = [asyncio.create_task(batch.score(matrix)) for matrix in matrices([1, 1, 1])]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, second, third = asyncio.run(run())
    assert (first.tolist(), third.tolist()) == ([1.0], [9.0])
    assert isinstance(second, asyncio.CancelledError)


def test_a_failure_is_told_to_all_and_forgotten() -> None:
    scores = iter([ZeroDivisionError("no"), None])

    def score(matrix: Any) -> Any:
        problem = next(scores)
        if problem is not None:
            raise problem
        return matrix[:, 0]

    async def run() -> list[Any]:
        batch = Batch(score)
        failed = await asyncio.gather(*map(batch.score, matrices([1, 2])), return_exceptions=True)
        return [*failed, await batch.score(matrices([1])[0])]

    first, second, third = asyncio.run(run())
    assert isinstance(first, ZeroDivisionError)
    assert isinstance(second, ZeroDivisionError)
    assert third.tolist() == [0.0]


@pytest.fixture(scope="module")
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle, Scorer(bundle), Settings(max_rows=300), Metrics("test", CollectorRegistry()))


@given(st.lists(st.tuples(st.integers(1, 150), st.booleans()), min_size=1, max_size=12))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_neighbours_answer_as_if_alone(
    engine: Engine,
    make_body: MakeBody,
    rows: Rows,
    score: Callable[[Rows], np.ndarray],
    sizes: list[tuple[int, bool]],
) -> None:
    """Some requests are large, some wrong: the others get what the bundle says."""

    async def ask(size: int, good: bool) -> Any:
        sent = rows[:size] if good else [*rows[: size - 1], {**rows[0], "months": -1}]
        engine.gate.enter()
        try:
            query = engine.decoder.read(parse_request(json.dumps(make_body(sent)).encode()))
            return await engine.answer(query)
        finally:
            engine.gate.leave()

    async def run() -> list[Any]:
        return await asyncio.gather(*(ask(*size) for size in sizes), return_exceptions=True)

    for (size, good), answer in zip(sizes, asyncio.run(run()), strict=True):
        if good:
            np.testing.assert_allclose(answer.probabilities, score(rows[:size]), rtol=0, atol=1e-6)
            np.testing.assert_array_equal(answer.churn, answer.probabilities >= engine.bundle.threshold)
        else:
            assert isinstance(answer, RequestError)
            assert f"months: row {size - 1}" in str(answer)


def test_large_requests_do_not_queue_without_end(bundle: Bundle, make_body: MakeBody, rows: Rows) -> None:
    engine = Engine(bundle, Scorer(bundle), Settings(max_rows=200), Metrics("test", CollectorRegistry()))
    query = engine.decoder.read(parse_request(json.dumps(make_body(rows[:100] * 2)).encode()))

    async def run() -> list[Any]:
        return await asyncio.gather(*(engine.answer(query) for _ in range(10)), return_exceptions=True)

    answers = asyncio.run(run())
    assert [isinstance(answer, BusyError) for answer in answers] == [False] * 8 + [True] * 2
