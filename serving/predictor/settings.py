"""Settings of the predictor: from the command line, with defaults from the environment."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from serving.predictor.errors import StartError

_MEBIBYTE = 1024 * 1024

LoggerMode = Literal["all", "request", "response"]
LoggerScope = Literal["all", "direct"]


@dataclass(frozen=True)
class Settings:
    """How one predictor process runs. Each field is also a flag; those marked have an environment variable.

    Attributes:
        model_name: The name in the URLs and in gRPC requests (TENURE_MODEL_NAME).
        model_dir: Folder of the bundle (TENURE_MODEL_DIR).
        digest: SHA-256 of the bundle's manifest, if it must be exactly that one (TENURE_BUNDLE_DIGEST).
        http_port: Port of REST (TENURE_HTTP_PORT).
        grpc_port: Port of gRPC (TENURE_GRPC_PORT).
        http_host: Address that REST listens on (TENURE_HTTP_HOST). All of them by default, as a pod needs.
        grpc_host: Address that gRPC listens on (TENURE_GRPC_HOST); by default the same as `http_host`.
        max_rows: Most rows in one request (TENURE_MAX_ROWS).
        max_body_bytes: Longest request body or gRPC message, in bytes (TENURE_MAX_BODY_BYTES).
        max_concurrent: Most requests that are answered at a time (TENURE_MAX_CONCURRENT); more are refused
            at once, with 503 and Retry-After, or RESOURCE_EXHAUSTED.
        max_header_bytes: Longest request line and headers, in bytes (TENURE_MAX_HEADER_BYTES).
        header_seconds: How long a client may take for them (TENURE_HEADER_SECONDS).
        body_seconds: How long it may take for a body, or to take its answer (TENURE_BODY_SECONDS).
        keep_alive_seconds: How long a connection may be idle (TENURE_KEEP_ALIVE_SECONDS). Longer than a
            proxy's idle timeout, the proxy never meets a closed connection.
        workers: How many processes answer on the same ports (TENURE_WORKERS). Each loads the model.
        threads: ONNX Runtime's threads for one request (TENURE_THREADS).
        reasons: How many reasons a row gets when they are asked for (TENURE_REASONS).
        grace_seconds: How long requests in flight, and then events that wait, may take after SIGTERM
            (TENURE_GRACE_SECONDS).
        logger_url: Sink of the events that tell of each inference (TENURE_LOGGER_URL); none by default. On a
            cluster KServe's agent sends those that it passes on. `{version}` in it stands for the bundle's.
        logger_mode: Which events: all, request or response (TENURE_LOGGER_MODE).
        logger_scope: Of which requests: all, or direct: not those that an agent on this machine passes on,
            for it logs them (TENURE_LOGGER_SCOPE).
        logger_token: Bearer token that the sink asks for (TENURE_LOGGER_TOKEN; no flag: those can be read).
        logger_queue: Most inferences that may wait for the sink (TENURE_LOGGER_QUEUE); more are dropped.
        logger_queue_bytes: Most bytes of theirs (TENURE_LOGGER_QUEUE_BYTES).
        namespace: Namespace of the InferenceService, for the events (TENURE_NAMESPACE).
    """

    model_name: str = "model"
    model_dir: Path = Path("/mnt/models")
    digest: str | None = None
    http_port: int = 8080
    grpc_port: int = 8081
    http_host: str = "0.0.0.0"  # noqa: S104 - a pod must; the laptop sets TENURE_HTTP_HOST
    grpc_host: str = "0.0.0.0"  # noqa: S104
    max_rows: int = 10_000
    max_body_bytes: int = 16 * _MEBIBYTE
    max_concurrent: int = 256
    max_header_bytes: int = 32 * 1024
    header_seconds: int = 10
    body_seconds: int = 30
    keep_alive_seconds: int = 75
    workers: int = 1
    threads: int = 1
    reasons: int = 5
    grace_seconds: int = 30
    logger_url: str | None = None
    logger_mode: LoggerMode = "all"
    logger_scope: LoggerScope = "all"
    logger_token: str | None = field(default=None, repr=False)
    logger_queue: int = 20_000
    logger_queue_bytes: int = 64 * _MEBIBYTE
    namespace: str = "default"


_TEXTS = {
    "model_name": "MODEL_NAME",
    "http_host": "HTTP_HOST",
    "grpc_host": "GRPC_HOST",
    "logger_url": "LOGGER_URL",
    "logger_mode": "LOGGER_MODE",
    "logger_scope": "LOGGER_SCOPE",
    "namespace": "NAMESPACE",
}
_NUMBERS = {  # field: (variable, least, most)
    "http_port": ("HTTP_PORT", 1, 65_535),
    "grpc_port": ("GRPC_PORT", 1, 65_535),
    "max_rows": ("MAX_ROWS", 1, 10_000_000),
    "max_body_bytes": ("MAX_BODY_BYTES", 1024, 1024 * _MEBIBYTE),
    "max_concurrent": ("MAX_CONCURRENT", 1, 1_000_000),
    "max_header_bytes": ("MAX_HEADER_BYTES", 1024, 16 * _MEBIBYTE),
    "header_seconds": ("HEADER_SECONDS", 1, 3600),
    "body_seconds": ("BODY_SECONDS", 1, 3600),
    "keep_alive_seconds": ("KEEP_ALIVE_SECONDS", 1, 86_400),
    "workers": ("WORKERS", 1, 256),
    "threads": ("THREADS", 1, 256),
    "reasons": ("REASONS", 1, 1000),
    "grace_seconds": ("GRACE_SECONDS", 0, 3600),
    "logger_queue": ("LOGGER_QUEUE", 1, 10_000_000),
    "logger_queue_bytes": ("LOGGER_QUEUE_BYTES", 1024, 16 * 1024 * _MEBIBYTE),
}
VARIABLES = frozenset(
    {
        *_TEXTS.values(),
        *(variable for variable, _, _ in _NUMBERS.values()),
        "BUNDLE_DIGEST",
        "LOGGER_TOKEN",
        "MODEL_DIR",
    }
)
"""The environment variables, without their prefix `TENURE_`."""


def parse_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read the flags; what they leave out comes from the environment, then from the defaults.

    Raises:
        StartError: A value is not one that the setting allows.
        SystemExit: A flag is unknown (argparse has said so), or help was asked for.
    """
    parser = argparse.ArgumentParser(
        prog="python -m serving.predictor",
        description="Serve one churn model over the V2 (REST and gRPC) and V1 inference protocols.",
        allow_abbrev=False,
    )
    parser.add_argument("--model_dir", help="folder of the bundle (TENURE_MODEL_DIR)")
    parser.add_argument("--digest", help="SHA-256 that the bundle must have (TENURE_BUNDLE_DIGEST)")
    for name, variable in _TEXTS.items():
        parser.add_argument(f"--{name}", help=f"(TENURE_{variable})")
    for name, (variable, least, most) in _NUMBERS.items():
        parser.add_argument(f"--{name}", help=f"{least} to {most} (TENURE_{variable})")
    given = vars(parser.parse_args(arguments))

    def find(name: str, variable: str) -> str | None:
        """Return what was given, or None; an empty text counts as not given."""
        return given[name] or environment.get(f"TENURE_{variable}") or None

    values: dict[str, object] = {"digest": find("digest", "BUNDLE_DIGEST")}
    values["logger_token"] = environment.get("TENURE_LOGGER_TOKEN") or None
    folder = find("model_dir", "MODEL_DIR")
    if folder is not None:
        values["model_dir"] = Path(folder)
    for name, variable in _TEXTS.items():
        text = find(name, variable)
        if text is not None:
            values[name] = text
    for name, choices in (("logger_mode", LoggerMode), ("logger_scope", LoggerScope)):
        chosen, allowed = values.get(name, "all"), get_args(choices)
        if chosen not in allowed:
            variable = f"TENURE_{_TEXTS[name]}"
            raise StartError(f"--{name} ({variable}) is {chosen!r}, expected {' or '.join(allowed)}")
    values.setdefault("grpc_host", values.get("http_host", Settings.grpc_host))
    for name, (variable, least, most) in _NUMBERS.items():
        text = find(name, variable)
        if text is not None:
            values[name] = _parse_number(text, f"--{name} (TENURE_{variable})", least, most)
    return Settings(**values)  # type: ignore[arg-type]


def _parse_number(text: str, name: str, least: int, most: int) -> int:
    """Return the whole number that `text` says, if it lies between `least` and `most`."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise StartError(f"{name} is {text!r}, expected a whole number from {least} to {most}")
    return number
