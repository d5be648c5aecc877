"""The Dockerfiles: clean by hadolint, alike where they must be, and buildable with either builder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "tenure-components": "components/Dockerfile",
    "tenure-predictor": "serving/predictor/Dockerfile",
    "tenure-detector": "serving/detector/Dockerfile",
    "tenure-pilot": "serving/pilot/Dockerfile",
    "tenure-console": "console/Dockerfile",
    "tenure-mlflow": "manifests/mlflow/Dockerfile",
}
EACH = pytest.mark.parametrize(("image", "path"), FILES.items())


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def list_instructions(path: str) -> list[str]:
    """Return the instructions of the last stage, each on one line."""
    last = re.split(r"^FROM ", read(path).replace("\\\n", " "), flags=re.MULTILINE)[-1]
    return [
        " ".join(line.split()) for line in last.splitlines()[1:] if line.strip() and not line.startswith("#")
    ]


@EACH
def test_hadolint_has_nothing_to_say(image: str, path: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed: make environment-dev")
    result = subprocess.run(
        [hadolint, path], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@EACH
def test_runs_as_nobody_and_says_what_it_is(image: str, path: str) -> None:
    instructions = list_instructions(path)
    assert "USER 65532:65532" in instructions
    assert not any(
        re.match("(RUN|COPY|ADD) ", one) for one in instructions[instructions.index("USER 65532:65532") :]
    )
    labels = next(one for one in instructions if one.startswith("LABEL "))
    assert f'org.opencontainers.image.title="{image}"' in labels
    for label, value in (("revision", "GIT_SHA"), ("version", "VERSION"), ("created", "CREATED")):
        assert f'org.opencontainers.image.{label}="${{{value}}}"' in labels


@EACH
def test_builds_with_either_builder_and_any_base_and_index(image: str, path: str) -> None:
    text = read(path)
    assert text.count("FROM ${PYTHON_IMAGE}") == len(re.findall("^FROM ", text, re.MULTILINE)) == 2
    assert "# syntax" not in text
    assert "--mount" not in text
    assert "PIP_INDEX_URL" not in " ".join(list_instructions(path)), "a mirror's password would be kept"


@EACH
def test_only_takes_away_in_the_last_stage(image: str, path: str) -> None:
    (run,) = [one for one in list_instructions(path) if one.startswith("RUN ")]
    uninstall, remove = run.removeprefix("RUN ").split(" && ")
    assert uninstall == "python -m pip uninstall --quiet --yes setuptools wheel pip"
    assert remove.startswith("rm -rf /usr/local/lib/python3*/ensurepip /usr/bin/apt*")


@EACH
def test_what_is_copied_exists_and_is_sent_to_the_builder(image: str, path: str) -> None:
    sent = [line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")]
    lines = re.findall(r"^COPY (?!--from)(.+)$", read(path), re.MULTILINE)
    sources = [source for line in lines for source in line.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(
            source == one or source.startswith(f"{one}/") or Path(source).match(one) for one in sent
        ), f"{source} is not in .dockerignore"


def test_scripts_are_clean() -> None:
    for name in ("images", "image-install", "lock"):
        text = read(f"scripts/{name}")
        assert text.startswith("#!/bin/sh\n")
        assert "\nset -eu\n" in text
