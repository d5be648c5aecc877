"""Admission webhooks: what the API server cannot call, it refuses to store."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from console.doctor.document import Document, name_of, shorten
from console.doctor.finding import Finding, bad, good, unknown, warn
from console.doctor.observation import Cluster, Trial
from console.doctor.signature import recognise

_SOON = timedelta(days=7)


class _Hook(NamedTuple):
    """One service that webhooks call, with the certificate authorities that they expect there."""

    namespace: str
    service: str
    names: tuple[str, ...]
    bundles: tuple[str, ...]


def check_endpoints(cluster: Cluster) -> Iterator[Finding]:
    """Behind every webhook there is a pod that is ready."""
    for hook in _list_hooks(cluster):
        where = f"{hook.namespace}/{hook.service}"
        if cluster.has_read("services") and cluster.find("services", hook.service, hook.namespace) is None:
            yield bad(
                "webhook-endpoints",
                f"webhook {hook.names[0]} calls Service {where}, which does not exist",
                "install its program again, or delete the webhook configuration that was left behind",
            )
            continue
        if not cluster.has_read("endpointslices"):
            continue
        if not _count_endpoints(cluster, hook):
            yield bad(
                "webhook-endpoints",
                f"webhook {hook.names[0]} has no endpoints: no pod behind {where} is ready",
                f"see what is wrong with the pods in {hook.namespace}; until then such resources are refused",
            )
        else:
            yield good("webhook-endpoints", f"{where} has endpoints")


def check_bundles(cluster: Cluster) -> Iterator[Finding]:
    """Every webhook has a certificate authority that is in force, and its server a certificate of it."""
    for hook in _list_hooks(cluster):
        where = f"{hook.namespace}/{hook.service}"
        problem = next((text for bundle in hook.bundles if (text := _judge_bundle(cluster, bundle))), None)
        fix = (
            "with cert-manager: does cainjector run, and cert-manager.io/inject-ca-from name the right "
            "Certificate? Without: put the authority into the webhook configurations again"
        )
        if problem is not None:
            yield bad("webhook-authority", f"caBundle of the webhooks at {where}: {problem}", fix)
            continue
        authorities = [one for bundle in hook.bundles for one in _read_certificates(bundle)]
        yield from _check_serving(cluster, hook, authorities)


def check_trials(cluster: Cluster) -> Iterator[Finding]:
    """The API server takes a dry-run create through each webhook: readiness of a pod does not show that."""
    for trial in cluster.trials:
        yield judge_trial(trial)


def judge_trial(trial: Trial) -> Finding:
    """Return what a dry-run create shows."""
    check = "webhook-answers"
    if trial.accepted:
        return good(check, f"a dry-run create of {trial.name} passes")
    called = re.search(r"failed calling webhook \\?\"([\w.\-]+)", trial.message)
    if called or "conversion webhook" in trial.message:
        name = called[1] if called else "for conversion"
        return bad(
            check, f"webhook {name} does not answer: {_explain(trial.message)}", _advise(trial.message)
        )
    if "admission webhook" in trial.message and "denied the request" in trial.message:
        # It does answer; what it refuses is the trial's own document.
        return good(check, f"the webhooks of {trial.name} answer")
    if trial.status == 403:
        return unknown(check, f"{trial.name}: this user may not create one: {shorten(trial.message, 160)}")
    if trial.status == 404:
        return unknown(check, f"{trial.name}: the API or the namespace does not exist")
    return bad(
        check,
        f"a dry-run create of {trial.name} fails ({trial.status}): {shorten(trial.message)}",
        "correct what the message names: a roll-out would be refused likewise",
    )


def _explain(message: str) -> str:
    lowered = message.lower()
    if "no endpoints available" in lowered:
        return "no pod behind it is ready"
    if "not found" in lowered and "service" in lowered:
        return "its Service does not exist"
    if "connection refused" in lowered:
        return "nobody takes the connection: no pod behind it is ready, or its server is still starting"
    if "context deadline exceeded" in lowered or "i/o timeout" in lowered:
        return "no answer in time: something between API server and pod drops the packets"
    if "not valid for any names" in lowered or "certificate is valid for" in lowered:
        return "its certificate is for another name"
    if "unable to load root certificates" in lowered:
        return "its caBundle is no certificate"
    cause = recognise(message)
    return cause.text if cause is not None else shorten(message, 240)


def _advise(message: str) -> str:
    lowered = message.lower()
    if "deadline exceeded" in lowered or "i/o timeout" in lowered:
        return (
            "allow the API server to reach the webhook's port (NetworkPolicy, or the cloud's firewall from "
            "control plane to nodes), and look at the node's CPU"
        )
    if "x509" in lowered or "certificate" in lowered:
        return (
            "the caBundle of the webhook configuration must be the authority of the server's certificate: "
            "restart cert-manager's cainjector, or the controller after a renewal"
        )
    return "wait until its pod is ready (see its findings), then apply again what was refused"


def _list_hooks(cluster: Cluster) -> Sequence[_Hook]:
    """Return the services in our namespaces that webhooks call."""
    found: dict[tuple[str, str], tuple[list[str], list[str]]] = {}
    watched = set(cluster.layout.every()) - {cluster.layout.system}
    for kind in ("validatingwebhookconfigurations", "mutatingwebhookconfigurations"):
        for configuration in cluster.every(kind):
            for hook in configuration.get("webhooks") or ():
                client: dict[str, Any] = hook.get("clientConfig") or {}
                service = client.get("service")
                if service and service["namespace"] in watched:
                    names, bundles = found.setdefault((service["namespace"], service["name"]), ([], []))
                    names.append(hook["name"])
                    bundles.append(client.get("caBundle", ""))
    return [
        _Hook(namespace, service, tuple(names), tuple(dict.fromkeys(bundles)))
        for (namespace, service), (names, bundles) in sorted(found.items())
    ]


def _count_endpoints(cluster: Cluster, hook: _Hook) -> int:
    return sum(
        (endpoint.get("conditions") or {}).get("ready") is not False
        for piece in cluster.every("endpointslices", hook.namespace)
        if (piece["metadata"].get("labels") or {}).get("kubernetes.io/service-name") == hook.service
        for endpoint in piece.get("endpoints") or ()
    )


def _read_certificates(bundle: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(base64.b64decode(bundle))
    except ValueError:
        return []


def _judge_bundle(cluster: Cluster, bundle: str) -> str | None:
    if not bundle:
        return "it is missing, the API server trusts no certificate there"
    certificates = _read_certificates(bundle)
    if not certificates:
        return "it is no certificate"
    if all(one.not_valid_after_utc < cluster.taken for one in certificates):
        return f"it has expired on {max(one.not_valid_after_utc for one in certificates):%Y-%m-%d}"
    return None


def _check_serving(
    cluster: Cluster, hook: _Hook, authorities: Sequence[x509.Certificate]
) -> Iterator[Finding]:
    where = f"{hook.namespace}/{hook.service}"
    server = _find_serving(cluster, hook)
    ends = min((one.not_valid_after_utc for one in authorities), default=None)
    if server is not None:
        secret, certificate = server
        if certificate.not_valid_after_utc < cluster.taken:
            yield bad(
                "webhook-authority",
                f"the certificate of {where} has expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
                f"delete Secret {name_of(secret)} (cert-manager makes another), then restart the controller",
            )
            return
        if not any(_is_issuer(authority, certificate) for authority in authorities):
            yield bad(
                "webhook-authority",
                f"the certificate of {where} is not of the authority in the webhooks' caBundle",
                "it was renewed, and one side has the old one: restart cainjector, then the controller",
            )
            return
        ends = min(certificate.not_valid_after_utc, ends or certificate.not_valid_after_utc)
    if ends is not None and ends - cluster.taken < _SOON:
        yield warn(
            "webhook-authority",
            f"a certificate of the webhooks at {where} expires on {ends:%Y-%m-%d}",
            "see that cert-manager renews it (`kubectl get certificates -A`), or renew it by hand",
        )
    elif ends is not None:
        yield good("webhook-authority", f"certificates of {where} are in force until {ends:%Y-%m-%d}")


def _find_serving(cluster: Cluster, hook: _Hook) -> tuple[Document, x509.Certificate] | None:
    """Return the Secret with the server's certificate: the one that is made out to its name."""
    name = f"{hook.service}.{hook.namespace}.svc"
    for secret in cluster.every("tlssecrets", hook.namespace):
        for certificate in _read_certificates((secret.get("data") or {}).get("tls.crt", "")):
            try:
                names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            except x509.ExtensionNotFound:
                continue
            if name in names.get_values_for_type(x509.DNSName):
                return secret, certificate
    return None


def _is_issuer(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    if authority == certificate:
        return True
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
