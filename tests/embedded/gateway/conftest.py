"""A real Envoy and tiny model servers."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from embedded.gateway import Endpoint, Gateway
from embedded.ports import find_free_port

# Answers every request with its own name, after a while if it is `slow`, with a status if it is a number; or
# drops the connection if it is `reset`. It is always ready. If it is to `record`, it writes down what came.
SERVER = """
import asyncio, sys

name, port, manner = sys.argv[1].encode(), int(sys.argv[2]), sys.argv[3]

async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            length = 0
            for line in head.split(b"\\r\\n"):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if length:
                await reader.readexactly(length)
            status = b"200"
            if b"/infer" in head:
                if manner == "reset":
                    writer.transport.abort()
                    return
                if manner == "slow":
                    await asyncio.sleep(0.05)
                if manner.isdigit():
                    status = manner.encode()
            body = b'{"model_version": "' + name + b'"}'
            if manner == "record":
                with open(sys.argv[4], "ab") as file:
                    file.write(name + b" " + head.replace(b"\\r\\n", b"|") + b"\\n")
            head = b" x\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body)
            writer.write(b"HTTP/1.1 " + status + head + body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()

asyncio.run(main())
"""


class Servers:
    """Tiny model servers, each a process."""

    def __init__(self, directory: Path) -> None:
        self._script = directory / "server.py"
        self._script.write_text(SERVER)
        self.record = directory / "requests"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, port: int | None = None, manner: str = "good") -> Endpoint:
        """Start one; its gRPC port is its HTTP port, for it does not speak gRPC."""
        port = port or find_free_port()
        command = [sys.executable, "-I", str(self._script), name, str(port), manner, str(self.record)]
        process = subprocess.Popen(command)
        self.processes[name] = process
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/"), f"{name} to answer")
        return Endpoint(port, port)

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait(10)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Poll a condition; fail when it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.01)


def answers(url: str) -> bool:
    """Return whether something answers there."""
    try:
        return httpx.get(url, trust_env=False, timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    started = Servers(tmp_path)
    yield started
    started.end()


class Envoy:
    """A running Envoy and its gateway."""

    def __init__(self, directory: Path) -> None:
        self.port = find_free_port()
        self.admin_port = find_free_port()
        self.gateway = Gateway(directory, self.port, self.admin_port)
        self.gateway.prepare()
        self.log = directory / "envoy.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.gateway.command(), stdout=output, stderr=subprocess.STDOUT, env={**os.environ}
            )
        wait_until(lambda: self.gateway.describe_problem() is None, f"Envoy: {self.log}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None

    def get_stats(self, pattern: str) -> str:
        return httpx.get(
            f"http://127.0.0.1:{self.admin_port}/stats", params={"filter": pattern}, trust_env=False
        ).text

    def count(self) -> Counts:
        """Read what the pilot reads."""
        page = httpx.get(f"http://127.0.0.1:{self.admin_port}/stats/prometheus", trust_env=False)
        return Counts(page.text)


@pytest.fixture
def envoy(tmp_path: Path) -> Iterator[Envoy]:
    running = Envoy(tmp_path / "envoy")
    running.start()
    yield running
    running.stop()
    running.gateway.close()


class Counts:
    """Envoy's page for Prometheus, summed by metric and cluster."""

    def __init__(self, text: str) -> None:
        self._values: dict[tuple[str, str, str], float] = {}
        for line in text.splitlines():
            match = re.fullmatch(r"envoy_cluster_(\w+)\{(.*)\} (\S+)", line)
            if match is None or "envoy_cluster_name=" not in match[2]:
                continue
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2]))
            extra = labels.get("le") or labels.get("envoy_response_code_class") or ""
            key = (match[1], labels["envoy_cluster_name"], extra)
            self._values[key] = self._values.get(key, 0) + float(match[3])

    def get(self, metric: str, cluster: str, extra: str = "") -> int:
        """Return a counter, 0 if it was never counted; `extra` is the class of status codes or the bound."""
        return int(self._values.get((metric, cluster, extra), 0))

    def list_bounds(self, metric: str, cluster: str) -> list[str]:
        """Return the bounds of a histogram."""
        return [extra for name, of, extra in self._values if (name, of) == (metric, cluster)]


class Load:
    """Steady requests from a number of asyncio workers; counts answers by version, and failures."""

    def __init__(self, url: str, host: str, workers: int = 16) -> None:
        self._url = url
        self._host = host
        self._workers = workers
        self.seen: dict[str, int] = {}
        self.failures: list[str] = []
        self.total = 0

    async def __aenter__(self) -> Load:
        self._going = True
        limits = httpx.Limits(max_connections=self._workers, max_keepalive_connections=self._workers)
        self._client = httpx.AsyncClient(trust_env=False, timeout=20, limits=limits)
        self._tasks = [asyncio.create_task(self._work()) for _ in range(self._workers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    async def _work(self) -> None:
        body = b'{"inputs": []}'
        while self._going:
            self.total += 1
            try:
                response = await self._client.post(self._url, content=body, headers={"host": self._host})
            except httpx.TransportError as error:
                self.failures.append(repr(error))
                continue
            if response.status_code != 200:
                self.failures.append(f"{response.status_code} {response.text[:100]}")
                continue
            version = response.json()["model_version"]
            self.seen[version] = self.seen.get(version, 0) + 1
