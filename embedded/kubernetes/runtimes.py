"""The ServingRuntimes of the manifests: how model servers are started, on the laptop as on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from embedded.errors import SpecError
from embedded.kubernetes.admission import CONTAINER
from embedded.kubernetes.resources import SERVING_RUNTIMES

MANIFEST = Path(__file__).resolve().parent.parent.parent / "manifests" / "base" / "servingruntime.yaml"


def load_runtimes(path: Path = MANIFEST) -> list[dict[str, Any]]:
    """Read the ServingRuntimes in a manifest.

    Raises:
        SpecError: The file cannot be read, or a runtime in it cannot be run here.
    """
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not YAML: {error}") from error
    runtimes = []
    for document in documents:
        if not isinstance(document, dict) or document.get("kind") != SERVING_RUNTIMES.kind:
            continue
        if document.get("apiVersion") != SERVING_RUNTIMES.api_version:
            raise SpecError(f"{path}: a ServingRuntime has apiVersion {SERVING_RUNTIMES.api_version}")
        containers = {entry.get("name"): entry for entry in document.get("spec", {}).get("containers", [])}
        if not containers.get(CONTAINER, {}).get("command"):
            raise SpecError(
                f"{path}: the container {CONTAINER} needs a command, for it is started without its image"
            )
        runtimes.append(document)
    if not runtimes:
        raise SpecError(f"{path} holds no ServingRuntime")
    return runtimes
