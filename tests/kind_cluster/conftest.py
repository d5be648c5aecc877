"""A cluster played in memory: it answers the programs that the installer runs."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from installer.errors import ProgramError
from installer.kubectl import Kubectl, dump, load
from installer.options import Options, read_options, read_versions
from installer.program import Programs, Result
from installer.progress import Progress
from installer.site import Site

Document = dict[str, Any]
Hook = Callable[[Document], str | None]

PLURALS = {
    "deployments": "Deployment",
    "statefulsets": "StatefulSet",
    "daemonsets": "DaemonSet",
    "customresourcedefinitions": "CustomResourceDefinition",
    "storageclasses": "StorageClass",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "gateways.gateway.networking.k8s.io": "Gateway",
    "inferenceservices": "InferenceService",
    "services": "Service",
    "pods": "Pod",
    "nodes": "Node",
}
UID = "11111111-2222-3333-4444-555555555555"


@dataclass
class FakeCluster:
    """Objects by kind, namespace and name; what is applied is ready at once unless a hook objects."""

    objects: dict[tuple[str, str, str], Document] = field(default_factory=dict)
    applied: list[tuple[str, str, str]] = field(default_factory=list)
    refuse_apply: Hook = lambda _: None
    refuse_create: Hook = lambda _: None
    healthy: bool = True
    node_ready: bool = True

    def __post_init__(self) -> None:
        self.put({"kind": "Namespace", "metadata": {"name": "kube-system", "uid": UID}})

    def put(self, document: Document) -> None:
        """Store an object as if it had been applied, with the status of a healthy one."""
        one = json.loads(json.dumps(document))
        metadata = one["metadata"]
        metadata.setdefault("uid", f"uid-{len(self.objects)}")
        metadata["generation"] = 1
        if one["kind"] == "CustomResourceDefinition":
            one["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
        if one["kind"] == "Gateway":
            one["status"] = {
                "conditions": [{"type": "Programmed", "status": "True", "observedGeneration": 1}]
            }
        if one["kind"] in ("Deployment", "StatefulSet", "DaemonSet"):
            wanted = one.get("spec", {}).get("replicas", 1)
            one["status"] = {
                "observedGeneration": 1,
                "availableReplicas": wanted,
                "updatedReplicas": wanted,
                "desiredNumberScheduled": 1,
                "numberAvailable": 1,
                "updatedNumberScheduled": 1,
            }
        self.objects[self.key(one)] = one

    @staticmethod
    def key(document: Mapping[str, Any]) -> tuple[str, str, str]:
        metadata = document["metadata"]
        return document["kind"], metadata.get("namespace", ""), metadata["name"]

    def values(self, name: str, namespace: str = "tenure") -> dict[str, str]:
        """Return the values of a Secret."""
        data = self.objects["Secret", namespace, name]["data"]
        return {key: base64.b64decode(text).decode() for key, text in data.items()}

    def answer(self, arguments: Sequence[str], stdin: str | None) -> Result:
        """Answer one call of kubectl."""
        plain, options = _split(arguments)
        namespace = options.get("-n", options.get("--namespace", ""))
        verb, rest = plain[0], plain[1:]
        if verb == "version":
            said = {"clientVersion": {"gitVersion": "v1.34.1"}, "serverVersion": {"gitVersion": "v1.34.4"}}
            return Result(0, json.dumps(said), "")
        if verb == "get" and "--raw" in options:
            return Result(0, "ok", "") if self.healthy else Result(1, "", "service unavailable")
        if verb == "get" and options.get("-o", "").startswith("jsonpath"):
            return Result(0, f"node {self.node_ready}\n", "")
        if verb == "get" and rest[0] == "events":
            return Result(0, "", "")
        if verb == "get" and len(rest) == 2:
            found = self.objects.get((_kind(rest[0]), namespace, rest[1]))
            return Result(0, json.dumps(found) if found else "", "")
        if verb == "get":
            kinds = {_kind(one) for one in rest[0].split(",")}
            items = [
                one
                for (kind, place, _), one in self.objects.items()
                if kind in kinds and (not namespace or place == namespace)
            ]
            return Result(0, json.dumps({"items": items}), "")
        if verb == "config":
            return Result(0, "somewhere\n", "")
        if verb == "auth":
            return Result(0, "yes\n", "")
        if verb == "kustomize":
            return Result(0, _kustomize(Path(rest[0])), "")
        if verb == "exec":
            return Result(0, '{"name": "tenure-models"}', "")
        if verb == "delete" and len(rest) == 2:
            kind = _kind(rest[0].split(".")[0])
            self.objects = {
                key: one for key, one in self.objects.items() if key[0] != kind or key[2] != rest[1]
            }
            return Result(0, "", "")
        documents = load(stdin or "")
        if verb == "delete":
            for one in documents:
                self.objects.pop(self.key(one), None)
            return Result(0, "", "")
        if verb == "create" and options.get("--dry-run") == "server":
            return _refusal(map(self.refuse_create, documents))
        assert verb == "apply", arguments
        refused = _refusal(map(self.refuse_apply, documents))
        if refused.ok:
            for one in documents:
                self.applied.append(self.key(one))
                self.put(one)
        return refused


@dataclass(frozen=True)
class FakePrograms(Programs):
    """Plays kubectl, docker, kind, make and scripts/images; remembers the command lines."""

    cluster: FakeCluster = field(default_factory=FakeCluster)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)
    digests: dict[str, list[str]] = field(default_factory=dict)
    """What registries call an image."""
    stopped: set[str] = field(default_factory=set)
    """Nodes of kind clusters that do not run."""
    kinds: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    """Programs (or their first two words) that fail."""
    complaint: list[str] = field(default_factory=lambda: ["broken by the test"])
    """What they say."""

    def find(self, name: str) -> str | None:
        return f"/bin/{name}"

    def run(
        self,
        arguments: Sequence[str],
        *,
        stdin: str | None = None,
        timeout: float = 120,
        directory: Path | None = None,
    ) -> Result:
        self.calls.append(tuple(arguments))
        name = Path(arguments[0]).name
        if self.broken & _describe(arguments):
            return Result(1, "", f"{name}: {self.complaint[0]}")
        if name == "kubectl":
            return self.cluster.answer(arguments[1:], stdin)
        if name == "docker" and arguments[1] == "info":
            said = {"ServerVersion": "29.0", "MemTotal": 32 << 30, "DockerRootDir": "/nowhere"}
            return Result(0, json.dumps(said), "")
        if name == "docker" and "{{.Os}}/{{.Architecture}}" in arguments:
            return Result(0, "linux/arm64\n", "")
        if name == "docker" and arguments[1:3] == ["image", "inspect"] and "RepoDigests" in arguments[4]:
            return Result(0, "\n".join(self.digests.get(arguments[-1], ())) + "\n", "")
        if name == "docker" and arguments[1:3] == ["image", "inspect"]:
            found = self.images.get(arguments[-1])
            return Result(0, f"{found}\n", "") if found else Result(1, "", "no such image")
        if name == "docker" and arguments[1] == "inspect":
            return Result(0, "false\n" if arguments[-1] in self.stopped else "true\n", "")
        if name == "docker" and arguments[1] == "start":
            self.stopped.remove(arguments[2])
            return Result(0, "", "")
        if name == "kind" and arguments[1] == "export":
            return Result(0, "", "")
        if name == "docker" and arguments[1] == "tag":
            self.images[arguments[3]] = self.images[arguments[2]]
            return Result(0, "", "")
        if name == "kind" and arguments[1] == "version":
            return Result(0, "kind v0.33.0 go1.25 linux/amd64\n", "")
        if name == "kind" and arguments[1] == "get":
            return Result(0, "\n".join(self.kinds), "")
        if name == "images":
            return Result(0, "0123456789ab\n", "")
        return Result(127, "", f"{name}: not played")

    def record(
        self, arguments: Sequence[str], log: Path, *, timeout: float = 3600, directory: Path | None = None
    ) -> None:
        self.calls.append(tuple(arguments))
        name = Path(arguments[0]).name
        if self.broken & _describe(arguments):
            raise ProgramError(f"{name}: {self.complaint[0]}")
        if name == "make":
            tag = next(one.removeprefix("TAG=") for one in arguments if one.startswith("TAG="))
            for image in ("components", "predictor", "detector", "pilot", "console", "mlflow"):
                self.images[f"tenure-{image}:{tag}"] = f"sha256:{image}"
        if arguments[:3] == ["kind", "create", "cluster"]:
            self.kinds.append(arguments[4])

    def count(self, *head: str) -> int:
        """Return how many calls began with these words."""
        return sum(call[: len(head)] == head for call in self.calls)


@pytest.fixture
def programs() -> FakePrograms:
    return FakePrograms(environment={"PATH": "/bin"})


@pytest.fixture
def make_site(tmp_path: Path, programs: FakePrograms) -> Callable[..., Site]:
    """Return a function that makes a site with these variables."""

    def make(**environment: str) -> Site:
        # The third parties' files of these tests are made here: no pin knows them.
        versions = {key: "" if key.endswith("_SHA256") else text for key, text in read_versions().items()}
        options = read_options(environment, versions)
        changed = Options(**{**vars(options), "state": tmp_path / "state", "timeout": 0.2})
        kubectl = Kubectl(programs, "kubectl", changed.kubectl_context)
        return Site(changed, programs, kubectl, Progress(io.StringIO()))

    return make


def _describe(arguments: Sequence[str]) -> set[str]:
    """Return a program's name, and that with one and two words after it."""
    name = Path(arguments[0]).name
    words = [one for one in arguments[1:] if not one.startswith("-")]
    return {name, " ".join((name, *words[:1])), " ".join((name, *words[:2]))}


