"""Logs inferences to a sink as CloudEvents, beside the answers: whatever happens to the sink, they go on.

The events have the attributes of those that KServe's agent posts, but go out in batches
(`application/cloudevents-batch+json`) over one connection, from a thread of their own. Sources: CloudEvents
1.0 (JSON format, HTTP binding).
"""

from __future__ import annotations

import base64
import http.client
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import count

import msgspec
from prometheus_client.registry import REGISTRY, CollectorRegistry

from serving.predictor.channel import Channel
from serving.predictor.counters import Counters
from serving.predictor.metrics import EventCounts
from serving.predictor.settings import LoggerMode

_BATCH_EVENTS = 256  # about a millisecond's rendering: the event loop waits for the interpreter meanwhile
_BATCH_BYTES = 1024 * 1024
_LINGER = 0.05  # seconds in which a batch may gather
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LONGEST_ID = 200  # what the ledger keeps
_AGAIN = frozenset({408, 425, 429})  # and everything from 500 on

_log = logging.getLogger("serving.predictor")
_encode = msgspec.json.Encoder().encode


class Inference(msgspec.Struct, frozen=True, gc=False):
    """One request and its answer.

    Attributes:
        id: The events' id.
        began: When the request came, nanoseconds since 1970.
        ended: When it was answered.
        request: The request's body.
        is_json: Whether the request's body is known to be JSON.
        response: The response's body, JSON; None if it was no 200.
    """

    id: str
    began: int
    ended: int
    request: bytes
    is_json: bool
    response: bytes | None

    @property
    def size(self) -> int:
        """Bytes of both bodies."""
        return len(self.request) + (0 if self.response is None else len(self.response))


