"""What the API says about itself: versions, groups, resources, OpenAPI v3."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

from embedded.kubernetes.resources import RESOURCES, Resource

Document = dict[str, Any]

# kubectl decides by it what it may ask for; 1.34 is what the cluster overlays are tested on.
VERSION: Document = {
    "major": "1",
    "minor": "34",
    "gitVersion": "v1.34.0+tenure",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "laptop",
}
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


def describe_versions() -> Document:
    """Return the answer to /api."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def describe_groups() -> Document:
    """Return the answer to /apis."""
    groups = [describe_group(name) for name in dict.fromkeys(entry.group for entry in RESOURCES) if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def describe_group(group: str) -> Document | None:
    """Return the answer to /apis/GROUP; None for a group that is not served."""
    versions = sorted({entry.version for entry in RESOURCES if entry.group == group}, reverse=True)
    if not versions or not group:
        return None
    entries = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group,
        "versions": entries,
        "preferredVersion": entries[0],
    }


def describe_resources(group: str, version: str) -> Document | None:
    """Return the answer to /api/v1 or /apis/GROUP/VERSION; None when it is not served."""
    served = _list_served(group, version)
    if not served:
        return None
    entries = []
    for resource in served:
        entry = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": sorted(resource.verbs),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        entries.append(entry)
        if resource.has_status:
            entries.append(
                {
                    "name": f"{resource.plural}/status",
                    "singularName": "",
                    "namespaced": resource.namespaced,
                    "kind": resource.kind,
                    "verbs": ["get", "patch", "update"],
                }
            )
    group_version = f"{group}/{version}" if group else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": entries,
    }


def describe_openapi_paths() -> Document:
    """Return the answer to /openapi/v3: where each group's document is, by a hash of its content."""
    paths = {}
    for group, version in dict.fromkeys((entry.group, entry.version) for entry in RESOURCES):
        path = _make_prefix(group, version).lstrip("/")
        digest = hashlib.sha256(repr(describe_openapi(group, version)).encode()).hexdigest()
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest[:32].upper()}"}
    return {"paths": paths}


@lru_cache(maxsize=16)
def describe_openapi(group: str, version: str) -> Document | None:
    """Return the OpenAPI v3 document of one group and version; None when it is not served."""
    served = _list_served(group, version)
    if not served:
        return None
    schemas: Document = {}
    paths: Document = {}
    for resource in served:
        name = _name_schema(resource)
        schema = resource.schema.model_json_schema(ref_template=f"#/components/schemas/{name}.{{model}}")
        for inner, definition in schema.pop("$defs", {}).items():
            schemas[f"{name}.{inner}"] = definition
        schema["x-kubernetes-group-version-kind"] = [_name_kind(resource)]
        schemas[name] = schema
        paths |= _describe_paths(resource, name)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Tenure's laptop platform", "version": VERSION["gitVersion"]},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _list_served(group: str, version: str) -> list[Resource]:
    return [entry for entry in RESOURCES if (entry.group, entry.version) == (group, version)]


def _make_prefix(group: str, version: str) -> str:
    return f"/apis/{group}/{version}" if group else f"/api/{version}"


def _name_kind(resource: Resource) -> Document:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _name_schema(resource: Resource) -> str:
    parts = [*reversed((resource.group or "core.api.k8s.io").split(".")), resource.version, resource.kind]
    return ".".join(parts)


def _describe_paths(resource: Resource, schema: str) -> Document:
    """Describe the verbs of one kind; kubectl looks for `fieldValidation` and `dryRun` in them."""
    scope = "/namespaces/{namespace}" if resource.namespaced else ""
    collection = f"{_make_prefix(resource.group, resource.version)}{scope}/{resource.plural}"
    reference = {"$ref": f"#/components/schemas/{schema}"}
    answer = {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}}
    written = [
        {"name": name, "in": "query", "schema": {"type": "string"}}
        for name in ("dryRun", "fieldManager", "fieldValidation")
    ]

    def describe(verb: str, action: str, media: tuple[str, ...] = ()) -> Document:
        operation: Document = {
            "operationId": f"{verb}{resource.kind}",
            "responses": answer,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": _name_kind(resource),
        }
        if media:
            operation["parameters"] = written
            operation["requestBody"] = {"content": {entry: {"schema": reference} for entry in media}}
        return operation

    one: Document = {"get": describe("read", "get")}
    many: Document = {"get": describe("list", "list")}
    if "create" in resource.verbs:
        many["post"] = describe("create", "post", ("application/json", "application/yaml"))
    if "update" in resource.verbs:
        one["put"] = describe("replace", "put", ("application/json", "application/yaml"))
        one["patch"] = describe("patch", "patch", (MERGE_PATCH, JSON_PATCH))
    if "delete" in resource.verbs:
        one["delete"] = describe("delete", "delete")
    return {collection: many, f"{collection}/{{name}}": one}
