"""What the command line says: answers on stdout, plain or as JSON; errors and progress on stderr; exit codes."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foundation.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    InUse,
    InvalidInput,
    LimitExceeded,
    NotFound,
    NotSupported,
    PlatformError,
    Unavailable,
)

__all__ = [
    "DIFFERENCE",
    "INTERRUPTED",
    "Answer",
    "answer",
    "counted",
    "error_line",
    "exit_code",
    "facts",
    "grid",
    "plain",
    "report_error",
    "shown",
    "span",
    "stdout",
]

DIFFERENCE = 1
"""Exit code of a check that found differences."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""
_INTERNAL = 70
_CODES: tuple[tuple[type[PlatformError], int], ...] = (
    (InvalidInput, 2),
    (NotFound, 3),
    (AlreadyExists, 4),
    (Conflict, 4),
    (InUse, 4),
    (LimitExceeded, 5),
    (AccessDenied, 6),
    (NotSupported, 7),
    (Unavailable, 75),
)
_PIPE_WIDTH = 200
"""Columns when the output is no terminal: wide enough that nothing a script reads is cut."""

Answer = Callable[[Console], None]
"""Writes an answer for a person."""


class _Out(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the caller, who knows that it is no failure."""
        raise BrokenPipeError


def stdout() -> Console:
    """The console answers go to."""
    wide = None if sys.stdout.isatty() else _PIPE_WIDTH
    return _Out(width=wide, highlight=False, markup=False, emoji=False, soft_wrap=True)


def answer(document: object, *, as_json: bool, text: Answer) -> None:
    """Print an answer: ``document`` as JSON, or ``text`` for a person. Quiet when whoever reads it has had enough."""
    try:
        if as_json:
            json.dump(plain(document), sys.stdout, indent=2, allow_nan=False)
            sys.stdout.write("\n")
        else:
            text(stdout())
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def plain(value: Any) -> Any:  # noqa: ANN401
    """A value as plain JSON.

    Moments and dates are ISO 8601 text, timedeltas seconds, decimals their exact text, bytes Base64; NaN is null.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal | Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, Iterable):
        return [plain(each) for each in value]
    return str(value)


def shown(value: object) -> str:
    """A value as one short text for a table cell; null is a dash."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds" if not value.microsecond else "microseconds")
    if isinstance(value, timedelta):
        return span(value.total_seconds())
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return value
    if isinstance(value, list | tuple | dict):
        return json.dumps(plain(value), ensure_ascii=False)
    return str(value)


def span(seconds: float) -> str:
    """A length of time in the largest unit that keeps it at or above one."""
    for unit, size in (("d", 86_400.0), ("h", 3_600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}" if seconds / size < 1000 else f"{seconds / size:,.0f} {unit}"
    return f"{seconds * 1e6:.3g} µs" if seconds else "0 s"


def counted(count: int, noun: str) -> str:
    """A number with its noun: ``1 row``, ``2,000 rows``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def grid(heads: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> Table:
    """A table; ``right`` names the places of columns aligned to the right."""
    aligned = set(right)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place in aligned else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(cell)) for cell in row))
    return table


def facts(console: Console, pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values in two columns; what is None or empty is left out."""
    rows = [(name, shown(value)) for name, value in pairs if value not in (None, "", (), [], {})]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        console.print(f"{name.ljust(width)}  {value}")


def exit_code(error: BaseException) -> int:
    """The exit code an error ends the command with."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    if isinstance(error, PlatformError):
        return INTERRUPTED if error.code == "cancelled" else _INTERNAL
    return _INTERNAL


def error_line(message: str, hint: str) -> str:
    """An error for a person: what is wrong, and below it what to do."""
    return f"error: {message}" + (f"\nfix: {hint}" if hint else "")


def report_error(code: str, message: str, *, subject: str = "", hint: str = "", as_json: bool) -> None:
    """Print an error on stderr, plain or as one JSON object."""
    if as_json:
        document = {"error": {"code": code, "message": message, "subject": subject, "hint": hint}}
        print(json.dumps(document), file=sys.stderr)
    else:
        print(error_line(message, hint), file=sys.stderr)
