"""`python -m installer up|down|status|check`: what `make up` and `make cluster-down` run."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

from installer import delivery, inference, pieces, platform, summary
from installer.checks import Finding, judge_cluster, judge_machine
from installer.errors import CheckError, InstallError, OptionError, WaitError
from installer.facts import find_kubectl, observe_cluster, observe_machine
from installer.images import Images, find_tag
from installer.kubectl import Kubectl
from installer.options import NAMESPACE, ROOT, TITLES, Options, read_options, read_versions
from installer.program import Programs
from installer.progress import Progress, Step
from installer.site import Site
from installer.workloads import explain_pods, find_unready

_KIND = ROOT / "kind-cluster" / "kind.yaml"
_INSTALLERS: dict[str, Callable[[Site], str]] = {
    "GATEWAY_API": pieces.install_gateway_api,
    "ENVOY_GATEWAY": pieces.install_envoy_gateway,
    "CERT_MANAGER": pieces.install_cert_manager,
    "KSERVE": pieces.install_kserve,
    "KFP": pieces.install_pipelines,
}


def check(site: Site) -> str:
    """Print what is judged; any problem ends it before anything is changed."""
    options = site.options
    if options.cluster == "kind":
        found = judge_machine(observe_machine(site.programs, options), options)
    else:
        found = judge_cluster(observe_cluster(site.programs, site.kubectl, options), options)
    return _tell(site, found)


def up(site: Site) -> None:
    """Install everything, step by step."""
    steps = [Step("what is needed", lambda: check(site))]
    if site.options.cluster == "kind":
        steps.append(Step(f"kind cluster {site.options.name}", lambda: _create_cluster(site)))
    for switch, install in _INSTALLERS.items():
        skipped = None if site.options.installs(switch) else f"left to the cluster (WITH_{switch}=no)"
        steps.append(Step(TITLES[switch], partial(install, site), skipped))
    steps += [
        Step("what Tenure stands on", lambda: _probe(site)),
        Step("KServe's configuration", lambda: inference.settle(site)),
        Step("images", lambda: _build(site)),
        Step("images on the nodes", lambda: site.images.hand_over(site.state, site.kubectl.list("nodes"))),
        Step("keys and passwords", lambda: platform.make_secrets(site)),
        Step("Tenure", lambda: platform.apply_manifests(site)),
        Step("bucket", lambda: delivery.prepare_store(site)),
        Step("sample data", lambda: delivery.put_data(site), None if site.options.data else "not asked for"),
        Step("pipeline and first run", lambda: delivery.start_pipeline(site)),
    ]
    site.progress.run(steps)
    for line in summary.describe(site):
        site.progress.line(line)


def down(site: Site) -> None:
    """Delete the kind cluster; of an existing one, take Tenure off it."""
    if site.options.cluster == "kind":
        site.programs.record(
            ["kind", "delete", "cluster", "--name", site.options.name], site.logs / "kind-delete.log"
        )
        site.progress.line(f"the kind cluster {site.options.name} is gone, with all that was in it")
        return
    if not (site.directory / "overlay" / "kustomization.yaml").is_file():
        raise InstallError(
            f"{site.directory} does not say what was installed; run `make up` with the same variables"
        )
    site.progress.line(platform.remove(site))


def status(site: Site) -> None:
    """Print what runs and what does not; an error when anything does not."""
    found = site.kubectl.list("deployments,statefulsets", NAMESPACE)
    if not found:
        raise InstallError(f"nothing of Tenure is in namespace {NAMESPACE}: make up")
    unready = find_unready(found)
    for one in found:
        name = one["metadata"]["name"]
        trouble = next((text for text in unready if text.startswith(f"{name} ")), None)
        site.progress.line(f"{'×' if trouble else '√'} {trouble or name}")
    for switch, probe in pieces.PROBES.items():
        refusal = probe(site)
        title = TITLES[switch]
        site.progress.line(f"× {title}: {refusal}" if refusal else f"√ {title} answers")
    for line in explain_pods(site.kubectl.list("pods", NAMESPACE)):
        site.progress.line(f"    {line}")
    if unready:
        raise InstallError(f"{len(unready)} of {len(found)} are not ready")


def _create_cluster(site: Site) -> str:
    name = site.options.name
    if name in site.programs.need(["kind", "get", "clusters"]).split():
        outcome = _revive_cluster(site)
    else:
        image = site.options.versions["NODE_IMAGE"]
        if site.options.mirror:
            image = f"{site.options.mirror}/docker.io/{image}"
        site.programs.record(
            [
                "kind",
                "create",
                "cluster",
                "--name",
                name,
                "--image",
                image,
                "--config",
                str(_KIND),
                "--wait",
                "5m",
            ],
            site.logs / "kind-create.log",
        )
        outcome = f"created, Kubernetes {site.options.versions['KUBERNETES_VERSION']}"
    try:
        site.wait("the node", lambda: _find_unready_node(site))
    except WaitError as error:
        if (site.directory / "state.json").is_file():
            raise
        raise WaitError(
            f"{error}\nNothing was ever installed in the cluster {name}, and it may be half made: "
            "make cluster-down, then make up"
        ) from error
    return outcome


def _revive_cluster(site: Site) -> str:
    """Start a cluster that is there, if it was stopped, and see that the kubeconfig knows it."""
    name = site.options.name
    node = f"{name}-control-plane"
    running = site.programs.run(["docker", "inspect", "--format", "{{.State.Running}}", node])
    stopped = running.ok and running.out.strip() == "false"
    if stopped:
        site.programs.need(["docker", "start", node])
    site.programs.need(["kind", "export", "kubeconfig", "--name", name])
    return "started again" if stopped else "there"


def _find_unready_node(site: Site) -> str | None:
    result = site.kubectl.run(
        "get",
        "nodes",
        "-o",
        "jsonpath={range .items[*]}{.metadata.name} "
        "{.status.conditions[?(@.type=='Ready')].status}{'\\n'}{end}",
    )
    if not result.ok:
        return (result.err.strip().splitlines() or ["no answer"])[-1]
    unready = [line.split()[0] for line in result.out.splitlines() if not line.endswith(" True")]
    return f"{', '.join(unready)} not ready" if unready else None


def _build(site: Site) -> str:
    tag = find_tag(site.programs, site.options)
    images = Images(site.programs, site.options, site.logs, tag)
    outcome = images.build()
    site.images = images
    return outcome


def _probe(site: Site) -> str:
    """Ask each piece that Tenure needs for an answer, whoever installed it."""
    for switch, probe in pieces.PROBES.items():
        site.wait(f"{TITLES[switch]} to answer", partial(probe, site))
    return f"{len(pieces.PROBES)} pieces answer"


def _tell(site: Site, found: list[Finding]) -> str:
    for one in found:
        site.progress.say(one.show())
    problems = [one for one in found if one.level == "problem"]
    if problems:
        raise CheckError(f"{len(problems)} of {len(found)} checks failed; each has its fix above")
    return f"{len(found)} checks passed"


@contextmanager
def lock(site: Site) -> Iterator[None]:
    """Let one installation of a cluster go on at a time; another one waits for it."""
    site.directory.mkdir(parents=True, exist_ok=True)
    with (site.directory / "lock").open("w") as file:

        def probe() -> str | None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return f"it holds {file.name}"
            return None

        site.wait("another `make up` or `make cluster-down` to end", probe)
        yield


def _make_site(options: Options, environment: dict[str, str]) -> Site:
    programs = Programs(environment)
    binary = find_kubectl(programs)
    if binary is None:
        raise InstallError("kubectl is not installed: https://kubernetes.io/docs/tasks/tools")
    return Site(options, programs, Kubectl(programs, binary, options.kubectl_context), Progress())


_COMMANDS: dict[str, Callable[[Site], object]] = {"up": up, "down": down, "status": status, "check": check}


def main(arguments: list[str]) -> int:
    """Run one command; exit codes: 0 done, 1 it failed, 2 wrong usage, 3 something is lacking."""
    if len(arguments) != 1 or arguments[0] not in _COMMANDS:
        print(f"usage: python -m installer {'|'.join(_COMMANDS)}", file=sys.stderr)  # noqa: T201
        return 2
    environment = dict(os.environ)
    try:
        options = read_options(environment, read_versions(environment=environment))
        site = _make_site(options, environment)
        with lock(site) if arguments[0] in ("up", "down") else nullcontext():
            _COMMANDS[arguments[0]](site)
    except InstallError as error:
        print(f"make {arguments[0]}: {error}", file=sys.stderr)  # noqa: T201
        if isinstance(error, OptionError):
            return 2
        return 3 if isinstance(error, CheckError) else 1
    except KeyboardInterrupt:
        print("\nended; the same command goes on from here", file=sys.stderr)  # noqa: T201
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
