"""`tenure --context NAME`: the same commands against a cluster, by what its own ConfigMap and Secrets say.

A command says what it talks to: `open_settings("ledger")`. On a laptop these are the platform's settings.
With a context they are the cluster's, and the addresses inside of it that the command needs are reached
through tunnels, which are closed when the command ends. Secrets of what it does not need are not read.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import ValidationError
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from clients.cluster import Cluster, find_kubeconfig
from clients.errors import NotFoundError, SettingsError
from clients.settings import Settings, load_settings
from console import display
from console.errors import NOT_RUNNING, REFUSED, ConsoleError
from console.tunnel import Tunnel, make_command

NAMESPACE = "tenure"
"""Where everything of ours is installed."""

SETTINGS = "tenure-settings"
"""The ConfigMap whose keys are the names of the environment."""

Need = Literal["runs", "store", "tracking", "ledger", "detector", "gateway"]
"""What a command may talk to besides the Kubernetes API."""

_URLS: dict[Need, str] = {
    "runs": "runs_url",
    "store": "s3_url",
    "tracking": "tracking_url",
    "ledger": "ledger_url",
    "detector": "detector_url",
    "gateway": "gateway_url",
}
_SECRETS: dict[Need, tuple[str, dict[str, str]]] = {
    "store": ("tenure-s3", {"accesskey": "s3_access_key", "secretkey": "s3_secret_key"}),
    "tracking": ("tenure-tracking", {"username": "tracking_username", "password": "tracking_password"}),
    "ledger": ("tenure-databases", {"ledger-reader-url": "ledger_url"}),
    "detector": ("tenure-detector", {"token": "detector_token"}),
}
_PODS_ONLY = frozenset({"kubeconfig", "kube_context", "runs_token_file", "namespace"})
_PORTS = {"http": 80, "https": 443, "postgresql": 5432}


class Remote:
    """A cluster, for the time of one command; use it as a context manager. Not thread-safe.

    Args:
        context: Of the kubeconfig.
        namespace: Where Tenure is installed.
        kubeconfig: Path of it.
    """

    def __init__(self, context: str, namespace: str, kubeconfig: Path) -> None:
        self.context = context
        self.namespace = namespace
        self.kubeconfig = kubeconfig
        self.cluster = Cluster.connect(kubeconfig, context)
        """The Kubernetes API by this context."""
        self._stack = ExitStack()
        self._tunnels: dict[tuple[str, str, int], Tunnel] = {}
        self._values: dict[str, str] | None = None

    def close(self) -> None:
        """Close all tunnels; one that broke before is told of."""
        for tunnel in self._tunnels.values():
            problem = tunnel.find_problem()
            if problem and tunnel.is_open:
                display.err.print(f"the tunnel to {tunnel.target} broke: {problem}", markup=False)
        self._stack.close()

    def open(self, needs: tuple[Need, ...]) -> Settings:
        """Return the cluster's settings, with addresses that work from here for what is needed.

        Raises:
            ConsoleError: Tenure is not installed there, or there is no way to an address.
            ClientError: The cluster refuses to tell, or does not answer.
        """
        values: dict[str, Any] = {**self._read_values(), "s3_access_key": "", "s3_secret_key": ""}
        for need in needs:
            if need in _SECRETS:
                values |= self._read_secret(*_SECRETS[need])
        targets = {
            need: target
            for need in needs
            if (target := self._find_target(values.get(_URLS[need]), _say_place(need))) is not None
        }
        for target in targets.values():
            if target not in self._tunnels:
                tunnel = Tunnel(make_command(self.kubeconfig, self.context), *target)
                self._tunnels[target] = self._stack.enter_context(tunnel)
        for need, target in targets.items():
            values[_URLS[need]] = _redirect(values[_URLS[need]], self._tunnels[target].wait())
        return self._build(values)

    def _read_values(self) -> dict[str, str]:
        """Return the ConfigMap's values by the names of the settings."""
        if self._values is None:
            try:
                found = self.cluster.read_config_map(self.namespace, SETTINGS)
            except NotFoundError as error:
                raise ConsoleError(
                    f"Tenure is not installed in namespace {self.namespace} of context {self.context}: there "
                    f"is no ConfigMap {SETTINGS}. `make up CLUSTER=existing CONTEXT={self.context}` installs "
                    "it, --namespace names another place",
                    NOT_RUNNING,
                ) from error
            named = {key.removeprefix("TENURE_").lower(): value for key, value in found.items()}
            fields = Settings.model_fields.keys() - _PODS_ONLY
            self._values = {name: value for name, value in named.items() if name in fields and value}
        return self._values

    def _read_secret(self, name: str, keys: dict[str, str]) -> dict[str, str]:
        found = self.cluster.read_secret(self.namespace, name)
        missing = sorted(keys.keys() - found.keys())
        if missing:
            raise SettingsError(
                f"the Secret {self.namespace}/{name} of context {self.context} has no {', '.join(missing)}"
            )
        return {field: found[key] for key, field in keys.items()}

    def _find_target(self, url: str | None, where: str) -> tuple[str, str, int] | None:
        """Return namespace, name and port of the Service behind a URL; None if it is outside the cluster."""
        host, port = _read_address(url or "", where)
        labels = host.split(".")
        inside = len(labels) <= 2 or labels[2] == "svc"
        if not labels[0] or not inside:
            return None
        name, namespace = labels[0], labels[1] if len(labels) > 1 else self.namespace
        if len(labels) == 2 and not self.cluster.has_service(namespace, name):
            if _is_known(".".join(labels)):
                return None
            raise ConsoleError(
                f"context {self.context}: there is no Service {name} in namespace {namespace}, which the "
                f"ConfigMap {self.namespace}/{SETTINGS} names",
                NOT_RUNNING,
            )
        return namespace, name, port

    def _build(self, values: dict[str, Any]) -> Settings:
        """Build the settings from these values alone: those in this environment are another platform's."""
        defaults = {
            name: field.get_default()
            for name, field in Settings.model_fields.items()
            if not field.is_required() and name != "runs_token"  # a person's own token stays theirs
        }
        here = {
            "kubeconfig": self.kubeconfig,
            "kube_context": self.context,
            "namespace": self.namespace,
        }
        try:
            return Settings(_env_file=None, **{**defaults, **values, **here})
        except ValidationError as error:
            names = ", ".join(f"TENURE_{str(problem['loc'][0]).upper()}" for problem in error.errors())
            raise SettingsError(
                f"the ConfigMap {self.namespace}/{SETTINGS} of context {self.context} lacks these, or has "
                f"them wrong: {names}"
            ) from error


