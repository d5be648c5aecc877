"""The paths of the API: from an HTTP request to the registry and back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from embedded.kubernetes import errors, protobuf
from embedded.kubernetes.discovery import JSON_PATCH, MERGE_PATCH
from embedded.kubernetes.errors import ApiError
from embedded.kubernetes.patches import apply_json_patch, apply_merge_patch
from embedded.kubernetes.registry import Registry
from embedded.kubernetes.resources import NAMESPACES, Resource, find_resource
from embedded.kubernetes.selectors import compile_selectors
from embedded.kubernetes.tables import render_table, wants_table
from embedded.kubernetes.watch import DEFAULT_SECONDS, Watch, WatchOptions

Document = dict[str, Any]

MAX_BODY_BYTES = 3 * 1024 * 1024
_JSON = "application/json"
_YAML = "application/yaml"


@dataclass(frozen=True)
class Target:
    """What a path names: a kind, or one object of it, or that object's status."""

    resource: Resource
    namespace: str | None
    name: str | None
    status: bool


def parse_path(path: str) -> Target:
    """Read /api/v1/... and /apis/GROUP/VERSION/... .

    Raises:
        ApiError: 404 for what is not served.
    """
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise errors.unknown_path(path)
    namespace = None
    if rest[0] == "namespaces" and len(rest) >= 3 and not (group == "" and rest[2] in ("status", "finalize")):
        namespace, rest = rest[1], rest[2:]
    resource = find_resource(group, version, rest[0])
    if resource is None or len(rest) > 3 or "" in rest or (namespace is not None and not resource.namespaced):
        raise errors.unknown_path(path)
    if resource.namespaced and namespace is None and len(rest) > 1:
        raise errors.unknown_path(path)
    status = len(rest) == 3
    if status and (rest[2] != "status" or not resource.has_status):
        raise errors.unknown_path(path)
    return Target(resource, namespace, rest[1] if len(rest) > 1 else None, status)


