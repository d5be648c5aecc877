"""Where the images of an installation come from, and which pods they renew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from installer.images import NAMES
from installer.site import Site

MakeSite = Callable[..., Site]
Install = Callable[..., str]
Document = dict[str, Any]


def test_a_mirror_and_a_registry_reach_every_image(install: Install, programs: Any) -> None:
    programs.images.update({f"r.example.com/x/{name}:t1": f"sha256:{name}" for name in NAMES})
    install(REGISTRY="r.example.com/x", MIRROR="m.example.com", TAG="t1", BUILD="no")
    assert programs.count("docker", "push") == len(NAMES)
    assert programs.count("kind", "load") == 0
    images = set()
    for (kind, _, _), one in programs.cluster.objects.items():
        if kind in ("Deployment", "StatefulSet"):
            template = one["spec"]["template"]["spec"]
            images |= {c["image"] for c in [*template["containers"], *template.get("initContainers", ())]}
    assert {
        one for one in images if not one.startswith(("m.example.com/", "r.example.com/x/tenure-"))
    } == set()


def test_an_image_rebuilt_under_its_tag_renews_its_pods_and_no_others(
    install: Install, programs: Any
) -> None:
    install()

    def notes(name: str) -> str:
        template = programs.cluster.objects["Deployment", "tenure", name]["spec"]["template"]
        return str(template["metadata"]["annotations"])

    before = {name: notes(name) for name in ("tenure-pilot", "tenure-console")}
    programs.images["tenure-pilot:0123456789ab"] = "sha256:new"
    programs.calls.clear()
    install()
    assert notes("tenure-pilot") != before["tenure-pilot"]
    assert notes("tenure-console") == before["tenure-console"]
    assert programs.count("kind", "load") == 1


def test_from_a_registry_every_image_is_taken_by_its_digest(install: Install, programs: Any) -> None:
    for name in NAMES:
        reference = f"r.example.com/x/{name}:t1"
        programs.images[reference] = f"sha256:{name}"
        programs.digests[reference] = [f"elsewhere/{name}@sha256:0", f"r.example.com/x/{name}@sha256:{name}"]
    install(REGISTRY="r.example.com/x", TAG="t1", BUILD="no")
    ours = set()
    for (kind, namespace, _), one in programs.cluster.objects.items():
        if kind == "Deployment" and namespace == "tenure":
            template = one["spec"]["template"]["spec"]
            ours |= {c["image"] for c in [*template["containers"], *template.get("initContainers", ())]}
    ours = {one for one in ours if "tenure-" in one}
    assert len(ours) == 4
    assert all("@sha256:tenure-" in one for one in ours)
    settings = programs.cluster.objects["ConfigMap", "tenure", "tenure-settings"]["data"]
    whole = "r.example.com/x/tenure-components@sha256:tenure-components"
    assert settings["TENURE_COMPONENTS_IMAGE"] == whole


def test_other_content_under_the_same_tag_is_another_image_of_the_steps(
    install: Install, programs: Any
) -> None:
    def find() -> str:
        install()
        return str(
            programs.cluster.objects["ConfigMap", "tenure", "tenure-settings"]["data"][
                "TENURE_COMPONENTS_IMAGE"
            ]
        )

    first = find()
    loaded = [call[-1] for call in programs.calls if call[:2] == ("kind", "load")]
    assert first in loaded
    assert find() == first
    programs.images["tenure-components:0123456789ab"] = "sha256:fedcba9876543210"
    second = find()
    assert second == "tenure-components:0123456789ab-fedcba987654"
    assert programs.images[second] == "sha256:fedcba9876543210"


def test_only_missing_images_are_built_and_from_the_mirrors_base(install: Install, programs: Any) -> None:
    programs.images.update({f"tenure-{name}:0123456789ab": "sha256:x" for name in ("components", "pilot")})
    install(MIRROR="m.example.com")
    [call] = [call for call in programs.calls if call[0] == "make"]
    assert "IMAGES=predictor detector console mlflow" in call
    assert "PYTHON_IMAGE=m.example.com/docker.io/library/python:3.11-slim-bookworm" in call
