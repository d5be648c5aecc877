"""`tenure project`: look at a project file before it is used."""

from __future__ import annotations

from typing import Annotated

import typer

from console import display
from console.options import Json
from tenure.project import load_project

app = typer.Typer(no_args_is_help=True, help="Look at a project file before it is used.")


@app.command()
def check(file: Annotated[str, typer.Argument(help="The project file.")], as_json: Json = False) -> None:
    """Check a project file: every unknown key and wrong value is named with what is allowed there.

    Exit code 0 when it is right, 3 when it is not.
    """
    project = load_project(file)
    if as_json:
        display.print_json(project.model_dump(mode="json"))
        return
    contract, gate = project.contract, project.gate
    facts = {
        "project": project.name,
        "source": project.source.uri,
        "contract": f"{len(contract.features)} features, id {contract.id.name}, label {contract.label.name}",
        "objective": f"{project.training.objective}, {project.training.trials} trials",
        "gate": f"{gate.rule.replace('_', '-')} on {gate.metric}, margin {gate.margin}",
        "rollout": f"{project.rollout.service}, canary {', '.join(map(str, project.rollout.steps)) or 0} %",
    }
    display.out.print(display.format_facts(facts))
    display.out.print(f"{file}: right")