class Routes:
    """Handles every request for objects.

    Args:
        registry: The objects.
        stopping: Set when the server is about to end: watches end too.
    """

    def __init__(self, registry: Registry, stopping: asyncio.Event) -> None:
        self._registry = registry
        self._stopping = stopping
        self._for_one: dict[str, tuple[str, Callable[[Request, Target], Awaitable[Response]]]] = {
            "GET": ("get", self._get),
            "PUT": ("update", self._replace),
            "PATCH": ("patch", self._patch),
            "DELETE": ("delete", self._delete),
        }
        self._for_many: dict[str, tuple[str, Callable[[Request, Target], Awaitable[Response]]]] = {
            "GET": ("list", self._list),
            "POST": ("create", self._create),
            "DELETE": ("deletecollection", self._delete_all),
        }

    async def handle(self, request: Request) -> Response:
        """Answer a request.

        Raises:
            ApiError: For whatever is not to be.
        """
        target = parse_path(request.url.path)
        method = "GET" if request.method == "HEAD" else request.method
        verb, handler = (self._for_one if target.name else self._for_many).get(method, ("", None))
        if handler is None or verb not in target.resource.verbs:
            raise errors.method_not_allowed(request.method, target.resource.key)
        if target.status and method not in ("GET", "PUT", "PATCH"):
            raise errors.method_not_allowed(request.method, f"{target.resource.key}/status")
        return await handler(request, target)

    async def _get(self, request: Request, target: Target) -> Response:
        body = self._registry.get(target.resource, target.namespace or "", target.name or "")
        table = _read_table(request)
        if table is not None:
            version = body["metadata"]["resourceVersion"]
            return JSONResponse(render_table(target.resource, [body], version, table))
        return JSONResponse(body)

    async def _list(self, request: Request, target: Target) -> Response:
        query = request.query_params
        matches = compile_selectors(target.resource, query.get("labelSelector"), query.get("fieldSelector"))
        if _is_true(query.get("watch")):
            return self._watch(request, target, matches)
        bodies, version = self._registry.storage.list_all(target.resource.key, target.namespace)
        bodies = [body for body in bodies if matches(body)]
        table = _read_table(request)
        if table is not None:
            return JSONResponse(render_table(target.resource, bodies, str(version), table))
        return JSONResponse(
            {
                "kind": f"{target.resource.kind}List",
                "apiVersion": target.resource.api_version,
                "metadata": {"resourceVersion": str(version)},
                "items": bodies,
            }
        )

    def _watch(self, request: Request, target: Target, matches: Callable[[Document], bool]) -> Response:
        query = request.query_params
        version = query.get("resourceVersion", "")
        if not version.isdigit() and version != "":
            raise errors.bad_request(f"resourceVersion {version!r} is not one of this server's")
        seconds = query.get("timeoutSeconds", "")
        if not seconds.isdigit() and seconds != "":
            raise errors.bad_request(f"timeoutSeconds {seconds!r} is not a whole number")
        options = WatchOptions(
            resource=target.resource,
            namespace=target.namespace,
            matches=matches,
            version=int(version) if version not in ("", "0") else None,
            initial=_is_true(query.get("sendInitialEvents")),
            bookmarks=_is_true(query.get("allowWatchBookmarks")),
            seconds=float(seconds) if seconds else DEFAULT_SECONDS,
            table=_read_table(request),
        )
        stream = Watch(self._registry.storage, options).stream(self._stopping)
        return StreamingResponse(stream, media_type=_JSON)

    async def _create(self, request: Request, target: Target) -> Response:
        body = await _read_body(request, target.resource)
        dry_run = _read_dry_run(request)
        if target.resource.namespaced and target.namespace is None:
            raise errors.method_not_allowed("POST", f"{target.resource.key} without a namespace")
        created = self._registry.create(target.resource, target.namespace or "", body, dry_run)
        return JSONResponse(created, status_code=201)

    async def _replace(self, request: Request, target: Target) -> Response:
        body = await _read_body(request, target.resource)

        def edit(_: Document) -> Document:
            return body

        return self._change(request, target, edit, complete=True)

    async def _patch(self, request: Request, target: Target) -> Response:
        content_type = _read_content_type(request)
        if content_type == MERGE_PATCH:
            patch = await _read_json(request)
            if not isinstance(patch, dict):
                raise errors.bad_request("a merge patch is a JSON object")

            def edit(body: Document) -> Document:
                return _keep_object(apply_merge_patch(body, patch))

        elif content_type == JSON_PATCH:
            patch = await _read_json(request)

            def edit(body: Document) -> Document:
                return _keep_object(apply_json_patch(body, patch))

        else:
            why = ""
            if content_type.startswith("application/apply-patch"):
                why = (
                    " (there is no server-side apply on the laptop platform: use `kubectl apply` without it)"
                )
            elif content_type == "application/strategic-merge-patch+json":
                why = " (as for any custom resource: use `kubectl patch --type merge`)"
            raise errors.unsupported_media(content_type, (MERGE_PATCH, JSON_PATCH), why)
        return self._change(request, target, edit)

    def _change(
        self,
        request: Request,
        target: Target,
        edit: Callable[[Document], Document],
        complete: bool = False,
    ) -> Response:
        changed = self._registry.change(
            target.resource,
            target.namespace or "",
            target.name or "",
            edit,
            status=target.status,
            complete=complete,
            dry_run=_read_dry_run(request),
        )
        return JSONResponse(changed)

    async def _delete(self, request: Request, target: Target) -> Response:
        resource, namespace, name = target.resource, target.namespace or "", target.name or ""
        options = await _read_delete_options(request)
        removed = self._registry.delete(
            resource,
            namespace,
            name,
            options.get("preconditions"),
            orphan=_is_orphaning(request, options),
            dry_run=_read_dry_run(request, options),
        )
        if removed["metadata"].get("finalizers"):
            return JSONResponse(removed)
        details = {"name": name, "group": resource.group, "kind": resource.plural}
        return JSONResponse(
            {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Success",
                "details": details | {"uid": removed["metadata"]["uid"]},
            }
        )

    async def _delete_all(self, request: Request, target: Target) -> Response:
        resource, query = target.resource, request.query_params
        if resource.namespaced and target.namespace is None:
            raise errors.method_not_allowed("DELETE", f"{resource.key} without a namespace")
        options = await _read_delete_options(request)
        matches = compile_selectors(resource, query.get("labelSelector"), query.get("fieldSelector"))
        with self._registry.storage.transaction():
            bodies, version = self._registry.storage.list_all(resource.key, target.namespace)
            removed = [
                self._registry.delete(
                    resource,
                    target.namespace or "",
                    body["metadata"]["name"],
                    orphan=_is_orphaning(request, options),
                    dry_run=_read_dry_run(request, options),
                )
                for body in bodies
                if matches(body)
            ]
        return JSONResponse(
            {
                "kind": f"{resource.kind}List",
                "apiVersion": resource.api_version,
                "metadata": {"resourceVersion": str(version)},
                "items": removed,
            }
        )


