"""Options every verb shares."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["AsJson", "Name", "Place", "examples"]

Place = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        metavar="DIR",
        help="The workspace; without, TILTH_WORKSPACE, else this folder if it is one, else ./tilth-workspace.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON on stdout; errors as JSON on stderr.")]
Name = Annotated[str, typer.Argument(metavar="GROUP", help="Feature group.", show_default=False)]


def examples(*lines: str) -> str:
    """The closing part of a command's help: examples, one a line."""
    return "\n\n".join(["Examples:", *(f"  {line}" for line in lines)])
