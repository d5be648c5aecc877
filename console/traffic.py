"""Sending customers' requests through the gateway, and measuring what comes back."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from clients.inference import build_request
from clients.names import CUSTOMER_HEADER
from tenure.contract import Contract


@dataclass
class Traffic:
    """What n requests of one customer each met.

    Attributes:
        versions: Answers by the version that gave them.
        seconds: Time of each answered request.
        failures: Failed requests by reason.
        elapsed: Wall-clock seconds of the whole.
    """

    versions: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0

    @property
    def answered(self) -> int:
        """How many requests were answered."""
        return len(self.seconds)

    def find_quantile(self, share: float) -> float:
        """Return the latency, in seconds, that `share` of the answered requests kept (nearest rank)."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def send(
    gateway_url: str,
    host: str,
    service: str,
    rows: Sequence[Mapping[str, Any]],
    ids: Sequence[str],
    contract: Contract,
    connections: int = 2,
) -> Traffic:
    """Send one V2 request per customer over a few connections, each as fast as the answers come."""
    traffic = Traffic()
    queue = iter(
        [
            (build_request([row], contract, customer_ids=[identity]), identity)
            for row, identity in zip(rows, ids, strict=True)
        ]
    )

    async def work(client: httpx.AsyncClient) -> None:
        for body, identity in queue:
            started = time.perf_counter()
            try:
                answer = await client.post(
                    f"/v2/models/{service}/infer", json=body, headers={CUSTOMER_HEADER: identity}
                )
            except httpx.TransportError as error:
                traffic.failures[type(error).__name__] += 1
                continue
            if answer.status_code != httpx.codes.OK:
                traffic.failures[f"{answer.status_code}: {answer.text[:120]}"] += 1
                continue
            traffic.seconds.append(time.perf_counter() - started)
            traffic.versions[answer.json()["model_version"]] += 1

    started = time.perf_counter()
    async with httpx.AsyncClient(
        base_url=gateway_url, headers={"host": host}, timeout=10, trust_env=False
    ) as client:
        await asyncio.gather(*(work(client) for _ in range(connections)))
    traffic.elapsed = time.perf_counter() - started
    return traffic