def _is_true(value: str | None) -> bool:
    return value in ("true", "1", "True", "t", "T", "TRUE")


def _read_table(request: Request) -> str | None:
    """Return `includeObject` when the client wants a Table, else None."""
    if not wants_table(request.headers.get("accept", "")):
        return None
    return request.query_params.get("includeObject") or "Metadata"


def _read_dry_run(request: Request, options: Document | None = None) -> bool:
    values = request.query_params.getlist("dryRun") or (options or {}).get("dryRun") or []
    if any(value != "All" for value in values):
        raise errors.bad_request(f"dryRun {values!r}: the only value is All")
    return bool(values)


def _is_orphaning(request: Request, options: Document) -> bool:
    policy = request.query_params.get("propagationPolicy") or options.get("propagationPolicy")
    return policy == "Orphan"


def _read_content_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def _read_bytes(request: Request) -> bytes:
    """Return the request's body.

    Raises:
        ApiError: 413 when it is longer than an object may be.
    """
    chunks = bytearray()
    async for chunk in request.stream():
        chunks += chunk
        if len(chunks) > MAX_BODY_BYTES:
            message = f"the request's body has more than {MAX_BODY_BYTES} bytes"
            raise ApiError(413, "RequestEntityTooLarge", message)
    return bytes(chunks)


async def _read_json(request: Request) -> Any:
    content = await _read_bytes(request)
    try:
        return json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.bad_request(f"the request's body is not JSON: {error}") from error


async def _read_body(request: Request, resource: Resource) -> Document:
    """Return the object in a request's body, JSON or YAML."""
    content_type = _read_content_type(request)
    if content_type in (_JSON, ""):
        body = await _read_json(request)
    elif content_type == _YAML:
        content = await _read_bytes(request)
        try:
            # Through JSON: YAML has dates and other things that an object may not hold.
            body = json.loads(json.dumps(yaml.safe_load(content)))
        except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
            raise errors.bad_request(f"the request's body is not YAML: {error}") from error
    elif content_type == protobuf.MEDIA_TYPE and resource is NAMESPACES:
        body = protobuf.decode_namespace(await _read_bytes(request))
    else:
        raise errors.unsupported_media(content_type, (_JSON, _YAML))
    if not isinstance(body, dict):
        raise errors.bad_request("the request's body is not an object")
    return body


async def _read_delete_options(request: Request) -> Document:
    content = await _read_bytes(request)
    if not content:
        return {}
    if _read_content_type(request) not in (_JSON, ""):
        raise errors.unsupported_media(_read_content_type(request), (_JSON,))
    try:
        options = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.bad_request(f"the request's body is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise errors.bad_request("DeleteOptions are an object")
    return options


def _keep_object(body: Any) -> Document:
    if not isinstance(body, dict):
        raise errors.bad_request("the patch would turn the object into something else")
    return body
