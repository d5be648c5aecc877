"""What is to be checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be checked.

    Attributes:
        url: Address of REST, without the protocol's paths.
        grpc: `HOST:PORT`; without it nothing is checked over gRPC.
        model: Its name; without it the server must list one alone.
        example: A file with a good V2 request.
        seconds: Most time for one request.
        oversize: Bytes of the body that is too large for most.
    """

    url: str
    grpc: str = ""
    model: str = ""
    example: Path | None = None
    seconds: float = SECONDS
    oversize: int = 32 * 1024 * 1024