_current: Remote | None = None


@contextmanager
def enter(context: str, namespace: str = NAMESPACE) -> Iterator[Remote]:
    """Let commands talk to a cluster while the block runs.

    Raises:
        SettingsError: The kubeconfig has no such context.
    """
    global _current
    remote = Remote(context, namespace, find_kubeconfig())
    # Tunnels must not outlive a command that is told to end.
    before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    _current = remote
    try:
        yield remote
    finally:
        _current = None
        remote.close()
        for number, handler in before.items():
            signal.signal(number, handler)


def get_remote() -> Remote | None:
    """Return the cluster that --context names; None when the platform is this machine's."""
    return _current


def open_settings(*needs: Need) -> Settings:
    """Return the settings of the platform that the command is for, and make what it `needs` reachable.

    The Kubernetes API always is.

    Raises:
        SettingsError: They are missing or wrong.
        ConsoleError: The cluster has no Tenure, or there is no way to an address.
    """
    unknown = set(needs) - set(get_args(Need))
    if unknown:
        raise ValueError(f"nobody can need {sorted(unknown)}")
    return load_settings() if _current is None else _current.open(needs)


def refuse_remote(command: str, instead: str) -> None:
    """Refuse a command that makes sense on a laptop only.

    Raises:
        ConsoleError: A context is given.
    """
    if _current is not None:
        raise ConsoleError(
            f"`tenure {command}` is about this machine's platform, but --context (TENURE_CONTEXT) names the "
            f"cluster {_current.context}: {instead}",
            REFUSED,
        )


def _leave(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _is_known(host: str) -> bool:
    """Say whether this machine can resolve a name."""
    try:
        return bool(socket.getaddrinfo(host, None))
    except OSError:
        return False


def _say_place(need: Need) -> str:
    """Say where the address of a need is written."""
    if need == "ledger":
        name, keys = _SECRETS[need]
        return f"the Secret {name}, {next(iter(keys))}"
    return f"the ConfigMap {SETTINGS}, TENURE_{_URLS[need].upper()}"


def _read_address(url: str, where: str) -> tuple[str, int]:
    """Return the host and port of a URL; `where` it is written is told in place of what may be a secret."""
    try:
        address = urlsplit(url)
        host, port = address.hostname, address.port
    except ValueError:
        raise SettingsError(f"{where}: that is no URL") from None
    return host or "", port or _PORTS.get(address.scheme.partition("+")[0], 80)


def _redirect(url: str, port: int) -> str:
    """Return the URL with this machine's port in place of its host."""
    if url.startswith(("http://", "https://")):
        return urlsplit(url)._replace(netloc=f"127.0.0.1:{port}").geturl()
    try:
        return make_url(url).set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
    except ArgumentError:  # the cause would repeat the password
        raise SettingsError(f"{_say_place('ledger')}: that is no SQLAlchemy URL") from None
