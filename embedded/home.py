"""The laptop platform's directory: ports, secrets, and where each service keeps its files."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import secrets as random_secrets
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from embedded.errors import EmbeddedError
from embedded.ports import find_free_port, is_port_free

Model = TypeVar("Model", bound=BaseModel)

HOME_VARIABLE = "TENURE_HOME"
PLATFORM_VARIABLE = "TENURE_PLATFORM_ID"
# sun_path holds 108 bytes with the final NUL; supervisord first binds "<path>.<pid>" (up to 8 bytes more).
_SOCKET_PATH_BYTES = 107 - 8


class Ports(BaseModel):
    """TCP ports at loopback, chosen once and kept as long as they are free."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api: int = Field(default_factory=find_free_port, description="Kubernetes API (TLS).")
    runs: int = Field(default_factory=find_free_port, description="Pipeline runs API.")
    s3: int = Field(default_factory=find_free_port, description="Object store.")
    s3_grpc: int = Field(default_factory=find_free_port)
    s3_master: int = Field(default_factory=find_free_port)
    s3_master_grpc: int = Field(default_factory=find_free_port)
    s3_volume: int = Field(default_factory=find_free_port)
    s3_volume_grpc: int = Field(default_factory=find_free_port)
    s3_filer: int = Field(default_factory=find_free_port)
    s3_filer_grpc: int = Field(default_factory=find_free_port)
    tracking: int = Field(default_factory=find_free_port, description="MLflow server.")
    gateway: int = Field(default_factory=find_free_port, description="Where customers' requests enter.")
    envoy_admin: int = Field(default_factory=find_free_port, description="Envoy's statistics and health.")
    detector: int = Field(default_factory=find_free_port, description="Events, labels and transitions.")
    pilot: int = Field(default_factory=find_free_port, description="The pilot's health and metrics.")
    console: int = Field(default_factory=find_free_port, description="The web page.")


class PlatformState(BaseModel):
    """What must stay the same between starts; kept in `platform.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(default_factory=lambda: uuid.uuid4().hex, description="Marks this platform's processes.")
    ports: Ports = Field(default_factory=Ports)
    socket: Path | None = Field(default=None, description="Supervisor's unix socket; set at its first start.")


class Secrets(BaseModel):
    """Credentials made at the first start; kept in `secrets.json`, readable by the owner only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_token: SecretStr = Field(default_factory=lambda: SecretStr(random_secrets.token_urlsafe(32)))
    runs_token: SecretStr = Field(default_factory=lambda: SecretStr(random_secrets.token_urlsafe(32)))
    detector_token: SecretStr = Field(default_factory=lambda: SecretStr(random_secrets.token_urlsafe(32)))
    tracking_password: SecretStr = Field(default_factory=lambda: SecretStr(random_secrets.token_urlsafe(32)))
    s3_access_key: SecretStr = Field(default_factory=lambda: SecretStr(_make_key(15)))
    s3_secret_key: SecretStr = Field(default_factory=lambda: SecretStr(random_secrets.token_urlsafe(32)))
    s3_internal_key: SecretStr = Field(
        default_factory=lambda: SecretStr(random_secrets.token_urlsafe(32)),
        description="With it the store's own parts prove themselves to each other.",
    )

    def to_json(self) -> str:
        """Return the document for `secrets.json`, values in clear."""
        return json.dumps({name: value.get_secret_value() for name, value in self}, indent=2)


