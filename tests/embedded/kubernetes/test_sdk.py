"""The KServe SDK against the API."""

from __future__ import annotations

import pytest

from .conftest import Api

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_create_get_patch_replace_delete(api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_PROXY", "*")
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

    def make(canary: bool) -> V1beta1InferenceService:
        def make_model(uri: str, name: str | None = None) -> V1beta1ModelSpec:
            return V1beta1ModelSpec(
                model_format=V1beta1ModelFormat(name="tenure"),
                storage_uri=uri,
                name=name,
                protocol_version="v2",
            )

        spec = V1beta1InferenceServiceSpec(
            predictor=V1beta1PredictorSpec(min_replicas=1, model=make_model("s3://tenure/bundles/v1"))
        )
        if canary:
            entry = V1beta1PredictorSpec(
                name="green", min_replicas=1, model=make_model("s3://tenure/bundles/v2", "kserve-container")
            )
            spec.canary = [V1beta1CanarySpec(predictor=entry, traffic_percent=20)]
        return V1beta1InferenceService(
            api_version="serving.kserve.io/v1beta1",
            kind="InferenceService",
            metadata=V1ObjectMeta(
                name="telco",
                namespace="default",
                annotations={"serving.kserve.io/deploymentMode": "Standard"},
            ),
            spec=spec,
        )

    client = KServeClient(config_file=str(api.kubeconfig))
    assert client.create(make(canary=False))["metadata"]["name"] == "telco"
    patched = client.patch("telco", make(canary=True), namespace="default")
    assert patched["spec"]["canary"][0]["trafficPercent"] == 20
    assert client.get("telco", namespace="default")["metadata"]["generation"] == 2
    replaced = client.replace("telco", make(canary=False), namespace="default")
    assert "canary" not in replaced["spec"]
    assert not client.is_isvc_ready("telco", namespace="default")
    assert client.delete("telco", namespace="default")["status"] == "Success"
    with pytest.raises(RuntimeError, match="not found"):
        client.get("telco", namespace="default")
