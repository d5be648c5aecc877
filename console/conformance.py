"""`tenure conformance`: hold any model server against the Open Inference Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from console import display
from console.errors import ConsoleError
from oip_conformance.errors import KitError
from oip_conformance.target import SECONDS, Target

_USAGE = 2


def conformance(
    url: Annotated[str, typer.Argument(help="Address of REST, such as http://127.0.0.1:8080.")],
    grpc: Annotated[str, typer.Option("--grpc", metavar="HOST:PORT", help="Check gRPC too.")] = "",
    model: Annotated[str, typer.Option("--model", help="The model, where there are several.")] = "",
    example: Annotated[
        Path | None,
        typer.Option("--example", help="A good V2 request: JSON, no null.", dir_okay=False),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for a request.")] = SECONDS,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the scorecard as JSON.", dir_okay=False)
    ] = None,
    markdown_file: Annotated[
        Path | None, typer.Option("--markdown", help="Write the scorecard as Markdown.", dir_okay=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every check, not only what failed.")] = False,
    fuzz: Annotated[
        int, typer.Option("--fuzz", min=0, help="Send so many generated requests instead of the checks.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="With --fuzz: the same seed, the same requests.")] = 1,
) -> None:
    """Check a model server against the Open Inference Protocol, and against malformed requests.

    The exit code is 0 if every binding rule is kept, 1 if one is broken, 2 if there is no such server or no
    good request to begin with. Example: tenure conformance http://127.0.0.1:8080 --grpc 127.0.0.1:8081
    """
    # gRPC alone takes a third of a second to import: only for who asks.
    from oip_conformance.command import check_server, fuzz_server

    target = Target(url, grpc, model, example, timeout)
    try:
        if fuzz:
            code = fuzz_server(target, _say, count=fuzz, seed=seed, json_file=json_file)
        else:
            code = check_server(target, _say, json_file=json_file, markdown_file=markdown_file, every=every)
    except KitError as error:
        raise ConsoleError(str(error), _USAGE) from error
    raise typer.Exit(code)


def _say(text: str) -> None:
    display.out.print(text, markup=False, highlight=False, soft_wrap=True)
