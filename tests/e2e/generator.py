"""Steady load on one model through the gateway, as a process of its own: `generator.py PLAN.json`.

A few keep-alive connections, each asking at its own pace, never two requests at once on one of them. Whatever
is not a 200 with the right number in it is a failure: other statuses, broken connections, wrong answers.
Nothing is tried again.

Speaks lines on standard input and output: `count` answers with the totals so far; `stop`, or the end of the
input, ends the load and answers with all of it (JSON).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

TOLERANCE = 1e-6
PAUSE_AFTER_FAILURE = 0.02
TIMEOUT = 10.0
_GAP = "@customer@"


class Answer(NamedTuple):
    """A 200: when it came, how many seconds it took, who gave it to whom, and which request it answers."""

    at: float
    seconds: float
    version: str
    customer: int
    number: int


class Failure(NamedTuple):
    """Anything else: when it was seen, what it was, how many seconds it took, and which request had it."""

    at: float
    text: str
    seconds: float
    number: int


class Load:
    """The plan's load; times are seconds of the system-wide monotonic clock.

    Plan: host, port, name (Host header), path, bodies (V2 requests of one row), expected (probability of each
    body by version), connections, rate (requests per second of all connections), customers (ids for the
    header `x-customer-id`; 0: without it), mark (request n is about customer MARK-n; empty: about nobody).
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._numbers = itertools.count()
        self._ended = asyncio.Event()
        self._bodies = [self._render(body) for body in plan["bodies"]]
        self.answers: list[Answer] = []
        self.failures: list[Failure] = []

    def _render(self, body: dict[str, Any]) -> bytes:
        """Return a body with a gap for the customer's id, if requests are about somebody."""
        if not self._plan["mark"]:
            return json.dumps(body).encode()
        who = {"name": "customer_id", "datatype": "BYTES", "shape": [1], "data": [_GAP]}
        return json.dumps({**body, "inputs": [*body["inputs"], who]}).encode()

    async def run(self) -> None:
        connections = self._plan["connections"]
        await asyncio.gather(*(self._work(index / connections) for index in range(connections)))

    def end(self) -> None:
        self._ended.set()

    async def _work(self, phase: float) -> None:
        period = self._plan["connections"] / self._plan["rate"]
        due = time.monotonic() + phase * period
        reader: asyncio.StreamReader | None = None
        writer: asyncio.StreamWriter | None = None
        while not self._ended.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + period, time.monotonic() - period)
            number = next(self._numbers)
            started = time.monotonic()
            failure = None
            try:
                async with asyncio.timeout(TIMEOUT):
                    if reader is None or writer is None:
                        reader, writer = await asyncio.open_connection(self._plan["host"], self._plan["port"])
                    failure, kept = await self._ask(reader, writer, number, started)
                if not kept:
                    writer.close()
                    reader = writer = None
            except (OSError, EOFError, TimeoutError, ValueError) as error:
                failure = f"{type(error).__name__}: {error}"
                if writer is not None:
                    writer.close()
                reader = writer = None
            if failure is not None:
                now = time.monotonic()
                self.failures.append(Failure(now, failure, now - started, number))
                await asyncio.sleep(PAUSE_AFTER_FAILURE)
        if writer is not None:
            writer.close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int, started: float
    ) -> tuple[str | None, bool]:
        """Send one request and read its answer; return what is wrong with it, and whether to go on there."""
        which = number % len(self._bodies)
        customers = self._plan["customers"]
        # The divisor keeps a customer from always sending the same row.
        customer = number // 3 % customers if customers else -1
        payload = self._bodies[which]
        if self._plan["mark"]:
            payload = payload.replace(_GAP.encode(), f"{self._plan['mark']}-{number}".encode())
        header = f"x-customer-id: customer-{customer}\r\n" if customers else ""
        head = f"POST {self._plan['path']} HTTP/1.1\r\nhost: {self._plan['name']}\r\n{header}"
        head += f"content-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
        writer.write(head.encode() + payload)
        status, kept, body = await read_answer(reader)
        ended = time.monotonic()
        if status != 200:
            return f"{status}: {body[:200].decode(errors='replace')}", kept
        document = json.loads(body)
        version = document["model_version"]
        self.answers.append(Answer(ended, ended - started, version, customer, number))
        return self._judge(document, version, which), kept

    def _judge(self, document: dict[str, Any], version: str, which: int) -> str | None:
        """Return what is wrong with an answer."""
        outputs = {output["name"]: output["data"] for output in document["outputs"]}
        expected = self._plan["expected"].get(version)
        if expected is None:
            return f"unknown version {version}"
        if abs(outputs["churn_probability"][0] - expected[which]) > TOLERANCE:
            return f"{version}: {outputs['churn_probability'][0]} for row {which}, not {expected[which]}"
        return None

    def count(self) -> dict[str, Any]:
        versions = Counter(answer.version for answer in self.answers)
        return {"answered": len(self.answers), "failed": len(self.failures), "versions": versions}


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """Read an HTTP/1.1 answer of either framing: its status, whether the connection stays, its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
    status = int(head[0].split(" ")[1])
    kept = fields.get("connection") != "close"
    if fields.get("transfer-encoding") != "chunked":
        return status, kept, await reader.readexactly(int(fields.get("content-length", "0")))
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
    await reader.readexactly(2)
    return status, kept, b"".join(parts)


async def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    load = Load(plan)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    work = asyncio.create_task(load.run())
    while (command := (await commands.readline()).decode().strip()) == "count":
        write(load.count())
    load.end()
    await work
    with contextlib.suppress(BrokenPipeError):
        write({"command": command, "answers": load.answers, "failures": load.failures})


def write(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
