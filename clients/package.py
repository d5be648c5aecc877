"""A compiled pipeline as it is uploaded: the file as it lies there, but for the image of its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from clients.errors import RefusedError

_IMAGE = "image"


def read_package(path: Path, image: str | None = None) -> bytes:
    """Return the package, with `image` as the default of its parameter of that name.

    Whoever starts a run by hand (in the Kubeflow UI, with `kfp run create`) gets that image then, and another
    image is another package. A pipeline without such a parameter is not changed.

    Args:
        path: What kfp has compiled: YAML, one document or, with a part for Kubernetes, two.
        image: Image by digest or tag; None leaves the file as it is, byte for byte.

    Raises:
        RefusedError: There is no such file, or it is no compiled pipeline.
    """
    if not path.is_file():
        raise RefusedError(f"{path}: there is no such compiled pipeline; run `make compile`")
    content = path.read_bytes()
    if image is None:
        return content
    try:
        documents: list[Any] = list(yaml.safe_load_all(content))
        parameters = documents[0]["root"].get("inputDefinitions", {}).get("parameters", {})
    except (yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise RefusedError(f"{path}: is no compiled pipeline ({error})") from error
    if _IMAGE not in parameters:
        return content
    parameters[_IMAGE]["defaultValue"] = image
    return yaml.safe_dump_all(documents, encoding="utf-8", allow_unicode=True)
