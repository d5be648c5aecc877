"""Failures of webhooks, their certificates and cert-manager, as people told them."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from doctor_failure import failure

HOOK = "inferenceservice.kserve-webhook-server.defaulter"
POST = (
    f'Internal error occurred: failed calling webhook "{HOOK}": failed to call webhook: Post '
    '"https://kserve-webhook-server-service.kserve.svc:443/mutate-serving-kserve-io-v1beta1-inferenceservice'
    '?timeout=10s": '
)


@failure(
    "kserve/kserve#3102", "webhook-endpoints", "no endpoints.*kserve-webhook-server-service", "kserve",
    "kserve", "webhook-answers",
)  # fmt: skip
def webhook_without_endpoints(stage: Any) -> None:
    manager = stage.find("deployments", "kserve-controller-manager")
    manager["spec"]["replicas"] = 0
    manager["status"] = {}
    stage.remove("pods", stage.find_pod("kserve-controller-manager")["metadata"]["name"])
    for piece in stage.cluster.every("endpointslices", "kserve"):
        piece["endpoints"] = None
    text = 'no endpoints available for service "kserve-webhook-server-service"'
    stage.answer_trial("InferenceService", 500, POST + text)


@failure("kserve/kserve#5037", "webhook-answers", "nobody takes the connection", "apply again")
def webhook_that_listens_later(stage: Any) -> None:
    stage.answer_trial(
        "InferenceService", 500, f"{POST}dial tcp 10.103.67.239:443: connect: connection refused"
    )


@failure("kserve/kserve#3770", "webhook-answers", "no answer in time", "firewall|NetworkPolicy")
def webhook_behind_a_firewall(stage: Any) -> None:
    stage.answer_trial("InferenceService", 500, f"{POST}context deadline exceeded")


@failure(
    "canonical/bundle-kubeflow#587",
    "webhook-authority",
    "caBundle.*missing",
    "cert-manager",
    "webhook-answers",
)
def authority_never_injected(stage: Any) -> None:
    for hook in list_hooks(stage):
        hook["clientConfig"].pop("caBundle")
    stage.answer_trial("InferenceService", 500, f"{POST}x509: certificate signed by unknown authority")


@failure(
    "kubeflow/community-distribution#2553", "webhook-authority", "no certificate", "authority|cert-manager",
    "webhook-answers",
)  # fmt: skip
def authority_that_is_no_certificate(stage: Any) -> None:
    for hook in list_hooks(stage):
        hook["clientConfig"]["caBundle"] = base64.b64encode(b"\n").decode()
    stage.answer_trial(
        "InferenceService",
        500,
        f'Internal error occurred: failed calling webhook "{HOOK}": could not get REST client: unable '
        "to load root certificates: unable to parse bytes as PEM block",
    )


@failure(
    "kserve/kserve#1359", "webhook-authority", "not of the authority", "restart cainjector", "webhook-answers"
)
def authority_of_the_certificate_before(stage: Any) -> None:
    other = base64.b64encode(make_authority(stage.cluster.taken + timedelta(days=90))).decode()
    for hook in list_hooks(stage):
        hook["clientConfig"]["caBundle"] = other
    stage.answer_trial(
        "InferenceService",
        500,
        f"{POST}x509: certificate signed by unknown authority (possibly because of ...)",
    )


@failure("knative/serving#6537", "webhook-authority", "has expired on", "cert-manager", "webhook-answers")
def authority_that_has_expired(stage: Any) -> None:
    old = base64.b64encode(make_authority(stage.cluster.taken - timedelta(days=1))).decode()
    for hook in list_hooks(stage):
        hook["clientConfig"]["caBundle"] = old
    stage.answer_trial("InferenceService", 500, f"{POST}x509: certificate has expired or is not yet valid")


@failure("kubeflow/community-distribution#2660", "webhook-answers", "webhook.cert-manager.io", "apply again")
def cert_manager_not_listening_yet(stage: Any) -> None:
    from console.doctor.observation import Trial

    stage.cluster.trials.append(
        Trial(
            name="a Certificate",
            status=500,
            message='Internal error occurred: failed calling webhook "webhook.cert-manager.io": failed to '
            'call webhook: Post "https://cert-manager-webhook.cert-manager.svc:443/mutate?timeout=10s": dial '
            "tcp 10.96.218.186:443: connect: connection refused",
        )
    )


def list_hooks(stage: Any) -> list[dict[str, Any]]:
    """Return all webhooks."""
    kinds = ("validatingwebhookconfigurations", "mutatingwebhookconfigurations")
    return [hook for kind in kinds for one in stage.cluster.every(kind) for hook in one["webhooks"]]


def make_authority(until: datetime) -> bytes:
    """Return a certificate authority (PEM) that is in force until then."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(until)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)
