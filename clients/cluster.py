"""What a person needs of a cluster besides InferenceServices: its settings and Secrets, and who is ready."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from clients.errors import ClientError, NotFoundError, RefusedError, SettingsError, UnreachableError

_TIMEOUT = (5, 20)
_MODEL_LABEL = "serving.kserve.io/inferenceservice"


@dataclass(frozen=True)
class Workload:
    """A Deployment or StatefulSet.

    Attributes:
        kind: `deployment` or `statefulset`.
        model: Whether KServe made it for an InferenceService.
        wanted: Replicas asked for.
        ready: Replicas that are ready.
        reason: Why it is not ready, as far as the controller says.
        selector: Labels of its pods.
    """

    name: str
    kind: str
    model: bool
    wanted: int
    ready: int
    reason: str
    selector: Mapping[str, str]

    @property
    def is_ready(self) -> bool:
        """Whether all of its replicas are ready."""
        return self.ready >= self.wanted


class Cluster:
    """One context of the kubeconfig. Every method raises NotFoundError, RefusedError or UnreachableError."""

    def __init__(self, api: Any, name: str) -> None:
        self._api = api
        self.name = name
        """The context's name."""

    @classmethod
    def connect(cls, kubeconfig: Path, context: str) -> Self:
        """Build the client by the context; sends nothing yet.

        Raises:
            SettingsError: There is no such file or context; the text has those that there are.
        """
        import yaml
        from kubernetes import client, config

        try:
            known = [one["name"] for one in config.list_kube_config_contexts(str(kubeconfig))[0]]
        except config.ConfigException:
            known = []
        except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
            raise SettingsError(f"the kubeconfig {kubeconfig} cannot be read: {error}") from error
        if context not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise SettingsError(
                f"the kubeconfig {kubeconfig} has no context {context!r}; its contexts: {listed}. "
                "KUBECONFIG names another file"
            )
        configuration = client.Configuration()
        try:
            config.load_kube_config(str(kubeconfig), context, client_configuration=configuration)
        except (config.ConfigException, OSError, TypeError) as error:
            raise SettingsError(f"the kubeconfig {kubeconfig}, context {context}: {error}") from error
        configuration.retries = 1
        return cls(client.ApiClient(configuration), context)

    def read_config_map(self, namespace: str, name: str) -> dict[str, str]:
        """Return a ConfigMap's texts."""
        from kubernetes.client import CoreV1Api

        read = CoreV1Api(self._api).read_namespaced_config_map
        found = self._call("get", "configmaps", namespace, name, read, name, namespace)
        return dict(found.data or {})

    def read_secret(self, namespace: str, name: str) -> dict[str, str]:
        """Return a Secret's texts."""
        from kubernetes.client import CoreV1Api

        read = CoreV1Api(self._api).read_namespaced_secret
        found = self._call("get", "secrets", namespace, name, read, name, namespace)
        try:
            return {key: base64.b64decode(text).decode() for key, text in (found.data or {}).items()}
        except ValueError:  # the cause would show a part of it
            raise RefusedError(f"{self.name}: the Secret {namespace}/{name} holds no UTF-8 text") from None

    def has_service(self, namespace: str, name: str) -> bool:
        """Say whether there is such a Service."""
        from kubernetes.client import CoreV1Api

        read = CoreV1Api(self._api).read_namespaced_service
        try:
            self._call("get", "services", namespace, name, read, name, namespace)
        except NotFoundError:
            return False
        return True

    def list_workloads(self, namespace: str) -> list[Workload]:
        """Return every Deployment and StatefulSet by name, those of models last."""
        from kubernetes.client import AppsV1Api

        api = AppsV1Api(self._api)
        found = []
        for kind, read in (
            ("deployment", api.list_namespaced_deployment),
            ("statefulset", api.list_namespaced_stateful_set),
        ):
            answer = self._call("list", f"{kind}s.apps", namespace, "", read, namespace)
            found += [_read_workload(kind, item) for item in answer.items]
        return sorted(found, key=lambda one: (one.model, one.name))

    def _call(
        self, verb: str, kind: str, namespace: str, name: str, method: Callable[..., Any], *arguments: str
    ) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        what = f"{verb} {kind} {namespace}/{name}".rstrip("/")
        try:
            return method(*arguments, _request_timeout=_TIMEOUT)
        except ApiException as error:
            raise self._explain(error, what, kind, verb, namespace) from error
        except (HTTPError, OSError) as error:
            raise UnreachableError(
                f"the cluster of context {self.name} does not answer ({error}): is it up, and is its "
                "address in the kubeconfig right?"
            ) from error

    def _explain(self, error: Any, what: str, kind: str, verb: str, namespace: str) -> ClientError:
        try:
            message = str(json.loads(error.body)["message"])
        except (TypeError, ValueError, KeyError):
            message = str(error.reason or "no reason given")
        text = f"{self.name}: {what}: {message}"
        if error.status == 404:
            return NotFoundError(text)
        if error.status == 401:
            return RefusedError(f"{text}. Log in to the cluster anew")
        if error.status == 403:
            check = f"kubectl --context {self.name} auth can-i {verb} {kind} -n {namespace}"
            return RefusedError(f"{text}. Whoever runs the cluster can grant it; `{check}` tells when it is")
        if not error.status or error.status in (429, 502, 503, 504):
            return UnreachableError(f"{text} (status {error.status}); try again")
        return RefusedError(f"{text} (status {error.status})")


def find_kubeconfig() -> Path:
    """Return the kubeconfig that kubectl would use: KUBECONFIG, which may name several, or ~/.kube/config."""
    return Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")


def _read_workload(kind: str, item: Any) -> Workload:
    wanted = 1 if item.spec.replicas is None else int(item.spec.replicas)
    ready = int(item.status.ready_replicas or 0)
    troubles = [
        str(condition.message)
        for condition in item.status.conditions or ()
        if condition.message
        and (condition.type, condition.status)
        in (("Available", "False"), ("Progressing", "False"), ("ReplicaFailure", "True"))
    ]
    return Workload(
        name=str(item.metadata.name),
        kind=kind,
        model=_MODEL_LABEL in (item.metadata.labels or {}),
        wanted=wanted,
        ready=ready,
        reason="" if ready >= wanted else "; ".join(troubles),
        selector=dict(item.spec.selector.match_labels or {}),
    )
