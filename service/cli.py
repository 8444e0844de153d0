"""The ``tilth`` command: a door like any other. It translates and decides nothing.

Exit codes: 0 done; 1 a check found differences; 2 wrong input; 3 not found; 4 conflict, exists already or in use;
5 a limit was reached; 6 access denied; 7 not supported; 70 a fault of the program; 75 unavailable, try again;
130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from foundation.errors import PlatformError
from service.commands import care, datasets, groups, records
from service.commands.options import AsJson, examples
from service.console import INTERRUPTED, exit_code, report_error

__all__ = ["app", "main", "run"]

_USAGE: type[Exception] = typer.BadParameter.__mro__[2]
"""Base of typer's complaints about the command line; typer does not export it."""
_EXIT_HELP = (
    "Exit codes: 0 done, 1 a check found differences, 2 wrong input, 3 not found, 4 conflict, 5 limit, "
    "6 access denied, 7 not supported, 75 unavailable, 130 interrupted."
)

_ORDER = ("demo", "group", "dataset")
"""Verbs shown first; the others follow as they were added."""


class _Ordered(TyperGroup):
    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Verb names as the help shows them."""
        names = super().list_commands(ctx)
        return [*_ORDER, *(name for name in names if name not in _ORDER)]


app = typer.Typer(
    name="tilth",
    cls=_Ordered,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A feature store: training sets that cannot leak, and the same features online.",
    epilog=_EXIT_HELP,
)


def _version(shown: bool) -> None:
    if shown:
        print(f"tilth {version('tilth')}")
        raise typer.Exit


@app.callback()
def _top(
    shown: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command(
    rich_help_panel="Start here",
    epilog=examples(
        "tilth demo", "tilth demo --workspace my-demo --json", "TILTH_ONLINE=redis://127.0.0.1:6379/0 tilth demo"
    ),
)
def demo(
    workspace: Annotated[
        Path | None,
        typer.Option("--workspace", "-w", metavar="DIR", help="Where to; without, ./tilth-demo.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The main job on real data: 336,776 flights, weather as it was known, a training set that cannot leak."""
    from service.demo import run_demo

    run_demo(workspace or Path("tilth-demo"), as_json=as_json)


records.register(app)
app.add_typer(groups.app, name="group", rich_help_panel="Define")
app.add_typer(datasets.app, name="dataset", rich_help_panel="Define")
care.register(app)


def run(args: Sequence[str]) -> int:
    """Carry out a command line and return the exit code; nothing but the answer goes to stdout."""
    as_json = "--json" in args
    command = typer.main.get_command(app)
    try:
        code = command.main(args=list(args), prog_name="tilth", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except PlatformError as error:
        report_error(error.code, error.message, subject=error.subject, hint=error.hint, as_json=as_json)
        return exit_code(error)
    except (KeyboardInterrupt, typer.Abort):
        report_error("interrupted", "interrupted", as_json=as_json)
        return INTERRUPTED
    except _USAGE as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return 2
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "tilth"
        message = str(getattr(error, "message", error)).strip() or type(error).__name__
        shown = error.format_message() if hasattr(error, "format_message") else message
        report_error("invalid_input", shown, hint=f"see {path} --help", as_json=as_json)
        return 2


def main() -> None:
    """The console script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