def _split(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Part words from options; those of one letter take the next word."""
    plain: list[str] = []
    options: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        if word == "--":
            break
        if word in ("-n", "-o", "-f", "-l", "--raw"):
            options[word] = next(words)
        elif word.startswith("-"):
            name, _, value = word.partition("=")
            options[name] = value
        else:
            plain.append(word)
    return plain, options


def _kind(word: str) -> str:
    known = {one.lower(): one for one in [*PLURALS.values(), "Secret", "ConfigMap", "Namespace"]}
    return PLURALS.get(word) or known.get(word.split(".")[0]) or word


def _refusal(reasons: Any) -> Result:
    found = [one for one in reasons if one]
    return Result(1, "", f"Error from server: {found[0]}") if found else Result(0, "", "")


def _kustomize(directory: Path) -> str:
    """Build just enough: resources, and settings merged."""
    found: list[Document] = []
    written = yaml.load((directory / "kustomization.yaml").read_text(), yaml.CSafeLoader)
    for name in written.get("resources", ()):
        path = (directory / name).resolve()
        found += load(_kustomize(path) if path.is_dir() else path.read_text())
    for generated in written.get("configMapGenerator", ()):
        data = dict(one.split("=", 1) for one in generated.get("literals", ()))
        for file in generated.get("envs", ()):
            lines = (directory / file).read_text().splitlines()
            data |= dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
        same = [
            one
            for one in found
            if one["metadata"]["name"] == generated["name"] and one["kind"] == "ConfigMap"
        ]
        if same:
            same[0].setdefault("data", {}).update(data)
        else:
            metadata = {"name": generated["name"], "namespace": written.get("namespace", "tenure")}
            found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    for entry in written.get("images", ()):
        if "newName" in entry:
            end = f"@{entry['digest']}" if "digest" in entry else f":{entry.get('newTag', 'latest')}"
            whole = f"{entry['newName']}{end}"
            text = re.sub(rf'"image": "{entry["name"]}(:[^"]*)?"', f'"image": "{whole}"', json.dumps(found))
            found = json.loads(text)
    namespace = written.get("namespace")
    for one in found:
        if namespace and one["kind"] not in ("Namespace", "ClusterRole", "ClusterRoleBinding"):
            one["metadata"].setdefault("namespace", namespace)
    return dump(found)
