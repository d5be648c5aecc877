"""What an existing KServe must be told for roll-outs: to keep our annotations off the model servers' pods.

KServe copies an InferenceService's annotations to its pods. Those of a roll-out change all the time, and
each change would start the model servers anew.
"""

from __future__ import annotations

import json
from typing import Any

from clients.names import OWN_ANNOTATIONS
from installer.errors import InstallError
from installer.site import Site

NAMESPACE, CONFIGURATION, KEY = "kserve", "inferenceservice-config", "inferenceService"
LIST = "serviceAnnotationDisallowedList"


def add_annotations(text: str) -> str | None:
    """Add ours to the list of annotations that KServe keeps to itself.

    Args:
        text: The value of `inferenceService` in KServe's ConfigMap, JSON.

    Returns:
        The new value; None when they are all there.

    Raises:
        InstallError: It is not a JSON object.
    """
    try:
        document: Any = json.loads(text or "{}")
        known = list(document.get(LIST, ()))
    except (ValueError, AttributeError, TypeError) as error:
        raise InstallError(
            f"ConfigMap {NAMESPACE}/{CONFIGURATION}: `{KEY}` is not a JSON object ({error}); apply KServe's "
            "manifests again"
        ) from error
    missing = [name for name in OWN_ANNOTATIONS if name not in known]
    if not missing:
        return None
    return json.dumps({**document, LIST: [*known, *missing]}, indent=1)


def settle(site: Site) -> str:
    """See that KServe keeps our annotations to itself, or tell it to when that is allowed.

    Raises:
        InstallError: It does not, and nobody has allowed the change.
    """
    found = site.kubectl.get("configmap", CONFIGURATION, NAMESPACE)
    if found is None:
        raise InstallError(f"there is no ConfigMap {NAMESPACE}/{CONFIGURATION}: is KServe installed there?")
    changed = add_annotations(found.get("data", {}).get(KEY, ""))
    if changed is None:
        return "keeps our annotations off the pods"
    if not site.options.edit_kserve:
        raise InstallError(
            f"KServe copies Tenure's annotations to the model servers' pods, so that each step of a roll-out "
            f"would start them anew. Run `make up` with EDIT_KSERVE=yes, which adds them to {LIST} in "
            f"ConfigMap {NAMESPACE}/{CONFIGURATION} (key {KEY}), or add them yourself: "
            + ", ".join(OWN_ANNOTATIONS)
        )
    version = found["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version}, "data": {KEY: changed}}
    site.kubectl.need(
        "patch", "configmap", CONFIGURATION, "-n", NAMESPACE, "--type=merge", f"--patch={json.dumps(patch)}"
    )
    return "told to keep our annotations off the pods"
