"""The reconciler: InferenceServices become model-server processes, HTTPRoutes become Envoy's routes."""

from embedded.reconciler.loop import Reconciler

__all__ = ["Reconciler"]
