"""What is printed at the end: where everything is, and how to log in."""

from __future__ import annotations

from console.doctor.need import GATEWAY_PORT
from installer.credentials import TRACKING
from installer.options import NAMESPACE, PIPELINES_NAMESPACE
from installer.site import Site


def describe(site: Site) -> list[str]:
    """Return the lines: addresses, logins, next steps, notes."""
    options = site.options
    context = options.kubectl_context
    kubectl = f"kubectl --context {context}" if context else "kubectl"
    tenure = f".venv/bin/tenure --context {context or site.kubectl.need('config', 'current-context').strip()}"
    gateway = (
        f"http://127.0.0.1:{GATEWAY_PORT}" if options.cluster == "kind" else f"the Gateway {options.gateway}"
    )
    forward = f"{kubectl} -n {NAMESPACE} port-forward svc"
    secret = f"{kubectl} -n {NAMESPACE} get secret {TRACKING} -o jsonpath='{{.data.password}}' | base64 -d"
    lines = [
        "",
        f"Tenure runs in namespace {NAMESPACE}.",
        f"  requests      {gateway}, Host: SERVICE-{NAMESPACE}.{options.ingress_domain}",
        f"  web page      {forward}/tenure-console 8080:8080, then http://127.0.0.1:8080",
        f"  MLflow        {forward}/tenure-mlflow 5000:5000, then http://127.0.0.1:5000",
        f"                user tenure, password: {secret}",
    ]
    if site.kubectl.get("service", "ml-pipeline-ui", PIPELINES_NAMESPACE):
        lines.append(
            f"  Kubeflow      {kubectl} -n {PIPELINES_NAMESPACE} port-forward svc/ml-pipeline-ui 8888:80, "
            "then http://127.0.0.1:8888"
        )
    lines += [
        f"  look at it    {tenure} status",
        f"  examine it    {tenure} doctor",
        f"  a model       {tenure} run --project projects/telco.yaml --source s3://{options.s3_bucket}/data/telco.csv",
    ]
    return [*lines, *(f"  note          {note}" for note in site.notes)]
