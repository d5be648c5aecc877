"""What Envoy is started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from embedded.gateway.hosts import ROUTE_CONFIG
from embedded.gateway.limits import BODY_BYTES, limit_connection, limit_process
from embedded.ports import LOOPBACK

Document = dict[str, Any]

CLUSTERS_FILE = "cds.yaml"
ROUTES_FILE = "rds.yaml"
STAT_PREFIX = "gateway"
# By default everything from 1 to 5 ms is one bucket: there nearly all answers of a predictor lie.
_MILLISECONDS = [
    *(1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750),
    *(1000, 1500, 2000, 3000, 5000, 7500, 10_000, 15_000, 30_000, 60_000),
]
_TYPE = "type.googleapis.com/"


def build_bootstrap(directory: Path, port: int, admin_port: int) -> Document:
    """Return the bootstrap: one listener, one admin port, clusters and routes from files in `directory`."""
    connections = {
        "@type": _TYPE + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": STAT_PREFIX,
        "codec_type": "AUTO",
        "generate_request_id": False,
        **limit_connection(),
        "rds": {"route_config_name": ROUTE_CONFIG, "config_source": _watch_file(directory / ROUTES_FILE)},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": _TYPE + "envoy.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": True,
                },
            }
        ],
    }
    return {
        "node": {"id": "gateway", "cluster": "tenure"},
        "admin": {
            "address": _bind(admin_port),
            # It has no login. With the rest of it anybody on this machine, or a page in a browser here,
            # could stop Envoy, or set the counters to zero by which canaries are judged.
            "allow_paths": [{"exact": "/ready"}, {"prefix": "/stats"}],
            # Who watches must be answered also while clients hold all connections.
            "ignore_global_conn_limit": True,
        },
        **limit_process(),
        # Durations are merged as often; by default the page tells those of 5 s ago.
        "stats_flush_interval": "1s",
        "stats_config": {
            "histogram_bucket_settings": [{"match": {"suffix": "upstream_rq_time"}, "buckets": _MILLISECONDS}]
        },
        "dynamic_resources": {"cds_config": _watch_file(directory / CLUSTERS_FILE)},
        "static_resources": {
            "listeners": [
                {
                    "name": "http",
                    "address": _bind(port),
                    "per_connection_buffer_limit_bytes": BODY_BYTES,
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "name": "envoy.filters.network.http_connection_manager",
                                    "typed_config": connections,
                                }
                            ]
                        }
                    ],
                }
            ]
        },
    }


def _bind(port: int) -> Document:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


def _watch_file(path: Path) -> Document:
    """Return a source that is read again whenever something is renamed into its folder."""
    return {
        "resource_api_version": "V3",
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
    }
