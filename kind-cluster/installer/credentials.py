"""Keys and passwords: made once, kept in the cluster's Secrets, never overwritten."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from installer.options import NAMESPACE, PIPELINES_NAMESPACE

Document = dict[str, Any]
Values = Mapping[str, str]

S3 = "tenure-s3"
DATABASES = "tenure-databases"
TRACKING = "tenure-tracking"
DETECTOR = "tenure-detector"
OURS = (S3, DATABASES, TRACKING, DETECTOR)
"""What `make up` makes, and what pods of ours read: when one changes they are started anew."""

PIPELINES_S3 = "mlpipeline-minio-artifact"
"""Where Kubeflow Pipelines keeps its own key of the object store."""

PULL = "tenure-pull"
"""The nodes' login to registry and mirror."""

LEDGER = "tenure-ledger-db.tenure.svc:5432/ledger"


@dataclass(frozen=True)
class Key:
    """A key of the object store."""

    access: str
    secret: str


def make_password() -> str:
    """Return 192 random bits as letters and digits, fit for any URL and file."""
    return secrets.token_hex(24)


def choose_key(
    existing: Values | None, given: Key | None, pipelines: Values | None, *, own: bool
) -> Key | None:
    """Return the platform's key, or None when there is none.

    Args:
        existing: The Secret in use.
        given: A key from the environment.
        pipelines: Kubeflow Pipelines' own Secret.
        own: Whether the store is the pipelines' own, which goes by their Secret: then that one is followed,
            unless another key is given. Else the key in use stays.
    """
    theirs = _read_key(pipelines)
    if own and given is None and theirs is not None:
        return theirs
    return _read_key(existing) or given or theirs


def _read_key(values: Values | None) -> Key | None:
    access, secret = (values or {}).get("accesskey"), (values or {}).get("secretkey")
    return Key(access, secret) if access and secret else None


def plan_s3(
    existing: Values | None, platform: Key, reader: Key | None, make: Callable[[], str] = make_password
) -> dict[str, str]:
    """Return all of the Secret `tenure-s3`: the platform's key, the model servers' as it is or a new one."""
    kept = {**(existing or {}), "accesskey": platform.access, "secretkey": platform.secret}
    if "AWS_ACCESS_KEY_ID" not in kept or "AWS_SECRET_ACCESS_KEY" not in kept:
        key = reader or Key(f"tenure-models-{make()[:12]}", make())
        kept["AWS_ACCESS_KEY_ID"], kept["AWS_SECRET_ACCESS_KEY"] = key.access, key.secret
    return kept


def plan_databases(existing: Values | None, make: Callable[[], str] = make_password) -> dict[str, str]:
    """Return all of the Secret `tenure-databases`."""
    kept = dict(existing or {})
    for name in ("ledger-password", "ledger-reader-password", "mlflow-password"):
        if name not in kept:
            kept[name] = make()
    kept.setdefault("ledger-url", f"postgresql+psycopg://ledger:{kept['ledger-password']}@{LEDGER}")
    kept.setdefault(
        "ledger-reader-url", f"postgresql+psycopg://reader:{kept['ledger-reader-password']}@{LEDGER}"
    )
    return kept


def plan_tracking(existing: Values | None, make: Callable[[], str] = make_password) -> dict[str, str]:
    """Return all of the Secret `tenure-tracking`."""
    kept = dict(existing or {})
    kept.setdefault("username", "tenure")
    kept.setdefault("password", make())
    kept.setdefault("flask-secret-key", make())
    return kept


def plan_detector(existing: Values | None, make: Callable[[], str] = make_password) -> dict[str, str]:
    """Return all of the Secret `tenure-detector`: what those know who report outcomes and transitions."""
    kept = dict(existing or {})
    kept.setdefault("token", make())
    return kept


def copy_for_runs(s3: Values, databases: Values, tracking: Values) -> list[Document]:
    """Return what the runs' own namespace gets: less than ours, and only to read the ledger."""
    return [
        make_secret(S3, PIPELINES_NAMESPACE, {name: s3[name] for name in ("accesskey", "secretkey")}),
        make_secret(DATABASES, PIPELINES_NAMESPACE, {"ledger-url": databases["ledger-reader-url"]}),
        make_secret(
            TRACKING, PIPELINES_NAMESPACE, {name: tracking[name] for name in ("username", "password")}
        ),
    ]


def describe_store(url: str, region: str) -> dict[str, str]:
    """Return the annotations by which KServe's storage initializer finds the object store."""
    address = urlsplit(url)
    secure = address.scheme == "https"
    return {
        "serving.kserve.io/s3-endpoint": address.netloc,
        "serving.kserve.io/s3-usehttps": "1" if secure else "0",
        "serving.kserve.io/s3-verifyssl": "1" if secure else "0",
        "serving.kserve.io/s3-region": region,
        "serving.kserve.io/s3-usevirtualbucket": "false",
    }


def make_secret(
    name: str,
    namespace: str,
    values: Values,
    annotations: Values | None = None,
    kind: str = "Opaque",
) -> Document:
    """Return a Secret as a document; `kind` is its type."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": NAMESPACE},
            **({"annotations": dict(annotations)} if annotations else {}),
        },
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in sorted(values.items())},
    }


def read_secret(document: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Return a Secret's values, or None when there is none."""
    if document is None:
        return None
    return {key: base64.b64decode(text).decode() for key, text in (document.get("data") or {}).items()}
