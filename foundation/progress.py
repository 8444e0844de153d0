"""Progress of long work: told to a terminal or to nobody, and the way to stop it in between."""

from __future__ import annotations

import sys
import threading
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from foundation.errors import PlatformError

__all__ = ["Bar", "Cancelled", "Progress", "Silent", "Stoppable", "progress_for"]


class Cancelled(PlatformError):
    """The work was asked to stop; what it had not committed is gone, what it had stays."""

    code = "cancelled"


class Progress(Protocol):
    """Told by the one who works, in this order: start, advance as often as wanted, done (not after a failure)."""

    def start(self, total: int | None, unit: str) -> None:
        """Work begins; ``total`` units of it, None when nobody knows."""

    def advance(self, count: int) -> None:
        """``count`` more units are done.

        Raises:
            Cancelled: the work is to stop here; the worker undoes what it has not committed.
        """

    def done(self) -> None:
        """All of it is done."""


class Silent:
    """Tells nobody."""

    def start(self, total: int | None, unit: str) -> None:
        """Nothing."""

    def advance(self, count: int) -> None:
        """Nothing."""

    def done(self) -> None:
        """Nothing."""


class Bar:
    """A bar on a terminal, gone when done. ``close`` takes it away after a failure, too; use it as a context manager.

    Args:
        label: what is being done, in two or three words.
        stream: the terminal.
    """

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self._label = label
        self._stream = stream or sys.stderr
        self._bar: RichProgress | None = None
        self._task = TaskID(0)

    def start(self, total: int | None, unit: str) -> None:
        """Show it, empty."""
        self.close()
        self._bar = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=self._stream),
            transient=True,
        )
        self._task = self._bar.add_task(self._label, total=total)
        self._bar.start()

    def advance(self, count: int) -> None:
        """Move it."""
        if self._bar is not None:
            self._bar.advance(self._task, count)

    def done(self) -> None:
        """Take it away."""
        self.close()

    def close(self) -> None:
        """Take it away, finished or not."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: Any) -> None:  # noqa: ANN401 - the three of the protocol
        self.close()


class Stoppable:
    """Passes on to another and raises ``Cancelled`` at the first step after ``stop`` is set."""

    def __init__(self, stop: threading.Event, inner: Progress | None = None) -> None:
        self._stop = stop
        self._inner = inner or Silent()

    def start(self, total: int | None, unit: str) -> None:
        """Pass on, unless stopped."""
        self.check()
        self._inner.start(total, unit)

    def advance(self, count: int) -> None:
        """Pass on, unless stopped."""
        self.check()
        self._inner.advance(count)

    def done(self) -> None:
        """Pass on."""
        self._inner.done()

    def check(self) -> None:
        """Raise ``Cancelled`` if stopped."""
        if self._stop.is_set():
            raise Cancelled("stopped on request", hint="run it again to go on")


def progress_for(label: str, stream: TextIO | None = None) -> Bar | Silent:
    """A bar when the stream (standard error) is a terminal, else silence."""
    chosen = stream or sys.stderr
    return Bar(label, chosen) if chosen.isatty() else Silent()
