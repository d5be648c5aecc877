"""A platform of the benchmarks' own: started in a temporary folder, stopped at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clients.settings import Settings

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def start_platform() -> Iterator[Settings]:
    """Start a platform and yield its settings; the environment points at it meanwhile."""
    with tempfile.TemporaryDirectory(prefix="tenure-bench-") as folder:
        home = Path(folder) / "home"
        os.environ |= {"TENURE_HOME": str(home), "TENURE_ENV_FILE": str(home / "env")}
        command = [sys.executable, "-m", "embedded"]
        try:
            subprocess.run([*command, "up"], cwd=ROOT, check=True)
            yield Settings(_env_file=home / "env")
        finally:
            subprocess.run([*command, "down"], cwd=ROOT, check=True)
