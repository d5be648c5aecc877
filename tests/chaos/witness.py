"""Writers that note what each address has acknowledged, while whoever answers there is being killed."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

from clients.errors import ClientError, NotFoundError
from clients.services import Services
from clients.settings import Settings
from clients.store import Store

_INTERVAL = 0.25
_TIMEOUT = 5.0
_MARK = "chaos.tenure.dev/number"
_ROUTE = "chaos-witness"


class Witness(threading.Thread):
    """Writes one number after the other; `acknowledged` holds those that it was told are kept."""

    def __init__(self, name: str) -> None:
        super().__init__(name=f"witness-{name}", daemon=True)
        self.address = name
        self.acknowledged: list[int] = []
        self.refused = 0
        self._ended = threading.Event()

    def run(self) -> None:
        """Write until `end`."""
        number = 0
        while not self._ended.wait(_INTERVAL):
            number += 1
            try:
                self.write(number)
            except (ClientError, httpx.HTTPError, OSError):
                self.refused += 1
            else:
                self.acknowledged.append(number)

    def end(self) -> None:
        """Write no more."""
        self._ended.set()
        self.join(60)
        assert not self.is_alive(), f"{self.name} hangs"

    def write(self, number: int) -> None:
        """Write a number; raises unless it is kept."""
        raise NotImplementedError

    def find_lost(self) -> list[int]:
        """Return the numbers that were acknowledged and are not there any more."""
        raise NotImplementedError


class StoreWitness(Witness):
    """Objects, each with content of its own."""

    def __init__(self, settings: Settings, mark: str) -> None:
        super().__init__("store")
        self._store = Store.connect(settings)
        self._folder = f"s3://{settings.s3_bucket}/chaos/{mark}"

    def _content(self, number: int) -> bytes:
        return hashlib.sha256(f"{self._folder}/{number}".encode()).digest() * 500

    def write(self, number: int) -> None:
        """Put an object of 16 kB."""
        self._store.put_bytes(self._content(number), f"{self._folder}/{number}")

    def find_lost(self) -> list[int]:
        """Read every object back."""
        return [number for number in self.acknowledged if not self._is_whole(number)]

    def _is_whole(self, number: int) -> bool:
        try:
            return self._store.get_bytes(f"{self._folder}/{number}") == self._content(number)
        except NotFoundError:
            return False


class TrackingWitness(Witness):
    """A metric of one MLflow run; straight over HTTP, for its client asks again by itself."""

    def __init__(self, settings: Settings, run_id: str) -> None:
        super().__init__("tracking")
        self._run_id = run_id
        assert settings.tracking_username is not None
        assert settings.tracking_password is not None
        login = (settings.tracking_username, settings.tracking_password.get_secret_value())
        self._http = httpx.Client(
            base_url=settings.tracking_url, auth=login, trust_env=False, timeout=_TIMEOUT
        )

    def write(self, number: int) -> None:
        """Log the number as a step of the metric."""
        body = {"run_id": self._run_id, "key": "number", "value": number, "timestamp": number, "step": number}
        self._http.post("/api/2.0/mlflow/runs/log-metric", json=body).raise_for_status()

    def find_lost(self) -> list[int]:
        """Read the metric's history."""
        answer = self._http.get(
            "/api/2.0/mlflow/metrics/get-history",
            params={"run_id": self._run_id, "metric_key": "number", "max_results": 20_000},
        )
        steps = {int(metric["step"]) for metric in answer.raise_for_status().json().get("metrics", ())}
        self._http.close()
        return [number for number in self.acknowledged if number not in steps]


class ObjectWitness(Witness):
    """An annotation of an HTTPRoute that is attached to no gateway."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("kubernetes")
        self._routes = Services.connect(settings).routes
        if self._routes.find(_ROUTE) is None:
            backend = {"name": "nobody", "port": 80}
            self._routes.create(
                {
                    "metadata": {"name": _ROUTE},
                    "spec": {"parentRefs": [{"name": "no-gateway"}], "rules": [{"backendRefs": [backend]}]},
                }
            )

    def write(self, number: int) -> None:
        """Set the annotation."""
        self._routes.patch(_ROUTE, {"metadata": {"annotations": {_MARK: str(number)}}})

    def find_lost(self) -> list[int]:
        """Look at the annotation: each write replaces the one before."""
        last = int(self._routes.get(_ROUTE)["metadata"]["annotations"][_MARK])
        self._routes.delete(_ROUTE)
        return [number for number in self.acknowledged if number > last]


@dataclass
class Witnesses:
    """All of them at work."""

    members: list[Witness] = field(default_factory=list)

    @classmethod
    def connect(cls, settings: Settings, tracking: Any, mark: str) -> Self:
        """Make one for each address."""
        run_id = tracking.client.create_run(tracking.find_experiment("chaos")).info.run_id
        return cls([StoreWitness(settings, mark), TrackingWitness(settings, run_id), ObjectWitness(settings)])

    def __enter__(self) -> Self:
        for member in self.members:
            member.start()
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.end()

    def check(self) -> list[str]:
        """Return what was lost, in words."""
        lost = {member.address: member.find_lost() for member in self.members}
        return [
            f"{name} lost {numbers}, which it had acknowledged" for name, numbers in lost.items() if numbers
        ]
