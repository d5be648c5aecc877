"""A conformance kit for the Open Inference Protocol (V2). It knows no server and imports none."""

__version__ = "0.1.0"
