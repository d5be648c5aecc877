"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text for people.")]
ProjectFile = Annotated[
    Path,
    typer.Option(
        "--project",
        "-p",
        envvar="TENURE_PROJECT",
        help="The project file.",
        show_default=True,
        dir_okay=False,
    ),
]
ServiceName = Annotated[
    str, typer.Option("--service", help="The InferenceService; by default the project's.", show_default=False)
]
DEFAULT_PROJECT = Path("projects/telco.yaml")
