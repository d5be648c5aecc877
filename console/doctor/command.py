"""`tenure doctor`."""

from __future__ import annotations

# What looks and checks is imported when it is needed: every other command comes past this module.
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clients.errors import ClientError
from clients.names import PROJECT_LABEL
from clients.services import Services
from clients.settings import Settings, load_settings
from console.context import NAMESPACE, Remote, enter, get_remote
from console.doctor import places
from console.doctor.finding import Mark, Section, examine
from console.doctor.report import count, print_document, print_report
from console.errors import FAILED
from console.options import Json
from console.training import PIPELINE

if TYPE_CHECKING:
    from console.doctor.observation import Cluster, Layout


def doctor(
    pre: Annotated[
        bool, typer.Option("--pre", help="Look at what an install needs, before it: a cluster, or kind here.")
    ] = False,
    as_json: Json = False,
    context: Annotated[
        str, typer.Option("--context", help="The cluster to look at, as `tenure --context NAME doctor`.")
    ] = "",
    runs_namespace: Annotated[
        str, typer.Option(help="On a cluster: where Kubeflow Pipelines is.")
    ] = places.RUNS,
    kserve_namespace: Annotated[
        str, typer.Option(help="On a cluster: where KServe's controller is.")
    ] = places.KSERVE,
    gateway_namespace: Annotated[
        str, typer.Option(help="On a cluster: where the gateway's controller and proxies are.")
    ] = places.GATEWAY,
    cert_manager_namespace: Annotated[
        str, typer.Option(help="On a cluster: where cert-manager is.")
    ] = places.CERTIFICATES,
) -> None:
    """Say what is wrong with the platform here, or with a cluster, and what to do about it.

    Looks, and changes nothing: creates are asked for as dry runs. The exit code is 1 when something is wrong.
    """
    with ExitStack() as stack:
        remote = get_remote()
        if context:
            remote = stack.enter_context(enter(context, remote.namespace if remote else NAMESPACE))
        if remote is None:
            target, sections = "this machine", _examine_machine(pre)
        else:
            where = {
                "tenure": remote.namespace,
                "runs": runs_namespace,
                "kserve": kserve_namespace,
                "gateway": gateway_namespace,
                "certificates": cert_manager_namespace,
            }
            target, sections = remote.context, _examine_cluster(remote, where, pre)
    if as_json:
        print_document(target, sections)
    else:
        print_report(sections)
    if count(sections, Mark.BAD):
        raise typer.Exit(FAILED)


def look(remote: Remote, layout: Layout, pre: bool) -> Cluster:
    """Look at a cluster and, when Tenure is there, ask its addresses."""
    from console.doctor import gathering
    from console.doctor.addresses import ask_addresses
    from console.doctor.api import Api
    from console.doctor.installation import is_installed

    api = Api.connect(remote.kubeconfig, remote.context)
    cluster = gathering.observe(api, remote.context, layout, pre=pre)
    if pre or not is_installed(cluster):
        return cluster
    cluster.answers = gathering.ask_health(api, cluster)
    services = _pick_ready(list(cluster.every("inferenceservices", layout.tenure)))
    cluster.answers |= dict(ask_addresses(lambda need: remote.open((need,)), Path(PIPELINE), services))
    return cluster


def _examine_cluster(remote: Remote, where: dict[str, str], pre: bool) -> list[Section]:
    from console.doctor.observation import Layout
    from console.doctor.suite import BEFORE, CLUSTER

    return examine(BEFORE if pre else CLUSTER, look(remote, Layout(**where), pre))


def _examine_machine(pre: bool) -> list[Section]:
    from console.doctor import machine
    from console.doctor.addresses import ask_addresses
    from console.doctor.laptop import BEFORE_KIND, LAPTOP

    seen = machine.observe(tools=pre)
    if pre:
        return examine(BEFORE_KIND, seen)
    if any(one.ready for one in seen.processes or ()):
        settings = load_settings()
        seen.answers = dict(ask_addresses(lambda _: settings, Path(PIPELINE), _list_services(settings)))
    return examine(LAPTOP, seen)


def _list_services(settings: Settings) -> list[dict[str, Any]]:
    """Return the services whose models should answer; an API that is down is told of elsewhere."""
    try:
        return _pick_ready(Services.connect(settings).inference.list())
    except ClientError:
        return []


def _pick_ready(services: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return our services that say they are ready; why the others do not answer is known already."""
    return [
        service
        for service in services
        if PROJECT_LABEL in (service["metadata"].get("labels") or {})
        and any(
            condition.get("type") == "Ready" and condition.get("status") == "True"
            for condition in (service.get("status") or {}).get("conditions") or ()
        )
    ]
