"""Record a healthy cluster for the tests: `record.py KUBECONFIG CONTEXT > recorded/cluster.json`.

What no check reads is left out, so that the recording can be read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from console.doctor.api import Api
from console.doctor.gathering import observe
from console.doctor.observation import Layout

_KEPT_ANNOTATIONS = (
    "gateway.networking.k8s.io/bundle-version",
    "storageclass.kubernetes.io/is-default-class",
)


def prune(document: dict[str, Any]) -> dict[str, Any]:
    """Return the recording without what only makes it long."""
    documents = document["documents"]
    for kind, items in documents.items():
        for item in items:
            metadata = item["metadata"]
            for key in ("uid", "resourceVersion", "generation", "generateName"):
                metadata.pop(key, None)
            kept = metadata.pop("annotations", None) or {}
            kept = {key: value for key, value in kept.items() if key in _KEPT_ANNOTATIONS}
            if kept:
                metadata["annotations"] = kept
            spec = item.get("spec") or {}
            if kind == "pods":
                item["spec"] = prune_pod(spec)
            elif "template" in spec:
                spec["template"] = {"spec": prune_pod(spec["template"].get("spec") or {})}
    documents["events"] = []
    for node in documents["nodes"]:
        node["status"].pop("images", None)
    return document


def prune_pod(spec: dict[str, Any]) -> dict[str, Any]:
    """Return of a pod's specification what checks read."""
    containers = [{"name": one["name"], "image": one["image"]} for one in spec.get("containers") or ()]
    return {"containers": containers, "restartPolicy": spec.get("restartPolicy", "Always")}


def main() -> None:
    """Record."""
    kubeconfig, context = sys.argv[1:]
    seen = observe(Api.connect(Path(kubeconfig), context), context, Layout(), pre=True)
    json.dump(prune(seen.model_dump(mode="json")), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
