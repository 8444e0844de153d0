"""The reference pages of the docs, written from the code: ``python -m service.reference`` after a change.

``docs/cli.md`` comes from the commands, ``docs/reference/featurestore.md`` from the docstrings of the operations.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer.main

import featurestore
from foundation.operations import operations_of

__all__ = ["PAGES", "cli_page", "main", "room_page"]

_NOTE = "<!-- Written by `python -m service.reference`; change the code, not this page. -->"
_WIDE = 100
_SECTIONS = ("Args", "Returns", "Raises", "Attributes", "Yields")
_EXIT_CODES = (
    (0, "done"),
    (1, "a check found differences: `verify`, `doctor`, `dataset recreate`"),
    (2, "wrong input"),
    (3, "not found; `get` and `history` end with it when there is nothing to show"),
    (4, "a conflict, something exists already or is in use"),
    (5, "a limit was reached, or the disk is full"),
    (6, "access denied"),
    (7, "not supported"),
    (75, "unavailable: try again"),
    (130, "interrupted"),
)

# -- the command -------------------------------------------------------------------------------------------------------


def cli_page() -> str:
    """``docs/cli.md``."""
    from service.cli import app

    root: Any = typer.main.get_command(app)
    lines = [
        "# Command line",
        "",
        _NOTE,
        "",
        "`tilth --help` and `tilth VERB --help` say the same. Every verb takes `--json`: the answer is then one JSON",
        "document on stdout, and an error one JSON object on stderr, with code, message, subject and hint. Progress",
        "bars go to stderr, and only to a terminal. `tilth --install-completion` completes verbs and options.",
        "",
        "Every verb that works in a workspace takes `--workspace DIR` (`-w`). Without it the workspace is what",
        "`TILTH_WORKSPACE` names, else the current folder where that is one, else `./tilth-workspace`. Only",
        "`tilth group create` and `tilth demo` make a workspace.",
        "",
        "## Exit codes",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in _EXIT_CODES),
        "",
    ]
    for name, command in _verbs(root):
        lines += _verb(name, command)
    return "\n".join(lines).rstrip() + "\n"


def _verbs(command: Any, path: str = "tilth") -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    context = typer.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        if hasattr(inner, "list_commands"):
            yield from _verbs(inner, f"{path} {name}")
        else:
            yield f"{path} {name}", inner


def _verb(name: str, command: Any) -> list[str]:  # noqa: ANN401
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    usage = " ".join([name, *(_shown_argument(each) for each in arguments), "[OPTIONS]"])
    lines = [f"## `{name}`", "", inspect.cleandoc(command.help or ""), "", "```text", usage, "```", ""]
    if arguments or options:
        lines += ["| | | |", "|---|---|---|"]
        lines += [_row(f"`{_shown_argument(each)}`", "", each) for each in arguments]
        lines += [_row(_shown_option(each), _shown_value(each), each) for each in options]
        lines.append("")
    samples = [line.strip() for line in (command.epilog or "").split("\n\n")[1:]]
    if samples:
        lines += ["```sh", *samples, "```", ""]
    return lines


def _shown_argument(argument: Any) -> str:  # noqa: ANN401
    metavar = argument.metavar or argument.name.upper()
    return str(metavar if argument.required or metavar.startswith("[") else f"[{metavar}]")


def _shown_option(option: Any) -> str:  # noqa: ANN401
    names = [*sorted(option.opts, key=lambda text: not text.startswith("--")), *option.secondary_opts]
    return ", ".join(f"`{each}`" for each in names)


def _shown_value(option: Any) -> str:  # noqa: ANN401
    if option.is_flag:
        return ""
    return f"`{option.metavar or ('NUMBER' if isinstance(option.default, int) else 'TEXT')}`"


def _row(name: str, value: str, parameter: Any) -> str:  # noqa: ANN401
    text = parameter.help or ""
    if parameter.required and parameter.param_type_name == "option":
        text += " Required."
    elif parameter.default not in (None, False, "", True) and not callable(parameter.default):
        text += f" Default: `{parameter.default}`."
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (name, value, text)) + " |"


# -- the room ----------------------------------------------------------------------------------------------------------


def room_page() -> str:
    """``docs/reference/featurestore.md``."""
    lines = [
        "# `featurestore`",
        "",
        _NOTE,
        "",
        "What each operation does, takes and raises. [The page about the feature store](../featurestore.md) says how",
        "they belong together. Errors are the classes of `foundation.errors`, all `PlatformError`s with `code`,",
        "`message`, `subject` and `hint`.",
        "",
        "## Opening a store",
        "",
        *_entry("featurestore.open", featurestore.open),
        "## `FeatureStore`",
        "",
        *_text(featurestore.FeatureStore.__doc__ or "", drop=("Args",)),
    ]
    for each in operations_of(featurestore.FeatureStore):
        lines += _entry(f"store.{each.name}", each.call)
    for name in ("get_record_async", "dataset", "close"):
        lines += _entry(f"store.{name}", getattr(featurestore.FeatureStore, name))
    lines += ["## `DatasetBuilder`", "", "What `store.dataset(…)` gives.", ""]
    lines += _methods("dataset", featurestore.DatasetBuilder)
    lines += ["## Saved datasets", "", "`store.datasets`.", ""]
    lines += _methods("store.datasets", type(_unbound("datasets")))
    lines += _entry("featurestore.naive_latest", featurestore.naive_latest)
    lines += ["## What operations answer with", ""]
    for name in featurestore.__all__:
        kind = getattr(featurestore, name)
        if inspect.isclass(kind) and name not in ("FeatureStore", "DatasetBuilder"):
            lines += [f"### `{name}`", "", *_text(inspect.getdoc(kind) or "")]
    return "\n".join(lines).rstrip() + "\n"


def _unbound(name: str) -> Any:  # noqa: ANN401
    """An object of the class a property of the store is annotated with, not initialised."""
    from featurestore import FeatureStore

    hints = inspect.get_annotations(getattr(FeatureStore, name).fget, eval_str=True)
    return object.__new__(hints["return"])


def _methods(prefix: str, kind: type) -> Iterator[str]:
    for name, member in vars(kind).items():
        if not name.startswith("_") and inspect.isfunction(member):
            yield from _entry(f"{prefix}.{name}", member)


def _entry(name: str, function: Any) -> list[str]:  # noqa: ANN401
    return [
        f"### `{name}`",
        "",
        "```python",
        _signature(name, function),
        "```",
        "",
        *_text(inspect.getdoc(function) or ""),
    ]


def _signature(name: str, function: Any) -> str:  # noqa: ANN401
    signature = inspect.signature(function)
    parts: list[str] = []
    for each in signature.parameters.values():
        if each.name == "self":
            continue
        if each.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        parts.append(_parameter(each))
    returns = f" -> {_annotation(signature.return_annotation)}"
    one_line = f"{name}({', '.join(parts)}){returns}"
    if len(one_line) <= _WIDE:
        return one_line
    return "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){returns}"])


def _parameter(each: inspect.Parameter) -> str:
    stars = "**" if each.kind is inspect.Parameter.VAR_KEYWORD else ""
    text = f"{stars}{each.name}: {_annotation(each.annotation)}"
    if each.default is inspect.Parameter.empty:
        return text
    default = f'"{each.default}"' if isinstance(each.default, str) else repr(each.default)
    return f"{text} = {default}"


def _annotation(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _text(doc: str, *, drop: Iterable[str] = ()) -> list[str]:
    """A Google-style docstring as Markdown."""
    lines: list[str] = []
    section = ""
    for line in inspect.cleandoc(doc).splitlines():
        head = line.rstrip(":")
        if line.endswith(":") and head in _SECTIONS:
            section = head
            if section not in drop:
                lines += ["", f"{head}:", ""]
            continue
        if section and line and not line.startswith(" "):
            section = ""
        if section in drop and section:
            continue
        lines.append(_line(line, section))
    squeezed = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return [squeezed.replace("``", "`"), ""]


def _line(line: str, section: str) -> str:
    if not section:
        return line
    item = re.match(r"    (\*{0,2}[\w.]+(?:, \*{0,2}\w+)*): (.*)", line)
    if item and section != "Returns":
        names = ", ".join(f"`{name}`" for name in item[1].split(", "))
        return f"- {names}: {item[2]}"
    return line[2:] if section != "Returns" and line.startswith("        ") else line.strip()


PAGES = {"docs/cli.md": cli_page, "docs/reference/featurestore.md": room_page}
"""Page to what writes it."""


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` say which are out of date."""
    root = Path(__file__).resolve().parent.parent
    stale = []
    for name, write in PAGES.items():
        path, text = root / name, write()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in arguments:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    print("\n".join(f"{name}: {'out of date' if '--check' in arguments else 'written'}" for name in stale) or "current")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
