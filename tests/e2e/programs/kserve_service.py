"""What a person does with the KServe SDK: make a service, wait for it, put a canary in front, take it away.

Arguments: name, storage address of the stable bundle, of the canary's. Writes what it saw as JSON.
"""

from __future__ import annotations

import json
import sys

from kserve import (
    KServeClient,
    V1beta1InferenceService,
    V1beta1InferenceServiceSpec,
    V1beta1ModelFormat,
    V1beta1ModelSpec,
    V1beta1PredictorSpec,
)
from kserve.models import V1beta1CanarySpec
from kubernetes.client import V1ObjectMeta


def make_model(uri: str, name: str | None = None) -> V1beta1ModelSpec:
    return V1beta1ModelSpec(
        model_format=V1beta1ModelFormat(name="tenure"), storage_uri=uri, protocol_version="v2", name=name
    )


def main() -> None:
    name, stable, canary = sys.argv[1:]
    client = KServeClient()
    service = V1beta1InferenceService(
        api_version="serving.kserve.io/v1beta1",
        kind="InferenceService",
        metadata=V1ObjectMeta(
            name=name,
            namespace="default",
            labels={"tenure.dev/project": name},
            annotations={"serving.kserve.io/deploymentMode": "Standard"},
        ),
        spec=V1beta1InferenceServiceSpec(
            predictor=V1beta1PredictorSpec(min_replicas=1, model=make_model(stable))
        ),
    )
    client.create(service)
    client.wait_isvc_ready(name, namespace="default", timeout_seconds=90, polling_interval=1)
    first = client.get(name, namespace="default")
    entry = V1beta1PredictorSpec(name="green", min_replicas=1, model=make_model(canary, "kserve-container"))
    service.spec.canary = [V1beta1CanarySpec(predictor=entry, traffic_percent=40)]
    patched = client.patch(name, service, namespace="default")
    client.delete(name, namespace="default")
    seen = {
        "ready": {one["type"]: one["status"] for one in first["status"]["conditions"]},
        "url": first["status"]["url"],
        "percent": patched["spec"]["canary"][0]["trafficPercent"],
    }
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
