"""Calls about pipelines and their versions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from embedded.runs.answers import COMMON_COLUMNS, Columns, answer_page
from embedded.runs.check import check_spec
from embedded.runs.clock import read_clock
from embedded.runs.errors import (
    BadRequestError,
    MissingError,
    PreconditionError,
    TooLargeError,
    UnsupportedError,
)
from embedded.runs.package import LARGEST_PACKAGE, read_package
from embedded.runs.records import Pipeline, Version
from embedded.runs.requests import PipelineBody, VersionReference, read_body
from embedded.runs.storage import Storage
from embedded.runs.view import show_pipeline, show_version

_PIPELINE_COLUMNS: Columns = {
    **COMMON_COLUMNS,
    "name": lambda record: record.name,
    "pipeline_id": lambda record: record.id,
}
_VERSION_COLUMNS: Columns = {
    **COMMON_COLUMNS,
    "name": lambda record: record.name,
    "pipeline_version_id": lambda record: record.id,
}


class PipelineCalls:
    """One method for each call; short work only, they run on the server's one event loop."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def choose_version(self, reference: VersionReference) -> Version:
        """Return the version that a run refers to.

        Raises:
            MissingError: There is no such pipeline, or it has no such version.
            BadRequestError: The pipeline has no version at all.
        """
        if reference.pipeline_version_id:
            return self._find_version(reference.pipeline_id, reference.pipeline_version_id)
        pipeline = self._storage.get(Pipeline, reference.pipeline_id)
        versions = self._storage.list_versions(pipeline.id)
        if not versions:
            raise BadRequestError(f"pipeline {pipeline.display_name!r} has no version; upload one")
        return versions[-1]

    async def create_pipeline(self, request: Request) -> Response:
        """CreatePipeline, without a version."""
        body = await read_body(request, PipelineBody)
        pipeline = _make_pipeline(body.display_name, body.name, body.description, body.tags)
        self._storage.add(pipeline)
        return JSONResponse(show_pipeline(pipeline))

    async def upload_pipeline(self, request: Request) -> Response:
        """UploadPipeline: the pipeline and its first version, of the same name."""
        spec = await _read_upload(request)
        query = request.query_params
        name = query.get("name") or query.get("display_name") or spec["pipeline_spec"]["pipelineInfo"]["name"]
        pipeline = _make_pipeline(query.get("display_name", ""), name, query.get("description", ""), {})
        self._storage.add(pipeline)
        self._storage.add(_make_version(pipeline, name, query, spec))
        return JSONResponse(show_pipeline(pipeline))

    async def upload_version(self, request: Request) -> Response:
        """UploadPipelineVersion."""
        query = request.query_params
        pipeline = self._storage.get(Pipeline, _need(query, "pipelineid"))
        spec = await _read_upload(request)
        version = _make_version(pipeline, query.get("name") or _need(query, "display_name"), query, spec)
        self._storage.add(version)
        return JSONResponse(show_version(version))

    async def list_pipelines(self, request: Request) -> Response:
        """ListPipelines."""
        items = self._storage.list_all(Pipeline)
        return answer_page(request, "pipelines", items, _PIPELINE_COLUMNS, show_pipeline)

    async def get_pipeline(self, request: Request) -> Response:
        """GetPipeline."""
        return JSONResponse(show_pipeline(self._storage.get(Pipeline, request.path_params["id"])))

    async def get_pipeline_by_name(self, request: Request) -> Response:
        """GetPipelineByName."""
        name = request.path_params["name"]
        for pipeline in self._storage.list_all(Pipeline):
            if pipeline.name == name:
                return JSONResponse(show_pipeline(pipeline))
        raise MissingError(f"there is no pipeline named {name!r}")

    async def delete_pipeline(self, request: Request) -> Response:
        """DeletePipeline; with versions only when `cascade` is true, as in Kubeflow."""
        identity = request.path_params["id"]
        pipeline = self._storage.get(Pipeline, identity)
        versions = self._storage.list_versions(identity)
        if versions and request.query_params.get("cascade", "").lower() != "true":
            raise PreconditionError(
                f"pipeline {pipeline.display_name!r} has {len(versions)} version(s), among them "
                f"{versions[-1].display_name!r}; delete them first, or pass cascade=true"
            )
        self._storage.delete(Pipeline, identity)
        return JSONResponse({})

    async def list_versions(self, request: Request) -> Response:
        """ListPipelineVersions."""
        identity = request.path_params["id"]
        self._storage.get(Pipeline, identity)
        items = self._storage.list_versions(identity)
        return answer_page(request, "pipeline_versions", items, _VERSION_COLUMNS, show_version, identity)

    async def get_version(self, request: Request) -> Response:
        """GetPipelineVersion."""
        return JSONResponse(show_version(self._find_version(**request.path_params)))

    async def delete_version(self, request: Request) -> Response:
        """DeletePipelineVersion."""
        self._storage.delete(Version, self._find_version(**request.path_params).id)
        return JSONResponse({})

    async def refuse_url(self, request: Request) -> Response:
        """Answer for creating a version from a URL."""
        raise UnsupportedError(
            "the laptop platform downloads no packages; upload the file (`kfp pipeline create`, "
            "`kfp pipeline create-version`, kfp.Client.upload_pipeline)"
        )

    async def refuse_change(self, request: Request) -> Response:
        """Answer for changing a pipeline or a version."""
        raise UnsupportedError("the laptop platform does not change pipelines; upload a new version")

    def _find_version(self, id: str, version: str) -> Version:
        found = self._storage.get(Version, version)
        if found.pipeline_id != id:
            raise MissingError(f"pipeline {id!r} has no version with the id {version!r}")
        return found


async def _read_upload(request: Request) -> dict[str, Any]:
    try:
        async with request.form(max_files=1, max_fields=10) as form:
            file = form.get("uploadfile")
            if not isinstance(file, UploadFile):
                raise BadRequestError("the form has no file `uploadfile`")
            data = await file.read()
    except MultiPartException as error:
        raise BadRequestError(f"the form is damaged: {error.message}") from error
    if len(data) > LARGEST_PACKAGE:
        raise TooLargeError(f"the package has {len(data)} bytes; at most {LARGEST_PACKAGE} are taken")
    spec = read_package(data)
    check_spec(spec["pipeline_spec"])
    return spec


def _make_pipeline(display_name: str, name: str, description: str, tags: dict[str, str]) -> Pipeline:
    title = display_name or name
    if not title.strip():
        raise BadRequestError("a pipeline needs a name")
    return Pipeline(
        id=str(uuid.uuid4()),
        display_name=title,
        name=name or title,
        description=description,
        tags=tags,
        created_at=read_clock(),
    )


def _make_version(pipeline: Pipeline, name: str, query: Mapping[str, str], spec: dict[str, Any]) -> Version:
    if not name.strip():
        raise BadRequestError("a pipeline version needs a name")
    return Version(
        id=str(uuid.uuid4()),
        pipeline_id=pipeline.id,
        display_name=query.get("display_name") or name,
        name=name,
        description=query.get("description", ""),
        code_source_url=query.get("code_source_url", ""),
        created_at=read_clock(),
        spec=spec,
    )


def _need(query: Mapping[str, str], name: str) -> str:
    value = query.get(name, "")
    if not value:
        raise BadRequestError(f"the query parameter {name!r} is missing")
    return value
