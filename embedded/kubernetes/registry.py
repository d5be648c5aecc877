"""Creating, changing and deleting objects by the rules of the Kubernetes API.

The HTTP routes and the controllers of this process work through one registry.
"""

from __future__ import annotations

import secrets
import string
import uuid
from collections.abc import Callable, Mapping, Sequence

from embedded.kubernetes import errors
from embedded.kubernetes.admission import CHECKS, Surroundings
from embedded.kubernetes.errors import Cause
from embedded.kubernetes.events import DEFAULT_NAMESPACE
from embedded.kubernetes.objects import (
    SERVER_FIELDS,
    check_metadata,
    copy_object,
    format_now,
    merge_object,
    prepare_object,
)
from embedded.kubernetes.resources import (
    INFERENCE_SERVICES,
    NAMESPACES,
    RESOURCES,
    SERVING_RUNTIMES,
    Resource,
)
from embedded.kubernetes.storage import Document, Storage


class Registry:
    """The objects, guarded by the API's rules. Any thread may call.

    Args:
        storage: Where they are kept.
        runtimes: ServingRuntimes, shown read-only in every namespace.
    """

    def __init__(self, storage: Storage, runtimes: Sequence[Document] = ()) -> None:
        self.storage = storage
        self.runtimes = runtimes
        with storage.transaction():
            if storage.get(NAMESPACES.key, "", DEFAULT_NAMESPACE) is None:
                self._store_namespace(DEFAULT_NAMESPACE)
            for namespace in storage.list_all(NAMESPACES.key)[0]:
                self._offer_runtimes(namespace["metadata"]["name"])

    def get(self, resource: Resource, namespace: str, name: str) -> Document:
        """Return one object.

        Raises:
            ApiError: 404.
        """
        body = self.storage.get(resource.key, namespace, name)
        if body is None:
            raise errors.not_found(resource.group, resource.plural, name)
        return body

    def create(self, resource: Resource, namespace: str, body: Document, dry_run: bool = False) -> Document:
        """Store a new object.

        Raises:
            ApiError: 404 for the namespace, 409 when the name is taken, 422 naming wrong fields.
        """
        body = prepare_object(resource, namespace, body)
        metadata = body["metadata"]
        if "name" not in metadata and metadata.get("generateName"):
            metadata["name"] = metadata["generateName"] + _make_suffix()
        name = metadata.get("name", "")
        if metadata.get("resourceVersion"):
            raise errors.bad_request("resourceVersion should not be set on objects to be created")
        for field in SERVER_FIELDS:
            metadata.pop(field, None)
        with self.storage.transaction():
            if resource.namespaced and self.storage.get(NAMESPACES.key, "", namespace) is None:
                raise errors.not_found("", NAMESPACES.plural, namespace)
            self._check(resource, body, None)
            if self.storage.get(resource.key, namespace, name) is not None:
                raise errors.already_exists(resource.group, resource.plural, name)
            body.pop("status", None)
            metadata.update(uid=str(uuid.uuid4()), creationTimestamp=format_now(), generation=1)
            if resource is NAMESPACES:
                body |= {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
            if dry_run:
                return body
            stored = self.storage.put(resource.key, body)
            if resource is NAMESPACES:
                self._offer_runtimes(name)
            return stored

    def change(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        edit: Callable[[Document], Document],
        *,
        status: bool = False,
        complete: bool = False,
        dry_run: bool = False,
    ) -> Document:
        """Replace an object by what `edit` makes of it.

        Args:
            resource: Its kind.
            namespace: Its namespace, empty for kinds without.
            name: Its name.
            edit: Gets a copy, returns the wanted object; a resourceVersion in it must be the current one.
            status: Change only its status, and nothing but that.
            complete: `edit` comes from a client that replaces all: the resourceVersion must be there.
            dry_run: Check and answer, but store nothing.

        Raises:
            ApiError: 404, 409 when it was changed meanwhile, 422 naming wrong fields.
        """
        with self.storage.transaction():
            old = self.get(resource, namespace, name)
            wanted = prepare_object(resource, namespace, edit(copy_object(old)))
            metadata, current = wanted["metadata"], old["metadata"]
            if metadata.setdefault("name", name) != name:
                raise errors.bad_request(
                    f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
                )
            if complete and not metadata.get("resourceVersion"):
                message = "Invalid value: 0: must be specified for an update"
                causes = [Cause("metadata.resourceVersion", message)]
                raise errors.invalid(resource.group, resource.plural, resource.kind, name, causes)
            if metadata.get("resourceVersion") not in (None, current["resourceVersion"]):
                raise errors.conflict(resource.group, resource.plural, name)
            if metadata.get("uid") not in (None, current["uid"]):
                why = (
                    f"Precondition failed: UID {metadata['uid']} is not that of the object ({current['uid']})"
                )
                raise errors.conflict(resource.group, resource.plural, name, why)
            new = merge_object(old, wanted, status)
            if new == old:
                return old
            if not status:
                self._check(resource, new, old)
                if new.get("spec") != old.get("spec"):
                    new["metadata"]["generation"] = current.get("generation", 1) + 1
            if dry_run:
                return new
            if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
                return self._remove(resource, new, orphan=False)
            return self.storage.put(resource.key, new)

    def set_status(self, resource: Resource, namespace: str, name: str, status: Document) -> bool:
        """Write an object's status for a controller; nothing happens when it is gone or says so already.

        Returns:
            Whether something changed.
        """
        with self.storage.transaction():
            old = self.storage.get(resource.key, namespace, name)
            if old is None or old.get("status") == status:
                return False
            self.storage.put(resource.key, {**old, "status": status})
            return True

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        preconditions: Mapping[str, str] | None = None,
        *,
        orphan: bool = False,
        dry_run: bool = False,
    ) -> Document:
        """Delete an object, and those that it owns unless `orphan`; with finalizers it is only marked.

        Returns:
            The object as it was last; with a deletionTimestamp when it is only marked.

        Raises:
            ApiError: 404, 403 for the default namespace, 409 when a precondition does not hold.
        """
        with self.storage.transaction():
            body = self.get(resource, namespace, name)
            metadata = body["metadata"]
            for field in ("uid", "resourceVersion"):
                wanted = (preconditions or {}).get(field)
                if wanted is not None and wanted != metadata[field]:
                    why = f"Precondition failed: {field} is {metadata[field]}, not {wanted}"
                    raise errors.conflict(resource.group, resource.plural, name, why)
            if resource is NAMESPACES and name == DEFAULT_NAMESPACE:
                raise errors.forbidden("", NAMESPACES.plural, name, "this namespace may not be deleted")
            if dry_run:
                return body
            if metadata.get("finalizers"):
                if metadata.get("deletionTimestamp"):
                    return body
                marked = {**body, "metadata": {**metadata, "deletionTimestamp": format_now()}}
                return self.storage.put(resource.key, marked)
            return self._remove(resource, body, orphan)

    def _check(self, resource: Resource, body: Document, old: Document | None) -> None:
        name = body["metadata"].get("name", "")
        causes = check_metadata(body["metadata"])
        check = CHECKS.get(resource.key)
        if check is not None:
            causes += check(body, old, self._look_around(resource, body["metadata"]))
        if causes:
            raise errors.invalid(resource.group, resource.plural, resource.kind, name, causes)

    def _look_around(self, resource: Resource, metadata: Document) -> Surroundings:
        if resource is not INFERENCE_SERVICES:
            return Surroundings()
        others = self.storage.list_all(resource.key, metadata["namespace"])[0]
        return Surroundings(
            runtimes=self.runtimes,
            others=[other for other in others if other["metadata"]["name"] != metadata.get("name")],
        )

    def _remove(self, resource: Resource, body: Document, orphan: bool) -> Document:
        metadata = body["metadata"]
        name = metadata["name"]
        if resource is NAMESPACES:
            for inner in RESOURCES:
                if inner.namespaced:
                    for entry in self.storage.list_all(inner.key, name)[0]:
                        self.storage.delete(inner.key, name, entry["metadata"]["name"])
        removed = self.storage.delete(resource.key, metadata.get("namespace", ""), name)
        if not orphan:
            self._remove_dependents(metadata["uid"], metadata.get("namespace", ""))
        return removed or body

    def _remove_dependents(self, uid: str, namespace: str) -> None:
        """Delete what only the removed object owned, as the cluster's garbage collector does."""
        for resource in RESOURCES:
            if "delete" not in resource.verbs or not resource.namespaced:
                continue
            for entry in self.storage.list_all(resource.key, namespace)[0]:
                owners = entry["metadata"].get("ownerReferences") or []
                if owners and all(owner.get("uid") == uid for owner in owners):
                    self.delete(resource, namespace, entry["metadata"]["name"])

    def _store_namespace(self, name: str) -> None:
        self.storage.put(
            NAMESPACES.key,
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": name,
                    "uid": str(uuid.uuid4()),
                    "creationTimestamp": format_now(),
                    "labels": {"kubernetes.io/metadata.name": name},
                },
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            },
        )

    def _offer_runtimes(self, namespace: str) -> None:
        """Show the ServingRuntimes of the manifests in a namespace, as they are now."""
        wanted = {runtime["metadata"]["name"]: runtime for runtime in self.runtimes}
        shown = {
            entry["metadata"]["name"]: entry
            for entry in self.storage.list_all(SERVING_RUNTIMES.key, namespace)[0]
        }
        for name in shown.keys() - wanted.keys():
            self.storage.delete(SERVING_RUNTIMES.key, namespace, name)
        for name, runtime in wanted.items():
            old = shown.get(name)
            if old is not None and old["spec"] == runtime["spec"]:
                continue
            metadata = {"name": name, "namespace": namespace}
            for field in ("labels", "annotations"):
                if runtime["metadata"].get(field):
                    metadata[field] = runtime["metadata"][field]
            made: Document = {"uid": str(uuid.uuid4()), "creationTimestamp": format_now(), "generation": 1}
            if old is not None:
                made = {key: old["metadata"][key] for key in made}
                made["generation"] = made["generation"] + 1
            self.storage.put(SERVING_RUNTIMES.key, {**runtime, "metadata": {**metadata, **made}})


def _make_suffix() -> str:
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(5))
