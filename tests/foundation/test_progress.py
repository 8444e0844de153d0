"""Progress: on a terminal a bar, elsewhere silence, and a way to stop in between."""

from __future__ import annotations

import io
import threading

import pytest

from foundation.errors import PlatformError
from foundation.progress import Bar, Cancelled, Progress, Silent, Stoppable, progress_for


class Told:
    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def start(self, total: int | None, unit: str) -> None:
        self.said.append(("start", total, unit))

    def advance(self, count: int) -> None:
        self.said.append(("advance", count))

    def done(self) -> None:
        self.said.append(("done",))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(progress: Progress) -> None:
    progress.start(3, "rows")
    for _ in range(3):
        progress.advance(1)
    progress.done()


def test_a_terminal_gets_a_bar_and_a_file_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal, file = Terminal(), io.StringIO()
    shown = progress_for("loading weather", terminal)
    assert isinstance(shown, Bar)
    work(shown)
    assert "loading weather" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    silent = progress_for("loading weather", file)
    assert isinstance(silent, Silent)
    work(silent)
    assert file.getvalue() == ""


def test_a_bar_goes_away_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()

    def fail() -> None:
        with Bar("loading", terminal) as bar:
            bar.start(None, "rows")
            bar.advance(2)
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        fail()
    hidden, shown = terminal.getvalue().rfind("\x1b[?25l"), terminal.getvalue().rfind("\x1b[?25h")
    assert 0 <= hidden < shown


def test_stopping_raises_at_the_next_step_and_passes_on_until_then() -> None:
    stop, told = threading.Event(), Told()
    stoppable = Stoppable(stop, told)
    work(stoppable)
    assert told.said == [("start", 3, "rows"), *[("advance", 1)] * 3, ("done",)]
    stoppable.start(None, "rows")
    stop.set()
    with pytest.raises(Cancelled) as caught:
        stoppable.advance(1)
    assert isinstance(caught.value, PlatformError)
    assert caught.value.code == "cancelled"
    assert told.said[-1] == ("start", None, "rows")
    with pytest.raises(Cancelled):
        Stoppable(stop).start(1, "rows")
