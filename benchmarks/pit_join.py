"""The point-in-time join against Feast, DuckDB, polars and the bare read of the columns it needs.

Everybody reads the same records and the same spine, held in memory in the side's own form; the clock runs from the call
to an Arrow table. Ours gives the rows back in spine order; nobody else is asked to.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.feather as feather

from benchmarks import data
from benchmarks.common import Place, add_common, place_of
from benchmarks.report import Line, Report, say, seconds, short
from benchmarks.timing import Rounds, Side, in_turn

SECTIONS = ("one", "known", "tail", "strings", "five", "large")
FULL = {"rows": 10_000_000, "entities": 1_000_000, "spine": 1_000_000, "large": 100_000_000, "large_spine": 10_000_000}
QUICK = {"rows": 100_000, "entities": 10_000, "spine": 10_000, "large": 400_000, "large_spine": 40_000}
MEMORY = 6e9
_OURS = "tilth"
_FEAST = "Feast, DuckDB store"


def main(arguments: Sequence[str] | None = None) -> Report:
    """Run and print; see ``--help``."""
    parser = argparse.ArgumentParser("python -m benchmarks.pit_join", description=__doc__)
    add_common(parser)
    parser.add_argument("--rows", type=int, help="records of a group")
    parser.add_argument("--entities", type=int)
    parser.add_argument("--spine", type=int, help="rows to join to")
    parser.add_argument("--features", type=int, default=10)
    parser.add_argument("--large", type=int, help="records of the memory test; a tenth of them are entities")
    parser.add_argument("--large-spine", type=int)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    full = all(getattr(options, name) >= value for name, value in FULL.items()) and options.features >= 10
    report = Report(
        "pit_join",
        "Point-in-time join",
        "uv run python -m benchmarks.pit_join",
        f"{short(options.rows)} records x {options.features} float64 features of {short(options.entities)} entities, "
        f"{short(options.spine)} spine rows, result as Arrow. Times are medians of {options.rounds} rounds in which "
        "all sides take turns; ratios are taken round by round.",
        full,
    )
    place = place_of(options)
    for name in options.only:
        say(f"pit_join: {name}")
        with ExitStack() as stack:
            _RUN[name](report, options, place, stack)
        path = report.save()
    print(f"saved {path}")
    return report


class Ours:
    """Our side: a store in a fresh workspace, filled by one process and read by another."""

    def __init__(self, report: Report, place: Place, stack: ExitStack) -> None:
        self.report, self.place, self.stack = report, place, stack
        self.folder = stack.enter_context(place.workspace()) / "store"
        self.filler = place.ours(stack)
        self.filler.ask("opened", path=self.folder)

    def load(self, table: str, name: str, path: Path, rows: int, known: bool = False) -> None:
        """Create a group and ingest a file."""
        self.filler.ask("create", name=name, path=path, online=False, drop=["known_at"] if known else [])
        self.add(table, name, path, rows, known)

    def add(self, table: str, name: str, path: Path, rows: int, known: bool = False) -> float:
        """Ingest a file; a line says how fast when a table is named."""
        answer = self.filler.ask("ingest", name=name, path=path, known_at="known_at" if known else None)
        if answer["rows"] != rows or answer["rejected"]:
            raise AssertionError(f"{answer['rows']} of {rows} rows of {path.name} were loaded")
        took = float(answer["seconds"])
        if table:
            self.report.add(table, Line("ingest", seconds(took), f"{rows / took / 1e3:.0f} k rows/s"))
        return took

    def compact(self, table: str, name: str, note: str = "") -> None:
        """Merge a group's runs; a line says what it cost when a table is named."""
        took = self.filler.time("compact", name=name)
        if table:
            self.report.add(table, Line("compaction", seconds(took), note=note))

    def reader(self, spine: Path) -> Side:
        """A process that has the store open and the spine in memory."""
        side = self.place.ours(self.stack)
        side.ask("opened", path=self.folder)
        side.ask("spine", path=spine)
        return side


def _inputs(options: argparse.Namespace, place: Place, **kind: Any) -> tuple[Path, Path]:
    say("making data")
    path = data.records(place.data, options.rows, options.entities, features=options.features, **kind)
    spine = data.spine(place.data, options.spine, options.entities, text=kind.get("text", False))
    return path, spine


def _feast(place: Place, stack: ExitStack, report: Report, views: dict[str, Path], spine: Path, **kind: Any) -> Side:
    side = place.peer(stack, "feast")
    report.versions["Feast"] = side.ask("spine", path=spine)["version"]
    side.ask("setup", views={name: str(path) for name, path in views.items()}, **kind)
    return side


def _times(side: Side, **request: Any) -> Callable[[], float]:
    return lambda: side.time("join", **request)


