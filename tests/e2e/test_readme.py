"""Every ```sh block of README and docs is run as a person would type it, on the shared platform."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MARK = "::done"


def read_lines(page: Path) -> list[str]:
    """Return the commands of a page's ```sh blocks, in order; a line that ends in a backslash goes on."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    text = "".join(blocks).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if read_lines(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_works(platform: Any, page: Path, tmp_path: Path) -> None:
    # As after the first run: a model of older customers serves, and nothing is in front of it.
    if page.name == "README.md":
        platform.reset()
    platform.ensure_stable()
    lines = read_lines(page)
    script = tmp_path / "commands.sh"
    script.write_text("".join(f"{line}\n[ $? = 0 ] || exit 1; echo {MARK}\n" for line in lines))
    # The project is the shared one: as the committed, with fewer trials.
    project = str(platform.project_file)
    answer = platform.run("bash", str(script), check=False, TENURE_PROJECT=project)
    failed = [*lines, ""][answer.stdout.count(MARK)]
    assert not failed, f"{failed}\n{answer.stdout[-2000:]}\n{answer.stderr[-4000:]}"
