"""The cluster, through kubectl: the one tool that knows every way to log in to one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from installer.errors import ProgramError, TransientError
from installer.program import Programs, Result, tail

MANAGER = "tenure-installer"
"""Who owns the fields that we apply."""

Document = dict[str, Any]

_TRANSIENT = re.compile(
    r"failed calling webhook|no endpoints available|connection refused|context deadline exceeded|i/o timeout"
    r"|x509: certificate signed by unknown authority|no matches for kind|the server is currently unable"
    r"|could not find the requested resource|TLS handshake timeout|etcdserver: |unexpected EOF"
    r"|the object has been modified|is being terminated"
)


class Kubectl:
    """kubectl with one context; every method raises ProgramError when the cluster refuses."""

    def __init__(self, programs: Programs, binary: str, context: str | None) -> None:
        self._programs = programs
        self._head = [binary, *([f"--context={context}"] if context else [])]

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> Result:
        """Run kubectl; a failure is a result."""
        return self._programs.run([*self._head, *arguments], stdin=stdin, timeout=timeout)

    def need(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Run kubectl; it must succeed.

        Raises:
            TransientError: It failed in a way that passes.
            ProgramError: It failed for good.
        """
        result = self.run(*arguments, stdin=stdin, timeout=timeout)
        if not result.ok:
            text = f"kubectl {' '.join(arguments[:4])} failed:\n{tail(result.err or result.out)}"
            raise TransientError(text) if is_transient(result.err) else ProgramError(text)
        return result.out

    def get(self, kind: str, name: str, namespace: str | None = None) -> Document | None:
        """Return one object, or None when it (or its type) is not there."""
        result = self.run("get", kind, name, "--ignore-not-found", "-o", "json", *_within(namespace))
        if not result.ok:
            if "the server doesn't have a resource type" in result.err:
                return None
            raise ProgramError(f"kubectl get {kind} {name}:\n{tail(result.err)}")
        found: Document | None = json.loads(result.out) if result.out.strip() else None
        return found

    def list(self, kind: str, namespace: str | None = None, selector: str | None = None) -> list[Document]:
        """Return the objects of a namespace, or of all; an unknown type has none."""
        scope = _within(namespace) or ("--all-namespaces",)
        chosen = ("-l", selector) if selector else ()
        result = self.run("get", kind, "-o", "json", *scope, *chosen)
        if not result.ok:
            if "the server doesn't have a resource type" in result.err:
                return []
            raise ProgramError(f"kubectl get {kind}:\n{tail(result.err)}")
        items: list[Document] = json.loads(result.out)["items"]
        return items

    def apply(self, documents: Sequence[Mapping[str, Any]], *, timeout: float = 300) -> int:
        """Apply the documents by server-side apply and return how many there were."""
        if not documents:
            return 0
        self.need(
            "apply",
            "--server-side",
            "--force-conflicts",
            f"--field-manager={MANAGER}",
            "-f",
            "-",
            stdin=dump(documents),
            timeout=timeout,
        )
        return len(documents)

    def try_create(self, document: Mapping[str, Any]) -> str | None:
        """Create by a server-side dry run, webhooks included; return the refusal, or None."""
        result = self.run("create", "--dry-run=server", "-f", "-", stdin=dump([document]))
        return None if result.ok else (result.err.strip().splitlines() or ["no reason given"])[-1]

    def delete(self, documents: Sequence[Mapping[str, Any]], *, timeout: float = 300) -> None:
        """Delete the documents' objects and wait until they are gone; absent ones are no error."""
        if documents:
            self.need(
                "delete",
                "--ignore-not-found",
                f"--timeout={timeout:.0f}s",
                "-f",
                "-",
                stdin=dump(documents),
                timeout=timeout + 30,
            )


def is_transient(text: str) -> bool:
    """Say whether an error of kubectl is one that passes."""
    return bool(_TRANSIENT.search(text))


def dump(documents: Sequence[Mapping[str, Any]]) -> str:
    """Write documents as one List in JSON: of YAML, Python and Go do not read every word alike (y, 1e3)."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)})


def load(text: str) -> list[Document]:
    """Read a YAML stream; empty documents and Lists are taken apart."""
    found: list[Document] = []
    for one in yaml.load_all(text, Loader=yaml.CSafeLoader):
        if isinstance(one, dict):
            found.extend(one["items"] if one.get("kind") == "List" else [one])
    return found


def _within(namespace: str | None) -> tuple[str, ...]:
    return ("-n", namespace) if namespace else ()
