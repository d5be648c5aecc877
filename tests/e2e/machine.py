"""Platforms and model servers of this machine, asked from outside."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[2]


def make_environment(home: Path) -> dict[str, str]:
    """Return the environment in which commands mean the platform at `home`, and no other."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TENURE_")}
    return {**kept, "TENURE_HOME": str(home), "TENURE_ENV_FILE": str(home / "env")}


def call(environment: dict[str, str], *arguments: str) -> None:
    """Run the platform's own command; fails with what it says."""
    answer = subprocess.run(
        [sys.executable, "-m", "embedded", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert answer.returncode == 0, f"{arguments}: {answer.stderr}"


def is_loopback(host: str) -> bool:
    """gRPC says ::ffff:127.0.0.1, which takes IPv4 connections to 127.0.0.1 and no others."""
    address = ipaddress.ip_address(host.strip("[]"))
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def read_events(pid: int) -> tuple[str, Counter[str]] | None:
    """Ask a model server for its version and what became of its events; None when it does not answer.

    The counts are of events (request and response are two) by outcome, and of the inferences "waiting".
    """
    for connection in psutil.Process(pid).connections("tcp"):
        if connection.status != psutil.CONN_LISTEN:
            continue
        with contextlib.suppress(httpx.TransportError):
            url = f"http://127.0.0.1:{connection.laddr.port}/metrics"
            text = httpx.get(url, trust_env=False, timeout=5).text
            if "predictor_events_total" in text:
                (version,) = set(re.findall(r'version="(\w{12})"', text))
                found = re.findall(r'^predictor_events_total\{outcome="(\w+)"\} (\S+)', text, re.MULTILINE)
                found += re.findall(r"^predictor_events_(waiting) (\S+)", text, re.MULTILINE)
                return version, Counter({outcome: int(float(count)) for outcome, count in found})
    return None