class Home:
    """One platform's directory, normally `.tenure/` of the checkout; everything in it is the owner's alone.

    Read from as many processes as you like; `platform.json` is changed only by `up`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.env_file = self.path / "env"
        self.kubeconfig = self.path / "kubeconfig"
        self.runs_dir = self.path / "runs"
        self.models_dir = self.path / "models"
        self.store_dir = self.path / "s3"
        self.tracking_dir = self.path / "mlflow"
        self.envoy_dir = self.path / "envoy"
        self.kubernetes_dir = self.path / "kubernetes"
        self.tls_dir = self.path / "tls"
        self.supervisor_dir = self.path / "supervisor"
        self.ledger = self.path / "ledger.db"
        self._state_file = self.path / "platform.json"
        self._secrets_file = self.path / "secrets.json"
        self._state: tuple[tuple[int, int], PlatformState] | None = None
        self._secrets: Secrets | None = None

    @classmethod
    def locate(cls) -> Path:
        """Return the directory that `TENURE_HOME` names, else `.tenure` below the current directory."""
        return Path(os.environ.get(HOME_VARIABLE) or ".tenure").absolute()

    @classmethod
    def open(cls, path: Path | None = None, create: bool = False) -> Home:
        """Open the home at `path` (by default the located one).

        Args:
            path: The directory.
            create: Make the directory, the ports and the secrets where they are missing.

        Raises:
            EmbeddedError: There is no platform at `path` (and `create` is false), or its files are damaged.
        """
        home = cls(path if path is not None else cls.locate())
        if create:
            home._create()
        elif not home._state_file.is_file() or not home._secrets_file.is_file():
            raise EmbeddedError(
                f"there is no platform at {home.path}; run `tenure up` there, or set {HOME_VARIABLE}"
            )
        return home

    @property
    def state(self) -> PlatformState:
        """Ports and id, as they are now: `up` in another process may have chosen other ports."""
        file = self._state_file.stat()
        # Every save is a new file.
        mark = (file.st_ino, file.st_mtime_ns)
        known = self._state
        if known is None or known[0] != mark:
            known = (mark, self._read_whole(PlatformState, self._state_file))
            self._state = known
        return known[1]

    @property
    def secrets(self) -> Secrets:
        """The credentials of this platform."""
        if self._secrets is None:
            self._secrets = self._read_whole(Secrets, self._secrets_file)
        return self._secrets

    def save(self, state: PlatformState) -> None:
        """Replace `platform.json`."""
        write_private(self._state_file, state.model_dump_json(indent=2) + "\n")

    def replace_taken_ports(self) -> dict[str, tuple[int, int]]:
        """Choose another port for each one that is not free; call it only while the platform is down.

        Returns:
            The changed ones: name -> (old, new).
        """
        ports = self.state.ports
        taken = {
            name: (port, find_free_port())
            for name, port in ports.model_dump().items()
            if not is_port_free(port)
        }
        if taken:
            changed = ports.model_copy(update={name: new for name, (_, new) in taken.items()})
            self.save(self.state.model_copy(update={"ports": changed}))
        return taken

    def ensure_socket_path(self) -> Path:
        """Return where supervisord listens; choose the place at the first start and after it vanished.

        A unix socket's path is short (107 bytes): a deep checkout gets a private directory under the system's
        temporary one instead, which a reboot may remove.
        """
        inside = self.supervisor_dir / "socket"
        if len(os.fsencode(inside)) <= _SOCKET_PATH_BYTES:
            chosen = inside
        else:
            known = self.state.socket
            if known is not None and known != inside and is_private(known.parent):
                chosen = known
            else:
                chosen = Path(tempfile.mkdtemp(prefix="tenure-")) / "socket"
        if self.state.socket != chosen:
            self.save(self.state.model_copy(update={"socket": chosen}))
        return chosen

    def log_file(self, name: str) -> Path:
        """Return the log of the service `name`."""
        return self.logs / f"{name}.log"

    @contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[None]:
        """Hold the lock `name` against every other process and thread.

        Raises:
            EmbeddedError: It is held elsewhere and `wait` is false.
        """
        file = os.open(self.path / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EmbeddedError(
                    f"another command holds {self.path / name}.lock; wait for it to end and try again"
                ) from None
            yield
        finally:
            os.close(file)

    def _read_whole(self, kind: type[Model], path: Path) -> Model:
        model = _read_model(kind, path)
        if not _is_complete(model):
            raise EmbeddedError(f"{path} was written by another version of Tenure; run `tenure up`")
        return model

    def _create(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        with self.lock("create"):
            for directory in (
                self.logs,
                self.runs_dir,
                self.models_dir,
                self.store_dir,
                self.tracking_dir,
                self.envoy_dir,
                self.kubernetes_dir,
                self.tls_dir,
                self.supervisor_dir,
            ):
                directory.mkdir(mode=0o700, exist_ok=True)
            ignore = self.path / ".gitignore"
            if not ignore.exists():
                write_private(ignore, "*\n")
            # Read with the defaults and written back: what an older version did not know is chosen now.
            state = _read_model(PlatformState, self._state_file) if self._state_file.exists() else None
            if state is None or not _is_complete(state):
                self.save(state or PlatformState())
            secrets = _read_model(Secrets, self._secrets_file) if self._secrets_file.exists() else None
            if secrets is None or not _is_complete(secrets):
                write_private(self._secrets_file, (secrets or Secrets()).to_json() + "\n")


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path`, mode 0600, at once: readers see the old file or the new one, never a part."""
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def is_private(directory: Path) -> bool:
    """Return whether `directory` exists, is ours and closed to others."""
    try:
        status = directory.lstat()
    except FileNotFoundError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    )


def _make_key(size: int) -> str:
    """Return an upper-case access key, as S3 clients expect them."""
    return base64.b32encode(random_secrets.token_bytes(size)).decode("ascii").rstrip("=")


def _is_complete(model: BaseModel) -> bool:
    """Return whether every field was read, none left to a (random) default."""
    return model.model_fields_set >= type(model).model_fields.keys() and all(
        _is_complete(value) for _, value in model if isinstance(value, BaseModel)
    )


def _read_model(kind: type[Model], path: Path) -> Model:
    """Read `path`; a damaged file is told without quoting it, for it may hold secrets."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = ", ".join(".".join(map(str, problem["loc"])) or "document" for problem in error.errors())
        raise EmbeddedError(
            f"{path} is damaged ({problems}); restore it, or run `tenure down` and remove it"
        ) from None
