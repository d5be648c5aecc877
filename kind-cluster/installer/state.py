"""What was done to which cluster, so that a second run is quick. Losing it costs time, nothing else."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any


class State:
    """Fingerprints by name, for one cluster (by the UID of its kube-system). Written whole or not at all."""

    def __init__(self, path: Path, cluster: str) -> None:
        self._path = path
        self._cluster = cluster
        self._known: dict[str, str] = self._read()

    def matches(self, name: str, fingerprint: str) -> bool:
        """Say whether this very thing was done here before."""
        return self._known.get(name) == fingerprint

    def note(self, name: str, fingerprint: str) -> None:
        """Remember that it is done."""
        self._known[name] = fingerprint
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False) as file:
            json.dump({"cluster": self._cluster, "done": self._known}, file, indent=1, sort_keys=True)
        Path(file.name).replace(self._path)

    def _read(self) -> dict[str, str]:
        try:
            known = json.loads(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        if not isinstance(known, dict) or known.get("cluster") != self._cluster:
            return {}  # another cluster by the same name
        done = known.get("done", {})
        return done if isinstance(done, dict) else {}


def fingerprint(*parts: Any) -> str:
    """Return a digest of any JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
