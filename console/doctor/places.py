"""Where programs are installed when nobody says otherwise."""

from __future__ import annotations

RUNS = "kubeflow"
KSERVE = "kserve"
GATEWAY = "envoy-gateway-system"
CERTIFICATES = "cert-manager"
SYSTEM = "kube-system"
