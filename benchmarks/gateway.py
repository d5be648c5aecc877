"""One-row V2 predictions straight at the predictor, and through Envoy, which splits and falls back.

    python benchmarks/gateway.py [--seconds 3] [--rounds 3]

Both ways are taken in turns in every round with the same clients, on keep-alive connections.
The stable model is that of projects/telco.yaml on fewer rows, with two trials (the number of trees hardly
matters here); the canary has all rows and gets 20 %. Latencies depend on the machine; trust the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from _clients import open_client
from _laptop import ROOT, start_platform
from _load import percentile

from clients import names
from clients.inference import build_request
from clients.runs import Runs
from clients.services import Services
from clients.settings import Settings
from console.simulate import read_customers
from console.training import PIPELINE
from tenure.project import Project, load_project


def write_project(folder: Path) -> Project:
    """Return the Telco project with a short search."""
    document = yaml.safe_load((ROOT / "projects" / "telco.yaml").read_text(encoding="utf-8"))
    document["source"]["uri"] = str(ROOT / "data" / "telco.csv")
    document["training"] |= {"trials": 2}
    file = folder / "telco.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return load_project(file)


def roll_out(settings: Settings, project: Project, folder: Path) -> None:
    """Train a stable model on fewer rows and a canary on all."""
    runs = Runs.connect(settings)
    lines = (ROOT / "data" / "telco.csv").read_bytes().splitlines(keepends=True)
    for count in (5000, len(lines)):
        source = folder / f"{count}.csv"
        source.write_bytes(b"".join(lines[:count]))
        arguments = {"project": project.model_dump_json(), "source": str(source)}
        run = runs.wait(runs.start(runs.upload(PIPELINE), arguments, f"{count} lines", project.name), 900)
        if not run.succeeded:
            raise SystemExit(f"the run ended {run.state}: {run.error}")


def build_http(host: str, project: Project) -> bytes:
    """Return a one-row request as the bytes of HTTP/1.1."""
    rows = read_customers(project)[:1].to_dict("records")
    body = json.dumps(build_request(rows, project.contract)).encode()
    head = (
        f"POST /v2/models/{project.rollout.service}/infer HTTP/1.1\r\nHost: {host}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def measure(port: int, request: bytes, connections: int, seconds: float) -> list[float]:
    """Return the sorted seconds of each request."""
    times: list[float] = []
    clients = [await open_client("http", port, request) for _ in range(connections)]
    await asyncio.gather(*(client.run(time.perf_counter() + 0.3, []) for client in clients))
    until = time.perf_counter() + seconds
    await asyncio.gather(*(client.run(until, times) for client in clients))
    for client in clients:
        client.close()
    return sorted(times)


def main() -> None:
    """Measure both ways at one and at eight connections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with start_platform() as settings, tempfile.TemporaryDirectory() as folder:
        project = write_project(Path(folder))
        roll_out(settings, project, Path(folder))
        rollout = project.rollout
        service = Services.connect(settings).inference.get(rollout.service)
        host = names.hostname(rollout.service, rollout.namespace, settings.ingress_domain)
        request = build_http(host, project)
        ways = {
            "predictor": urlsplit(service["status"]["components"]["predictor"]["restUrl"]).port,
            "gateway": urlsplit(settings.gateway_url).port,
        }
        for connections in (1, 8):
            found: dict[str, list[list[float]]] = {way: [] for way in ways}
            for _ in range(options.rounds):
                for way, port in ways.items():
                    assert port is not None
                    found[way].append(asyncio.run(measure(port, request, connections, options.seconds)))
            report(connections, found, options.seconds)


def report(connections: int, found: dict[str, list[list[float]]], seconds: float) -> None:
    """Print the median round of each way, and the ratio of their medians."""
    middle = {}
    for way, rounds in found.items():
        p50 = statistics.median(percentile(times, 0.5) for times in rounds)
        p99 = statistics.median(percentile(times, 0.99) for times in rounds)
        rate = statistics.median(len(times) / seconds for times in rounds)
        middle[way] = p50
        print(
            f"{connections} connections, {way:<9}  p50 {1000 * p50:6.2f} ms  p99 {1000 * p99:6.2f} ms"
            f"  {rate:7.0f} requests/s"
        )
    added = 1000 * (middle["gateway"] - middle["predictor"])
    print(f"  the gateway adds {added:.2f} ms at the median, x {middle['gateway'] / middle['predictor']:.2f}")


if __name__ == "__main__":
    main()
