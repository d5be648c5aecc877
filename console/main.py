"""The `tenure` command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from clients.errors import ClientError
from console import (
    conformance,
    demonstration,
    display,
    labels,
    platform,
    prediction,
    project,
    rollout,
    schedule,
    simulate,
    training,
)
from console.context import NAMESPACE, enter
from console.doctor.command import doctor
from console.errors import ConsoleError, find_exit_code
from tenure import __version__
from tenure.errors import TenureError

_EPILOG = (
    "Exit codes: 0 done; 1 it failed; 2 wrong usage; 3 wrong input (project, rows, names); "
    "4 the platform does not run; 5 refused."
)

app = typer.Typer(
    name="tenure",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    epilog=_EPILOG,
    help="Churn models that prove themselves: train, judge, roll out as a canary, serve.",
)


@app.callback()
def choose(
    ctx: typer.Context,
    context: Annotated[
        str,
        typer.Option(
            "--context",
            envvar="TENURE_CONTEXT",
            help="Talk to the cluster of this context of the kubeconfig, not to this machine's platform.",
        ),
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", help="With --context: where Tenure is installed.")
    ] = NAMESPACE,
) -> None:
    """Choose the platform that the command is for."""
    if context:
        ctx.with_resource(enter(context, namespace))


app.command()(platform.up)
app.command()(platform.down)
app.command()(platform.status)
app.command()(platform.logs)
app.command()(platform.env)
app.command()(doctor)
app.command()(training.run)
app.command()(prediction.predict)
app.command()(conformance.conformance)
app.command()(simulate.simulate)
app.command()(demonstration.demo)
app.command("demo-rollback")(demonstration.demo_rollback)
app.add_typer(rollout.app, name="rollout")
app.add_typer(schedule.app, name="schedule")
app.add_typer(labels.app, name="labels")
app.add_typer(project.app, name="project")


@app.command()
def version() -> None:
    """Print the version."""
    display.out.print(__version__)


def main() -> None:
    """Run the command line; every known problem becomes a message and an exit code."""
    try:
        app()
    except (ConsoleError, ClientError, TenureError) as error:
        display.print_error(str(error))
        sys.exit(find_exit_code(error))


if __name__ == "__main__":
    main()
