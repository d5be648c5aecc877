"""The documents that the rules come from, each at one version, and how a check names its paragraph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Document:
    """One specification.

    Attributes:
        title: What a scorecard calls it.
        source: Repository, path and commit, or the RFC's number.
    """

    title: str
    source: str


@dataclass(frozen=True, slots=True)
class Clause:
    """A paragraph of a document, by the heading it stands under."""

    document: Document
    section: str

    def __str__(self) -> str:
        return f"{self.document.title}: {self.section}"


_PROTOCOL = "kserve/open-inference-protocol specification/protocol"

_REST = Document("OIP REST", f"{_PROTOCOL}/inference_rest.md @ 7ef512b1f171")
_GRPC = Document("OIP gRPC", f"{_PROTOCOL}/inference_grpc.md @ 7ef512b1f171")
_PROTO = Document("OIP proto", f"{_PROTOCOL}/open_inference_grpc.proto @ 29ca333e3a6f")
_BINARY = Document(
    "Binary tensors",
    "triton-inference-server/server docs/protocol/extension_binary_data.md @ 02c5c956f11c",
)
_JSON = Document("RFC 8259", "The JavaScript Object Notation Data Interchange Format")
_HTTP = Document("RFC 9110", "HTTP Semantics")
_HTTP1 = Document("RFC 9112", "HTTP/1.1")
_STATUS = Document("gRPC status", "grpc/grpc doc/statuscodes.md")
_PROTO3 = Document("proto3", "Protocol Buffers: Language Guide (proto 3)")

DOCUMENTS = (_REST, _GRPC, _PROTO, _BINARY, _JSON, _HTTP, _HTTP1, _STATUS, _PROTO3)


def rest(section: str) -> Clause:
    """A paragraph of the protocol's REST description."""
    return Clause(_REST, section)


def grpc(section: str) -> Clause:
    """A paragraph of the protocol's gRPC description."""
    return Clause(_GRPC, section)


def proto(section: str) -> Clause:
    """A comment in the protocol's proto file, by message and field."""
    return Clause(_PROTO, section)


def binary(section: str) -> Clause:
    """A paragraph of the binary tensor data extension."""
    return Clause(_BINARY, section)


def json(section: str) -> Clause:
    """A section of RFC 8259."""
    return Clause(_JSON, section)


def http(section: str) -> Clause:
    """A section of RFC 9110."""
    return Clause(_HTTP, section)


def http1(section: str) -> Clause:
    """A section of RFC 9112."""
    return Clause(_HTTP1, section)


def status(section: str) -> Clause:
    """A row of gRPC's table of status codes."""
    return Clause(_STATUS, section)


def proto3(section: str) -> Clause:
    """A section of the Protocol Buffers language guide."""
    return Clause(_PROTO3, section)