def _wrong(
    place: Place, ours: Side, request: dict[str, Any], others: dict[str, tuple[Side, dict[str, Any]]]
) -> dict[str, str]:
    """How each side's answer differs from ours, cell by cell; empty text where it does not."""
    with place.workspace() as folder:
        mine = _answer(folder, ours, request)
        found = {}
        for name, (side, asked) in others.items():
            theirs = _answer(folder, side, asked)
            if theirs.height != mine.height:
                found[name] = f"answers {theirs.height:,} rows for {mine.height:,}"
                continue
            renamed = theirs.select(mine.columns)
            differ = sum(int((~renamed[each].eq_missing(mine[each])).sum()) for each in mine.columns)
            found[name] = f"{differ:,} of {mine.height * (mine.width - 1):,} cells differ" if differ else ""
        return found


def _answer(folder: Path, side: Side, request: dict[str, Any]) -> pl.DataFrame:
    out = folder / "answer.arrow"
    side.ask("join", **request, out=out)
    frame = pl.DataFrame(pl.from_arrow(feather.read_table(out, memory_map=False)))
    features = sorted(name for name in frame.columns if name not in ("entity", "event_timestamp", "row"))
    return frame.select("row", *features).sort("row")


def _one(report: Report, options: argparse.Namespace, place: Place, stack: ExitStack) -> None:
    path, spine = _inputs(options, place)
    features = data.feature_names(options.features)
    by_key = data.sorted_copy(path)
    table = "One group"
    ours = Ours(report, place, stack)
    ours.load(table, "records", path, options.rows)
    reader = ours.reader(spine)
    request = {"groups": ["records"], "features": features}
    fresh = in_turn({"before": _times(reader, **request)}, options.rounds)
    report.add(table, Line("join before compaction", seconds(fresh.median("before"))))
    ours.compact(table, "records")
    polars = place.polars(stack)
    runs = polars.ask("files", folder=ours.folder)["paths"]
    report.versions["polars"] = polars.ask("spine", path=spine)["version"]
    columns = ["entity", "event_timestamp", *features]
    others: dict[str, tuple[Side, dict[str, Any]]] = {
        "polars join_asof, unsorted file": (polars, {"path": path, "features": features, "is_sorted": False}),
        "polars join_asof, sorted file": (polars, {"path": by_key, "features": features, "is_sorted": True}),
    }
    if place.peers:
        others[_FEAST] = _feast(place, stack, report, {"records": path}, spine), {"views": ["records"]}
        duck = place.peer(stack, "duckdb")
        report.versions["DuckDB"] = duck.ask("spine", path=spine)["version"]
        others["DuckDB ASOF JOIN, unsorted file"] = duck, {"path": path, "features": features}
        others["DuckDB ASOF JOIN, sorted file"] = duck, {"path": by_key, "features": features}
    wrong = _wrong(place, reader, request, others)
    sides = {_OURS: _times(reader, **request)}
    sides |= {name: _times(side, **asked) for name, (side, asked) in others.items()}
    reads = {
        "bare read by polars, same file": lambda: polars.time("read", paths=[str(by_key)], columns=columns),
        "bare read by pyarrow, same file": lambda: polars.time("read_arrow", paths=[str(by_key)], columns=columns),
        "bare read by polars, our files": lambda: polars.time("read", paths=runs, columns=columns),
        "bare read by pyarrow, our files": lambda: polars.time("read_arrow", paths=runs, columns=columns),
    }
    taken = in_turn(sides | reads, options.rounds, say=say)
    report.add(table, Line(_OURS, seconds(taken.median(_OURS)), note=f"peak memory {reader.peak / 1e9:.2f} GB"))
    for name in others:
        report.peer(table, taken, _OURS, name, at_least=3 if name == _FEAST else 1.6, note=wrong[name])
    for file in ("same file", "our files"):
        names = [name for name in reads if name.endswith(file)]
        fastest = min(names, key=taken.median)
        for name in names:
            report.limit(table, taken, _OURS, name, at_most=1.6 if name == fastest else None)


def _pair(
    report: Report,
    table: str,
    options: argparse.Namespace,
    place: Place,
    ours: tuple[Side, dict[str, Any]],
    theirs: tuple[Side, dict[str, Any]] | None,
    at_least: float | None,
) -> Rounds:
    sides = {_OURS: _times(ours[0], **ours[1])}
    wrong = {}
    if theirs is not None:
        wrong = _wrong(place, *ours, {_FEAST: theirs})
        sides[_FEAST] = _times(theirs[0], **theirs[1])
    taken = in_turn(sides, options.rounds, say=say)
    report.add(table, Line(_OURS, seconds(taken.median(_OURS)), note=f"peak memory {ours[0].peak / 1e9:.2f} GB"))
    if theirs is not None:
        report.peer(table, taken, _OURS, _FEAST, at_least=at_least, note=wrong[_FEAST])
    return taken


