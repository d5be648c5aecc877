"""Reading an uploaded pipeline package: YAML, or a .zip or .tar.gz with one YAML file."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

import yaml

from embedded.runs.errors import BadRequestError

LARGEST_PACKAGE = 32 * 1024 * 1024
_ZIP = b"PK\x03\x04"
_GZIP = b"\x1f\x8b"


def read_package(data: bytes) -> dict[str, Any]:
    """Return the pipeline of a package as `split_spec` takes it.

    Raises:
        BadRequestError: The package holds no compiled pipeline.
    """
    if data.startswith(_ZIP):
        data = _read_zip(data)
    elif data.startswith(_GZIP):
        data = _read_tar(data)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        documents = [doc for doc in yaml.load_all(data, Loader=loader) if doc is not None]
        # The IR is JSON in YAML's dress; dates, sets and self-references would not reach the runner as
        # written.
        documents = json.loads(json.dumps(documents))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRequestError(f"the pipeline is not readable as YAML: {error}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRequestError(f"the pipeline holds a value that JSON cannot carry: {error}") from error
    if not documents or not all(isinstance(document, dict) for document in documents):
        raise BadRequestError("the package holds no pipeline; upload the YAML that `kfp dsl compile` writes")
    pipeline, platform = documents[0], documents[1:]
    if not platform:
        return {"pipeline_spec": pipeline}
    return {"pipeline_spec": pipeline, "platform_spec": platform[0]}


def split_spec(document: Any) -> dict[str, Any]:
    """Bring a run's `pipeline_spec` field to one form: {"pipeline_spec": ..., "platform_spec"?: ...}.

    `kfp.Client` sends the bare IR, or both under their names when there is a platform spec.

    Raises:
        BadRequestError: It is neither.
    """
    if not isinstance(document, dict):
        raise BadRequestError("pipeline_spec must be an object: the compiled pipeline")
    if "root" in document:
        return {"pipeline_spec": document}
    if isinstance(document.get("pipeline_spec"), dict):
        return document
    raise BadRequestError(
        "pipeline_spec has no root; submit the YAML that `kfp dsl compile` writes (schema 2.1)"
    )


def _read_zip(data: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            name = _choose([entry.filename for entry in archive.infolist() if not entry.is_dir()])
            if archive.getinfo(name).file_size > LARGEST_PACKAGE:
                raise BadRequestError(f"{name!r} in the package is larger than {LARGEST_PACKAGE} bytes")
            return archive.read(name)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        raise BadRequestError(f"the .zip package is damaged or encrypted: {error}") from error


def _read_tar(data: bytes) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            members = {member.name: member for member in archive if member.isfile()}
            member = members[_choose(members)]
            if member.size > LARGEST_PACKAGE:
                raise BadRequestError(
                    f"{member.name!r} in the package is larger than {LARGEST_PACKAGE} bytes"
                )
            file = archive.extractfile(member)
            if file is None:
                raise BadRequestError(f"{member.name!r} in the package is not a file")
            return file.read()
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise BadRequestError(f"the .tar.gz package is damaged: {error}") from error


def _choose(names: Iterable[str]) -> str:
    found = [name for name in names if name.endswith((".yaml", ".yml"))]
    if "pipeline.yaml" in found:
        return "pipeline.yaml"
    if len(found) == 1:
        return found[0]
    raise BadRequestError(f"the package must hold pipeline.yaml or exactly one YAML file, not {found}")
