"""`scripts/images` with a docker that only writes down how it was called."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IDENTITY = "sha256:" + "5" * 64
DOCKER = f"""#!/usr/bin/env python3
import json, os, sys
with open(os.environ["CALLS"], "a") as calls:
    calls.write(json.dumps([sys.argv[1:], os.environ.get("BUILDX_NO_DEFAULT_ATTESTATIONS")]) + "\\n")
if os.environ.get("BROKEN") and sys.argv[1] == "build":
    sys.exit("no space left on device")
if sys.argv[1:3] == ["image", "inspect"]:
    print(sys.argv[-1], "{IDENTITY}", 650000000)
"""
Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def script(tmp_path: Path, calls: Path) -> Script:
    """Run scripts/images where `docker` is the one above."""
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(DOCKER)
    docker.chmod(0o755)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        base = {"PATH": f"{docker.parent}:{os.environ['PATH']}", "CALLS": str(calls)}
        return subprocess.run(
            ["sh", "scripts/images", *arguments],
            cwd=ROOT, env=base | environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    return run


def list_builds(calls: Path) -> list[list[str]]:
    return [call for call, _ in map(json.loads, calls.read_text().splitlines()) if call[0] == "build"]


def test_an_image_is_built_with_its_commit_and_its_whole_id_is_said(script: Script, calls: Path) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    answer = script("pilot", REGISTRY="registry.example.com/team", DOCKER_BUILD_FLAGS="--network host")
    assert answer.returncode == 0, answer.stderr
    name, identity, size, unit = answer.stdout.split()
    assert name.startswith(f"registry.example.com/team/tenure-pilot:{commit[:12]}")
    assert (identity, size, unit) == (IDENTITY, "650", "MB")
    (build,) = list_builds(calls)
    assert build[build.index("--file") + 1] == "serving/pilot/Dockerfile"
    assert build[1:4] == ["--quiet", "--network", "host"]
    (revision,) = [word for word in build if word.startswith("GIT_SHA=")]
    assert revision.removeprefix("GIT_SHA=").removesuffix("-dirty") == commit


def test_all_six_are_built_under_the_tag_that_is_asked_for(script: Script, calls: Path) -> None:
    assert script(TAG="one").returncode == 0
    tags = [build[build.index("--tag") + 1] for build in list_builds(calls)]
    assert tags == [
        f"tenure-{n}:one" for n in ("components", "predictor", "detector", "pilot", "console", "mlflow")
    ]


def test_a_mirrors_password_is_nobodys_argument(script: Script, calls: Path) -> None:
    assert script("pilot", PIP_INDEX_URL="https://me:secret@mirror.example.com").returncode == 0
    assert "PIP_INDEX_URL" in list_builds(calls)[0]
    assert "secret" not in calls.read_text()


def test_docker_is_told_to_add_nothing_that_changes_with_the_time(script: Script, calls: Path) -> None:
    script("pilot")
    assert {told for call, told in map(json.loads, calls.read_text().splitlines()) if call[0] == "build"} == {
        "1"
    }


def test_what_cannot_be_built_is_named_with_dockers_reason(script: Script, calls: Path) -> None:
    unknown = script("pilto")
    assert unknown.returncode == 1
    assert "there is no image 'pilto': components, predictor" in unknown.stderr
    assert not calls.exists() or not list_builds(calls)
    broken = script("pilot", BROKEN="yes", TAG="one")
    assert broken.returncode == 1
    assert "no space left on device" in broken.stderr
    assert "tenure-pilot:one could not be built from serving/pilot/Dockerfile" in broken.stderr