def _known(report: Report, options: argparse.Namespace, place: Place, stack: ExitStack) -> None:
    path, spine = _inputs(options, place, known=True, seed=2)
    table = 'known_by("row"): only what was known at the row\'s time'
    ours = Ours(report, place, stack)
    ours.load("", "records", path, options.rows, known=True)
    ours.compact("", "records")
    reader = ours.reader(spine)
    request = {"groups": ["records"], "features": data.feature_names(options.features)}
    theirs = None
    if place.peers:
        side = _feast(place, stack, report, {"records": path}, spine, known="known_at")
        theirs = side, {"views": ["records"], "known": True}
    _pair(report, table, options, place, (reader, request | {"known": True}), theirs, 3)
    plain = in_turn({"plain": _times(reader, **request)}, options.rounds)
    report.add(table, Line(f"{_OURS}, the same without known_by", seconds(plain.median("plain"))))


def _tail(report: Report, options: argparse.Namespace, place: Place, stack: ExitStack) -> None:
    path, spine = _inputs(options, place)
    base, tail = data.parts(path, 20, max(1, options.rows // 200))
    table = f"A tail of {len(tail)} runs not yet compacted ({short(options.rows // 200)} records each)"
    ours = Ours(report, place, stack)
    ours.load("", "records", base, options.rows - len(tail) * max(1, options.rows // 200))
    ours.compact("", "records")
    for each in tail:
        ours.add("", "records", each, max(1, options.rows // 200))
    reader = ours.reader(spine)
    request = {"groups": ["records"], "features": data.feature_names(options.features)}
    theirs = None
    if place.peers:
        theirs = _feast(place, stack, report, {"records": path}, spine), {"views": ["records"]}
    _pair(report, table, options, place, (reader, request), theirs, 3)
    ours.compact(table, "records", f"merges the {len(tail)} runs")
    after = in_turn({"after": _times(reader, **request)}, options.rounds)
    report.add(table, Line(f"{_OURS}, after it", seconds(after.median("after"))))


def _strings(report: Report, options: argparse.Namespace, place: Place, stack: ExitStack) -> None:
    path, spine = _inputs(options, place, text=True)
    ours = Ours(report, place, stack)
    ours.load("", "records", path, options.rows)
    ours.compact("", "records")
    request = {"groups": ["records"], "features": data.feature_names(options.features)}
    theirs = None
    if place.peers:
        side = _feast(place, stack, report, {"records": path}, spine, key="string")
        theirs = side, {"views": ["records"]}
    _pair(report, "String keys", options, place, (ours.reader(spine), request), theirs, 3)


def _five(report: Report, options: argparse.Namespace, place: Place, stack: ExitStack) -> None:
    spine = data.spine(place.data, options.spine, options.entities)
    ours = Ours(report, place, stack)
    views = {}
    for number in range(1, 6):
        say(f"group {number}")
        path = data.records(place.data, options.rows, options.entities, features=options.features, seed=number + 10)
        views[f"g{number}"] = path
        ours.load("", f"g{number}", path, options.rows)
        ours.compact("", f"g{number}")
    request = {"groups": list(views), "features": data.feature_names(options.features), "prefix": True}
    theirs = None
    if place.peers:
        theirs = _feast(place, stack, report, views, spine), {"views": list(views)}
    table = f"Five groups of {short(options.rows)} records each"
    _pair(report, table, options, place, (ours.reader(spine), request), theirs, 4)


def _large(report: Report, options: argparse.Namespace, place: Place, stack: ExitStack) -> None:
    entities = options.large // 10
    say("making data")
    path = data.records(place.data, options.large, entities, features=options.features, seed=5)
    spine = data.spine(place.data, options.large_spine, entities)
    table = f"{short(options.large)} records, {short(options.large_spine)} spine rows: peak memory of each process"
    ours = Ours(report, place, stack)
    ours.filler.ask("create", name="records", path=path, online=False)
    took = ours.add("", "records", path, options.large)
    _peak(report, table, "ingest", took, ours.filler.peak)
    ours.filler.close()
    ours.filler = place.ours(stack)
    ours.filler.ask("opened", path=ours.folder)
    took = ours.filler.time("compact", name="records")
    _peak(report, table, "compaction", took, ours.filler.peak)
    ours.filler.close()
    reader = ours.reader(spine)
    request = {"groups": ["records"], "features": data.feature_names(options.features)}
    took = reader.time("join", **request)
    _peak(report, table, "join, result as one Arrow table in memory", took, reader.peak)


def _peak(report: Report, table: str, what: str, took: float, peak: int) -> None:
    report.add(table, Line(what, seconds(took), f"{peak / 1e9:.2f} GB", f"< {MEMORY / 1e9:g} GB", peak < MEMORY))


_RUN = {"one": _one, "known": _known, "tail": _tail, "strings": _strings, "five": _five, "large": _large}

if __name__ == "__main__":
    main()
