"""The generated kustomization: an overlay of manifests/ with this site's images and settings."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from installer.documents import mirror_image
from installer.options import NAMESPACE, PIPELINES_NAMESPACE, ROOT, Options
from installer.state import fingerprint

Document = dict[str, Any]

SETTINGS = "tenure-settings"
IMAGE_NOTE = "tenure.dev/images"
SETTINGS_NOTE = "tenure.dev/settings"


def choose_settings(options: Options, components_image: str, gateway_url: str | None) -> dict[str, str]:
    """Return the settings that this installation decides; the base has the others."""
    settings = {
        "TENURE_COMPONENTS_IMAGE": components_image,
        "TENURE_GATEWAY": options.gateway,
        "TENURE_INGRESS_DOMAIN": options.ingress_domain,
        "TENURE_RUNS_URL": options.runs_url,
        "TENURE_S3_BUCKET": options.s3_bucket,
        "TENURE_S3_REGION": options.s3_region,
        "TENURE_S3_URL": options.s3_url,
    }
    if gateway_url:
        settings["TENURE_GATEWAY_URL"] = gateway_url
    return settings


def choose_images(references: Mapping[str, str], options: Options) -> list[dict[str, str]]:
    """Return kustomize's `images` entries: ours by digest or tag, PostgreSQL as pinned or from the mirror."""
    postgres = options.versions["POSTGRES_IMAGE"]
    if options.mirror:
        postgres = mirror_image(postgres, options.mirror)
    return [make_entry(name, image) for name, image in {**references, "postgres": postgres}.items()]


def make_entry(name: str, image: str) -> dict[str, str]:
    """Return kustomize's entry that puts an image in the place of the one called `name`."""
    whole, _, digest = image.partition("@")
    directory, slash, last = whole.rpartition("/")
    base, _, tag = last.partition(":")
    entry = {"name": name, "newName": f"{directory}{slash}{base}"}
    if digest:
        return {**entry, "digest": digest}
    return {**entry, "newTag": tag} if tag else entry


def write_kustomization(
    directory: Path, options: Options, references: Mapping[str, str], settings: Mapping[str, str]
) -> Path:
    """Write the kustomization and return its directory: `kubectl kustomize` shows all of it."""
    base = ROOT / "manifests" / "overlays" / options.overlay
    directory.mkdir(parents=True, exist_ok=True)
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(base, directory)],
        "images": choose_images(references, options),
        "configMapGenerator": [
            {
                "name": SETTINGS,
                "namespace": NAMESPACE,
                "behavior": "merge",
                "literals": [f"{key}={value}" for key, value in sorted(settings.items())],
                "options": {"disableNameSuffixHash": True},
            }
        ],
    }
    # JSON is YAML in which a tag of digits and one e is no number.
    text = "# Written by `make up`; changes are lost.\n" + json.dumps(document, indent=1, ensure_ascii=False)
    (directory / "kustomization.yaml").write_text(f"{text}\n")
    return directory


def stamp(documents: Iterable[Document], ids: Mapping[str, str], secrets_digest: str) -> list[Document]:
    """Note images and settings in the pod templates, so that pods are renewed when these change.

    A tag of uncommitted changes stays the same while its image does not; settings have a name without hash.
    """
    changed = [copy.deepcopy(one) for one in documents]
    settings: dict[str, str] = next((one.get("data", {}) for one in changed if _is_settings(one)), {})
    for one in changed:
        if one["kind"] not in ("Deployment", "StatefulSet"):
            continue
        template = one["spec"]["template"]
        text = json.dumps(template)
        notes = template.setdefault("metadata", {}).setdefault("annotations", {})
        used = {
            name: ids[name]
            for name in ids
            if f'"{name}:' in text or f"/{name}:" in text or f"/{name}@" in text
        }
        if used:
            notes[IMAGE_NOTE] = fingerprint(used)[:16]
        if SETTINGS in text:
            notes[SETTINGS_NOTE] = fingerprint(settings, secrets_digest)[:16]
    return changed


def copy_settings(documents: Iterable[Document]) -> Document | None:
    """Return the settings for the namespace that runs live in."""
    for one in documents:
        if _is_settings(one):
            return {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": SETTINGS,
                    "namespace": PIPELINES_NAMESPACE,
                    "labels": {"app.kubernetes.io/part-of": NAMESPACE},
                },
                "data": dict(one["data"]),
            }
    return None


def _is_settings(document: Mapping[str, Any]) -> bool:
    return bool(document["kind"] == "ConfigMap" and document["metadata"]["name"] == SETTINGS)
