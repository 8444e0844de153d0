"""Options and places every benchmark shares."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import environment
from benchmarks.timing import Side

__all__ = ["Place", "add_common", "place_of"]

CACHE = Path.home() / ".cache" / "tilth" / "benchmarks"


@dataclass(frozen=True)
class Place:
    """Where a run keeps things.

    Attributes:
        cache: peers' environments and generated data, kept between runs.
        peers: whether peers run.
    """

    cache: Path
    peers: bool

    @property
    def data(self) -> Path:
        """Generated files."""
        return self.cache / "data"

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A fresh folder on the same disk as the data, gone afterwards."""
        self.cache.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=self.cache))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def ours(self, stack: ExitStack) -> Side:
        """A process of ours."""
        return stack.enter_context(Side("benchmarks.sides.tilth_side"))

    def polars(self, stack: ExitStack) -> Side:
        """A process of polars, of the version the project itself uses."""
        return stack.enter_context(Side("benchmarks.sides.polars_side"))

    def peer(self, stack: ExitStack, name: str) -> Side:
        """A process of a peer in its own environment."""
        return stack.enter_context(Side(f"benchmarks.sides.{name}_side", environment(name, self.cache)))


def add_common(parser: argparse.ArgumentParser) -> None:
    """The options every benchmark has."""
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument("--no-peers", action="store_true", help="leave out what needs an environment of its own")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds of each comparison")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where data and peers' environments are kept")


def place_of(options: argparse.Namespace) -> Place:
    """The place the options name."""
    return Place(options.cache.resolve(), not options.no_peers)