class Events:
    """A bounded queue of inferences and the thread that posts them.

    `log` and `make_id` belong to one thread (the event loop); they never block and never raise. What does not
    fit into the queue is dropped and counted, and so is what the sink refuses, or has not taken by `close`.

    Args:
        url: The sink's address.
        mode: Which half of each inference is logged.
        service: The InferenceService, for the events' attributes.
        namespace: Its namespace.
        version: The bundle's version.
        source: The address of this server.
        capacity: Most inferences that may wait.
        size: Most bytes of bodies that may wait.
        token: What the sink asks for from those who post, if it does.
        registry: Where `predictor_events_total{outcome}` (queued, sent or dropped; request and response are
            two events) and `predictor_events_waiting` are registered.
        counters: Where they are counted.

    Raises:
        StartError: The address is not one of HTTP.
    """

    def __init__(
        self,
        url: str,
        mode: LoggerMode,
        *,
        service: str,
        namespace: str,
        version: str,
        source: str,
        capacity: int,
        size: int,
        token: str | None = None,
        registry: CollectorRegistry = REGISTRY,
        counters: Counters | None = None,
    ) -> None:
        self._channel = Channel(url, token)
        self._mode = mode
        self._capacity = capacity
        self._size = size
        self._queue: deque[Inference] = deque()
        self._prefix = uuid.uuid4().hex
        self._numbers = count(1)
        self._tail = (
            b","
            + _encode(
                {
                    "specversion": "1.0",
                    "source": source,
                    "datacontenttype": "application/json",
                    "inferenceservicename": service,
                    "namespace": namespace,
                    "version": version,
                    "component": "predictor",
                    "endpoint": "",
                    "metadata": "{}",
                }
            )[1:-1]
        )
        self._both = 2 if mode == "all" else 1
        # Each is written by one thread only: so nothing is locked where requests are answered.
        self._queued = self._overflowed = self._bytes_in = 0  # by the event loop
        self._sent = self._refused = self._bytes_out = 0  # by the sender
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._held = 0
        self._reachable = True
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self.counts = EventCounts(self, Counters() if counters is None else counters)
        registry.register(self.counts)

    @property
    def queued(self) -> int:
        """Events that were taken into the queue."""
        return self._queued

    @property
    def sent(self) -> int:
        """Events that the sink has acknowledged."""
        return self._sent

    @property
    def dropped(self) -> int:
        """Events that were given up, in front of the queue or behind it."""
        return self._overflowed + self._refused

    @property
    def waiting(self) -> int:
        """Inferences in the queue, with those that are being sent."""
        return len(self._queue) + self._held

    def start(self) -> None:
        """Start to send."""
        self._thread.start()

    def make_id(self, given: str | None) -> str:
        """Return the id of an inference's events: what its caller gave (Ce-Id), or a new one."""
        if given and len(given) <= _LONGEST_ID and given.isprintable():
            return given
        return f"{self._prefix}-{next(self._numbers):x}"

    def log(self, inference: Inference) -> None:
        """Take an inference into the queue, or drop it."""
        events = self._count(inference)
        if (
            len(self._queue) + self._held >= self._capacity
            or self._bytes_in - self._bytes_out + inference.size > self._size
        ):
            self._overflowed += events
            return
        self._bytes_in += inference.size
        self._queued += events
        self._queue.append(inference)

    def close(self, seconds: float) -> None:
        """Send what waits, for at most so many seconds; what is left then is dropped."""
        self._deadline = time.monotonic() + seconds
        self._closing.set()
        if self._thread.is_alive():
            # A connection that hangs is given up with the process.
            self._thread.join(seconds + 0.5)

    def _count(self, inference: Inference) -> int:
        if inference.response is None:
            return 0 if self._mode == "response" else 1
        return self._both

    def _run(self) -> None:
        while True:
            waits = len(self._queue) < _BATCH_EVENTS // 2
            closing = self._closing.wait(_LINGER) if waits else self._closing.is_set()
            if closing and time.monotonic() > self._deadline:
                self._give_up()
            batch = self._take()
            if batch:
                self._send(batch)
                self._bytes_out += sum(inference.size for inference in batch)
                self._held = 0
            elif closing:
                self._channel.close()
                return

    def _give_up(self) -> None:
        """Drop all that waits."""
        events = sum(self._count(inference) for inference in self._queue)
        self._queue.clear()
        self._refused += events
        if events:
            _log.warning("%d events were not sent in time", events)

    def _take(self) -> list[Inference]:
        """Take a batch from the queue; it counts as waiting until it is sent."""
        batch: list[Inference] = []
        size = 0
        while self._queue and len(batch) < _BATCH_EVENTS // 2 and size < _BATCH_BYTES:
            inference = self._queue[0]
            self._held += 1
            self._queue.popleft()
            batch.append(inference)
            size += inference.size
        return batch

    def _send(self, batch: list[Inference]) -> None:
        """Post a batch until the sink has it, refuses it, or time is up."""
        events = sum(map(self._count, batch))
        if not events:
            return
        body = b"[" + b",".join(part for inference in batch for part in self._render(inference)) + b"]"
        pause = _FIRST_PAUSE
        while True:
            try:
                status = self._channel.post(body, self._deadline)
            except (OSError, http.client.HTTPException) as error:
                self._note(False, f"no answer ({error!r})")
            else:
                if status < 300:
                    self._note(True, "")
                    self._sent += events
                    return
                self._note(False, f"status {status}")
                if status < 500 and status not in _AGAIN:
                    break
            left = self._deadline - time.monotonic()
            if left <= 0:
                break
            self._pause(min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
        self._refused += events

    def _pause(self, seconds: float) -> None:
        """Wait; the end shortens it once, so that what waits is tried again at least one time."""
        if not self._closing.is_set():
            self._closing.wait(seconds)
        else:
            time.sleep(seconds)

    def _render(self, inference: Inference) -> Iterable[bytes]:
        """Return the events of an inference as JSON."""
        number = _encode(inference.id)
        if self._mode != "response":
            if inference.is_json:
                data = b',"data":' + inference.request
            else:
                data = b',"data_base64":"' + base64.b64encode(inference.request) + b'"'
            yield self._wrap(b"request", number, inference.began, data)
        if self._mode != "request" and inference.response is not None:
            yield self._wrap(b"response", number, inference.ended, b',"data":' + inference.response)

    def _wrap(self, kind: bytes, event_id: bytes, moment: int, data: bytes) -> bytes:
        stamp = _encode(datetime.fromtimestamp(moment / 1e9, UTC))
        return b'{"type":"org.kubeflow.serving.inference.%b","id":%b,"time":%b,"recordedtime":%b%b%b}' % (
            kind,
            event_id,
            stamp,
            stamp,
            self._tail,
            data,
        )

    def _note(self, reachable: bool, problem: str) -> None:
        """Log when the sink stops taking events, and when it takes them again."""
        if reachable != self._reachable:
            if reachable:
                _log.info("%s takes events again", self._channel.address)
            else:
                _log.warning("%s takes no events: %s; predictions go on", self._channel.address, problem)
        self._reachable = reachable
