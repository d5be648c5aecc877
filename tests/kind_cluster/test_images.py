from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from installer.errors import ProgramError
from installer.images import NAMES, Images, find_lost, find_tag, name_image
from installer.options import ROOT, Options
from installer.program import Programs
from installer.site import Site

DOCKER = """#!/bin/sh
echo "$BUILDX_NO_DEFAULT_ATTESTATIONS $*" >>"$DOCKER_LOG"
case $1 in image) echo "image sha256:0123456789ab 1000000" ;; esac
"""


def make_node(*names: str, more: int = 0) -> dict[str, Any]:
    images = [{"names": [name]} for name in names] + [{"names": [f"x:{one}"]} for one in range(more)]
    return {"status": {"images": images}}


@pytest.mark.parametrize(
    ("nodes", "lost"),
    [
        ([make_node("docker.io/library/tenure-pilot:1")], False),
        ([make_node("tenure-pilot:1")], False),
        ([make_node("docker.io/library/tenure-pilot:2")], True),
        ([make_node("docker.io/library/tenure-pilot:1"), make_node("pause:1")], True),
        ([make_node(more=50)], False),
        ([make_node()], False),
        ([], False),
    ],
)
def test_an_image_that_a_node_has_lost_is_noticed(nodes: list[dict[str, Any]], lost: bool) -> None:
    assert find_lost(nodes, "tenure-pilot:1") is lost


def test_an_image_is_named_with_its_registry() -> None:
    assert name_image("tenure-pilot", "1", "") == "tenure-pilot:1"
    assert name_image("tenure-pilot", "1", "r.example.com:5000/x") == "r.example.com:5000/x/tenure-pilot:1"


@pytest.fixture
def images(make_site: Callable[..., Site], programs: Any) -> Callable[..., Images]:
    """Return a function that makes built images."""

    def make(**variables: str) -> Images:
        site = make_site(**variables)
        made = Images(site.programs, site.options, site.logs, "1")
        made.ids = {name: f"sha256:{index:064x}" for index, name in enumerate(NAMES)}
        programs.images.update({made.references[name]: made.ids[name] for name in NAMES})
        return made

    return make


def test_what_kind_cannot_load_from_dockers_store_is_loaded_by_an_archive(
    images: Callable[..., Images], make_site: Callable[..., Site], programs: Any
) -> None:
    programs.broken.add("kind load docker-image")
    programs.complaint[0] = "ctr: content digest sha256:44b2: not found"
    state = make_site().state
    assert images().hand_over(state) == f"{len(NAMES)} of {len(NAMES)} handed over"
    [save] = [call for call in programs.calls if call[:2] == ("docker", "save") and "tenure-pilot:1" in call]
    assert save[2:4] == ("--platform", "linux/arm64")
    archive = save[save.index("-o") + 1]
    assert ("kind", "load", "image-archive", archive, "--name", "tenure") in programs.calls
    assert not Path(archive).exists()
    assert images().hand_over(state) == "unchanged"


def test_another_failure_to_load_is_told_as_it_is(
    images: Callable[..., Images], make_site: Callable[..., Site], programs: Any
) -> None:
    programs.broken.add("kind load docker-image")
    with pytest.raises(ProgramError, match="broken by the test"):
        images().hand_over(make_site().state)
    assert programs.count("docker", "save") == 0


@pytest.mark.parametrize(
    ("registry", "listed", "pinned"),
    [
        ("r.example.com:5000/x", ["r.example.com:5000/x/{}@sha256:1"], "r.example.com:5000/x/{}@sha256:1"),
        ("docker.io/x", ["x/{}@sha256:1"], "docker.io/x/{}@sha256:1"),
        ("x", ["x/{}@sha256:1"], "x/{}@sha256:1"),
        ("r.example.com/x", ["r.example.com/other/{}@sha256:1"], "r.example.com/x/{}:1"),
        ("r.example.com/x", [], "r.example.com/x/{}:1"),
    ],
)
def test_an_image_is_pinned_by_the_digest_of_its_own_registry(
    images: Callable[..., Images], programs: Any, registry: str, listed: list[str], pinned: str
) -> None:
    for name in NAMES:
        programs.digests[f"{registry}/{name}:1"] = [one.format(name) for one in listed]
        assert images(REGISTRY=registry).pin(name) == pinned.format(name)


def run_script(root: Path, log: Path, *arguments: str) -> list[str]:
    """Run scripts/images of a checkout with a docker that only notes its command lines; return these."""
    docker = log.parent / "bin" / "docker"
    docker.parent.mkdir(exist_ok=True)
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    environment = {**os.environ, "PATH": f"{docker.parent}:{os.environ['PATH']}", "DOCKER_LOG": str(log)}
    environment.pop("TAG", None)
    command = ["/bin/sh", str(root / "scripts" / "images"), *arguments]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=60)
    return log.read_text().splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git repository with the script and little else."""
    root = tmp_path / "checkout"
    for name in ("scripts/images", ".dockerignore", "tenure/__init__.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "docs").mkdir()
    (root / ".gitignore").write_text("__pycache__/\n")
    git(root, "init", "--quiet")
    git(root, "add", "-A")
    git(root, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "first")
    git(root, "config", "status.showUntrackedFiles", "no")
    return root


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def read_tag(root: Path) -> str:
    script = str(root / "scripts" / "images")
    environment = {key: value for key, value in os.environ.items() if key != "TAG"}
    done = subprocess.run(
        ["/bin/sh", script, "--tag"], check=True, capture_output=True, text=True, timeout=60, env=environment
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        ("tenure/new.py", True),
        ("serving/new/deep.py", True),
        ("tenure/__init__.py", True),
        ("requirements/pilot.txt", True),
        ("docs/new.md", False),
        ("tenure/__pycache__/new.pyc", False),
        ("notes.txt", False),
    ],
)
def test_a_tag_says_whether_what_is_copied_was_changed_tracked_or_not(
    checkout: Path, name: str, dirty: bool
) -> None:
    commit = git(checkout, "rev-parse", "--short=12", "HEAD")
    assert read_tag(checkout) == commit
    (checkout / name).parent.mkdir(parents=True, exist_ok=True)
    with (checkout / name).open("a") as file:
        file.write("# changed\n")
    assert read_tag(checkout) == (f"{commit}-dirty" if dirty else commit)


def test_the_tag_of_an_installation_is_the_scripts() -> None:
    assert find_tag(Programs({**os.environ, "TAG": ""}), Options(versions={})) == read_tag(ROOT)
    assert find_tag(Programs({}), Options(versions={}, tag="mine")) == "mine"


def test_what_is_looked_at_is_what_docker_gets() -> None:
    """Every place that .dockerignore lets through is among those whose changes count."""
    script = (ROOT / "scripts" / "images").read_text()
    sources = script.split('sources="')[1].split('"')[0].replace("\\\n", " ").split()
    through = [one[1:] for one in (ROOT / ".dockerignore").read_text().splitlines() if one.startswith("!")]
    assert through
    assert not [one for one in through if not any(one == it or one.startswith(f"{it}/") for it in sources)]


def test_images_are_built_without_attestations(tmp_path: Path) -> None:
    built = [one for one in run_script(ROOT, tmp_path / "log", "pilot") if " build " in one]
    assert len(built) == 1
    assert built[0].startswith("1 build ")
