"""Why a node refuses to start a container: its image, or what it is configured with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from console.doctor.document import Document, name_of, namespace_of, shorten
from console.doctor.observation import Cluster


class Trouble(NamedTuple):
    """What is wrong with a pod.

    Attributes:
        grave: False when it runs, or may only need time.
    """

    text: str
    fix: str
    grave: bool = True


def judge_image(
    cluster: Cluster, pod: Document, container: Mapping[str, Any], waiting: Mapping[str, Any]
) -> Trouble:
    """Return why an image cannot be pulled; the reason is in the events more often than in the status."""
    image = container.get("image", "?")
    events = cluster.find_events("Pod", name_of(pod), namespace_of(pod))
    said = [event.get("message", "") for event in events if "Failed to pull" in event.get("message", "")]
    message = (said or [waiting.get("message", "")])[-1]
    text = f"the image {image} cannot be pulled"
    lowered = message.lower()
    if "429" in message or "toomanyrequests" in lowered or "too many requests" in lowered:
        return Trouble(
            f"{text}: the registry limits how often you may pull",
            "log in to the registry (an imagePullSecret), set MIRROR= for `make up`, or load the image",
        )
    if waiting.get("reason") == "InvalidImageName":
        return Trouble(f"{text}: this is no image name", "correct the name in the kustomization's `images:`")
    if waiting.get("reason") == "ErrImageNeverPull":
        return Trouble(f"{text}: it is not on the node and may not be pulled", "load it: `make up` does")
    if "no match for platform" in lowered or "no matching manifest" in lowered:
        return Trouble(
            f"{text}: there is none for the node's processor architecture",
            "use an image for that architecture, or a node of the image's",
        )
    if "x509" in lowered or "certificate" in lowered:
        return Trouble(
            f"{text}: the node does not trust the registry's certificate",
            "give the node the registry's certificate authority (a proxy in between may have its own)",
        )
    if any(word in lowered for word in ("no such host", "dial tcp", "i/o timeout", "connection refused")):
        return Trouble(
            f"{text}: the node cannot reach the registry: {shorten(message, 160)}",
            "check the node's network and proxy; without internet set REGISTRY= and MIRROR= for `make up`",
        )
    if any(word in lowered for word in ("unauthorized", "authentication required", "403", "denied")):
        return Trouble(
            f"{text}: the registry refuses: it does not exist there, or wants a login",
            "check name and tag; for a private registry give the ServiceAccount an imagePullSecret",
        )
    if "not found" in lowered or "manifest unknown" in lowered:
        return Trouble(
            f"{text}: there is no such image or tag",
            "correct name and tag (old KFP images have left gcr.io); `make up` loads images of ours",
        )
    return Trouble(f"{text}: {shorten(message, 200)}", "pull it by hand on the node to see more")


def judge_configuration(container: str, message: str) -> Trouble:
    """Return what a container or a mount needs and does not find."""
    missing = re.search(r"(secret|configmap) \"([^\"]+)\" not found", message)
    if missing:
        kind = {"secret": "Secret", "configmap": "ConfigMap"}[missing[1]]
        return Trouble(
            f"{container} cannot start: {kind} {missing[2]} is not in its namespace",
            f"create {kind} {missing[2]} there; `make up` writes Tenure's own, and copies them for the runs",
        )
    key = re.search(r"couldn't find key (\S+) in (Secret|ConfigMap) (\S+)", message)
    if key:
        return Trouble(
            f"{container} cannot start: {key[2]} {key[3]} has no key {key[1]}",
            "add the key; `make up` adds what is missing and overwrites nothing",
        )
    if "runAsNonRoot" in message or "will run as root" in message:
        return Trouble(
            f"{container} cannot start: its image would run as root, which runAsNonRoot forbids",
            "set runAsUser (in a run: set_security_context(run_as_user=65532)), or use an image with a user",
        )
    return Trouble(f"{container} cannot start: {shorten(message)}", "correct what the message names")
