"""What a client may take of the gateway, so that one of them cannot keep the others out.

Those of a cluster are in manifests/components/envoy-gateway/policies.yaml;
docs/decisions/gateway.md compares them.
"""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]

CONNECTIONS = 4096
"""Clients' connections at a time. One more is closed at once; by default all are taken."""

UNDER_WAY = CONNECTIONS
"""Requests and retries at a time to one Service.

As many as clients who send one request a connection can have: only gRPC clients, with many on each, can meet
a 503 of the gateway, which would be charged to a canary that was not even asked. By default only 1,024
requests may be under way and three retries, but when a process dies all that it held are asked again.
"""

REQUEST_SECONDS = 30
"""From the last byte of a request to the end of its answer, all tries together."""

BODY_BYTES = 16 * 1024 * 1024
"""What is kept of a request for a second try: the longest body that a model server reads.

Longer ones pass, and the model server refuses them. By default whatever is longer than 1 MiB is lost with the
process that held it.
"""

_RECEIVED_SECONDS = 30
_HEADERS_SECONDS = 10
_STREAM_IDLE_SECONDS = 60
_IDLE_SECONDS = 300
_HEADERS_KIBIBYTES = 16
_STREAMS = 100
_STREAM_WINDOW = 1024 * 1024
_CONNECTION_WINDOW = 4 * 1024 * 1024
_HEAP = 512 * 1024 * 1024
_TYPE = "type.googleapis.com/"


def limit_connection() -> Document:
    """Return what the connection manager allows on each connection."""
    return {
        # Headers that never end, a body that never ends, a client that takes no answer. By default the first
        # two may last as long as they like, and a stream may stand still for five minutes.
        "request_headers_timeout": f"{_HEADERS_SECONDS}s",
        "request_timeout": f"{_RECEIVED_SECONDS}s",
        "stream_idle_timeout": f"{_STREAM_IDLE_SECONDS}s",
        # Between requests; by default an hour.
        "common_http_protocol_options": {"idle_timeout": f"{_IDLE_SECONDS}s"},
        # 431 above it. A request has a dozen short ones; the default is 60 KiB, for anybody to fill.
        "max_request_headers_kb": _HEADERS_KIBIBYTES,
        "http2_protocol_options": {
            "max_concurrent_streams": _STREAMS,
            # What a client may send before anybody has read it: by default 16 MiB a stream.
            "initial_stream_window_size": _STREAM_WINDOW,
            "initial_connection_window_size": _CONNECTION_WINDOW,
        },
    }


def limit_process() -> Document:
    """Return the parts of the bootstrap that bound the whole process: connections and memory."""
    return {
        "overload_manager": {
            "refresh_interval": "0.05s",
            "resource_monitors": [
                _make_monitor(
                    "global_downstream_max_connections",
                    "downstream_connections.v3.DownstreamConnectionsConfig",
                    {"max_active_downstream_connections": CONNECTIONS},
                ),
                # Normally it is 30 MiB. Bodies are kept until they are answered, to be asked again elsewhere.
                _make_monitor("fixed_heap", "fixed_heap.v3.FixedHeapConfig", {"max_heap_size_bytes": _HEAP}),
            ],
            "actions": [
                _make_action("shrink_heap", {"threshold": {"value": 0.85}}),
                # Whoever keeps memory and stands still goes first; only then requests are refused, and in
                # the end connections, since also what is refused has been read.
                _make_action(
                    "reduce_timeouts",
                    {"scaled": {"scaling_threshold": 0.7, "saturation_threshold": 0.9}},
                    {
                        "@type": _TYPE + "envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
                        "timer_scale_factors": [
                            {"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "1s"},
                            {"timer": "HTTP_DOWNSTREAM_STREAM_IDLE", "min_timeout": "1s"},
                        ],
                    },
                ),
                _make_action("stop_accepting_requests", {"threshold": {"value": 0.95}}),
                _make_action("reject_incoming_connections", {"threshold": {"value": 1.0}}),
            ],
        }
    }


def limit_upstream() -> Document:
    """Return the circuit breakers of a cluster."""
    return {
        "thresholds": [
            {
                "max_connections": UNDER_WAY,
                "max_pending_requests": UNDER_WAY,
                "max_requests": UNDER_WAY,
                "max_retries": UNDER_WAY,
            }
        ]
    }


def _make_monitor(name: str, kind: str, settings: Document) -> Document:
    return {
        "name": f"envoy.resource_monitors.{name}",
        "typed_config": {"@type": f"{_TYPE}envoy.extensions.resource_monitors.{kind}", **settings},
    }


def _make_action(name: str, trigger: Document, settings: Document | None = None) -> Document:
    action = {
        "name": f"envoy.overload_actions.{name}",
        "triggers": [{"name": "envoy.resource_monitors.fixed_heap", **trigger}],
    }
    return {**action, "typed_config": settings} if settings else action
