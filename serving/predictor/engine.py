"""The engine: one loaded bundle, and the way from a query to an answer that every protocol shares."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from prometheus_client.registry import REGISTRY, CollectorRegistry

from serving.predictor.batch import Batch
from serving.predictor.conversion import shorten
from serving.predictor.decoding import PROBABILITY, REASONS, Decoder, Query, list_inputs, list_outputs
from serving.predictor.errors import BusyError, RequestError, StartError, UnknownModelError
from serving.predictor.gate import Gate
from serving.predictor.metrics import Metrics
from tenure.bundle import load_bundle
from tenure.errors import BundleError, RowError
from tenure.scorer import Scorer, to_columns

if TYPE_CHECKING:
    from serving.predictor.counters import Counters
    from serving.predictor.events import Events
    from serving.predictor.settings import Settings
    from tenure.bundle import Bundle

_TOLERANCE = 1e-6
_LARGE_REQUESTS = 8  # so many of the largest may wait for the thread
_INLINE_ROWS = 128  # about a millisecond's work; more goes to a thread, so that small requests overtake it


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says of each row.

    Attributes:
        probabilities: Calibrated P(churn), shape [n].
        churn: Whether that reaches the threshold, shape [n].
        reasons: A JSON text for each row, if they were asked for: a list of objects with `feature` and
            `contribution` (to the log-odds), the strongest first.
    """

    probabilities: NDArray[np.float64]
    churn: NDArray[np.bool_]
    reasons: list[str] | None = None

    def get(self, name: str) -> NDArray[Any] | list[str]:
        """Return an output tensor's values by its name."""
        if name == PROBABILITY:
            return self.probabilities
        if name == REASONS:
            assert self.reasons is not None  # noqa: S101 - whoever asks for them has queried them
            return self.reasons
        return self.churn


class Engine:
    """Scores queries with one bundle. Used from one event loop.

    Attributes:
        bundle: The verified bundle.
        decoder: Understands requests for it.
        metrics: Its counters.
        inputs: V2 metadata of the input tensors.
        outputs: V2 metadata of the output tensors.
        events: Where inferences are logged, if they are.
        direct_only: Whether an agent on this machine logs what it passes on.
        gate: Counts the requests that are being answered.
    """

    def __init__(
        self,
        bundle: Bundle,
        scorer: Scorer,
        settings: Settings,
        metrics: Metrics,
        events: Events | None = None,
    ) -> None:
        self.bundle = bundle
        self.decoder = Decoder(bundle.contract, bundle.featuriser, settings.max_rows, settings.reasons)
        self.metrics = metrics
        self.events = events
        self.direct_only = settings.logger_scope == "direct"
        self.inputs = list_inputs(bundle.contract, bundle.featuriser.names)
        self.outputs = list_outputs()
        self._scorer = scorer
        self.gate = Gate(settings.max_concurrent)
        self._batch = Batch(scorer.score_matrix)
        self._rows_aside = 0
        self._max_rows_aside = _LARGE_REQUESTS * settings.max_rows
        # One thread: it keeps the loop free; more would fight for the same cores.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="score")

    @property
    def version(self) -> str:
        """The bundle's version."""
        return self.bundle.version

    def check_version(self, model: str, version: str) -> None:
        """Refuse what is asked of another version; an empty one is any.

        Raises:
            UnknownModelError: Names both.
        """
        if version and version != self.version:
            raise UnknownModelError(
                f"version {shorten(version)} of {model} is not served here, only {self.version} is"
            )

    async def answer(self, query: Query) -> Answer:
        """Score a query and count it.

        Raises:
            RequestError: A value breaks the contract; names the tensor and the row.
        """
        if query.rows <= _INLINE_ROWS and not query.reasons:
            matrix = self._featurise(query)
            if self.gate.waiting <= 1:
                probabilities = self._scorer.score_matrix(matrix)
            else:
                probabilities = await self._batch.score(matrix)
            answer = Answer(probabilities, probabilities >= self.bundle.threshold)
        else:
            answer = await self._answer_aside(query)
        self.metrics.count_answer(answer.probabilities, answer.churn)
        return answer

    async def _answer_aside(self, query: Query) -> Answer:
        """Answer a query that takes long in the thread, behind those that are there already."""
        if self._rows_aside + query.rows > self._max_rows_aside:
            raise BusyError("the server is busy: large requests wait already, send it again later")
        self._rows_aside += query.rows
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._score, query)
        finally:
            self._rows_aside -= query.rows

    def _featurise(self, query: Query) -> NDArray[np.float32]:
        try:
            return self.bundle.featuriser.transform(query.columns)
        except RowError as error:
            raise RequestError(str(error)) from error

    def _score(self, query: Query) -> Answer:
        """Score and explain a query, in the thread."""
        matrix = self._featurise(query)
        probabilities = self._scorer.score_matrix(matrix)
        churn = probabilities >= self.bundle.threshold
        reasons = None
        if query.reasons:
            try:
                reasons = [_render_reasons(row) for row in self._scorer.explain(matrix, query.reasons)]
            except BundleError as error:
                raise RequestError(f"{REASONS}: {error}") from error
        return Answer(probabilities, churn, reasons)


def _render_reasons(row: list[tuple[str, float]]) -> str:
    document = [{"feature": feature, "contribution": contribution} for feature, contribution in row]
    text: bytes = msgspec.json.encode(document)
    return text.decode()


def load_engine(settings: Settings, counters: Counters | None = None) -> Engine:
    """Load and verify the bundle and score its known rows, so that the first request finds everything warm.

    Args:
        settings: Where it lies, and how it is served.
        counters: What several workers count together; then the metrics have a registry of their own.

    Raises:
        StartError: There is no bundle, it is altered, or it does not score its known rows as it should.
    """
    try:
        bundle = load_bundle(settings.model_dir, settings.digest)
        scorer = Scorer(bundle, threads=settings.threads)
        scores = scorer.score_columns(to_columns(bundle.probe(), bundle.featuriser.names))
    except (BundleError, RowError) as error:
        raise StartError(f"the bundle cannot be served: {error}") from error
    distance = float(np.abs(scores - bundle.probe_scores()).max(initial=0.0))
    if not distance <= _TOLERANCE:
        raise StartError(
            f"the bundle in {settings.model_dir} cannot be served: its known rows score up to {distance:g} "
            "away from what they did when it was trained: this ONNX Runtime computes something else"
        )
    registry = REGISTRY if counters is None else CollectorRegistry()
    metrics = Metrics(bundle.version, registry, counters)
    if counters is not None:
        metrics.watch_parent()
    return Engine(bundle, scorer, settings, metrics, _open_events(settings, bundle.version, metrics))


def _open_events(settings: Settings, version: str, metrics: Metrics) -> Events | None:
    """Return the log of inferences that the settings ask for, None if they ask for none; not started.

    Raises:
        StartError: The sink's address is none.
    """
    if settings.logger_url is None:
        return None
    from serving.predictor.events import Events

    return Events(
        settings.logger_url.replace("{version}", version),
        settings.logger_mode,
        service=settings.model_name,
        namespace=settings.namespace,
        version=version,
        source=f"http://{socket.gethostname()}:{settings.http_port}/",
        capacity=settings.logger_queue,
        size=settings.logger_queue_bytes,
        token=settings.logger_token,
        registry=metrics.registry,
        counters=metrics.counters,
    )
