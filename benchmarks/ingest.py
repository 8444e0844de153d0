"""Batch ingest from Parquet, against polars reading and writing the same file.

An ingest hashes the source, checks every cell, sorts, ranks, writes sorted runs, flushes them to the disk and commits
them to Delta; polars decodes and encodes, and leaves the flushing to the system.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count

from benchmarks import data
from benchmarks.common import Place, add_common, place_of
from benchmarks.report import Line, Report, say, short
from benchmarks.timing import in_turn

FULL = {"rows": 5_000_000, "online_rows": 1_000_000}
QUICK = {"rows": 50_000, "online_rows": 10_000}
SHAPE = {"floats": 16, "ints": 6, "texts": 5}
"""With the key and the event time, 29 columns."""
_OURS = "tilth, Parquet to Delta"
_BOTH = "tilth, Parquet to Delta and the embedded online store"


def main(arguments: Sequence[str] | None = None) -> Report:
    """Run and print; see ``--help``."""
    parser = argparse.ArgumentParser("python -m benchmarks.ingest", description=__doc__)
    add_common(parser)
    parser.add_argument("--rows", type=int, help="rows of the file")
    parser.add_argument("--online-rows", type=int, help="rows of the file that goes to both stores, one record a key")
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    report = Report(
        "ingest",
        "Batch ingest",
        "uv run python -m benchmarks.ingest",
        f"{short(options.rows)} rows x 29 columns (key, event time, 16 float, 6 int, 5 text), snappy on both sides, "
        f"medians of {options.rounds} rounds in turn.",
        all(getattr(options, name) >= value for name, value in FULL.items()),
    )
    with ExitStack() as stack:
        _run(report, options, place_of(options), stack)
    print(f"saved {report.save()}")
    return report


def _run(report: Report, options: argparse.Namespace, place: Place, stack: ExitStack) -> None:
    table = "Rows per second"
    say("making data")
    path = data.mixed(place.data, options.rows, entities=max(1, options.rows // 10), **SHAPE)
    each = data.mixed(place.data, options.online_rows, **SHAPE)
    folder = stack.enter_context(place.workspace())
    ours, polars = place.ours(stack), place.polars(stack)
    numbers = count()

    def load() -> float:
        """Into a workspace of its own each time: the same content again would be a no-op."""
        where = folder / f"store-{next(numbers)}"
        ours.ask("opened", path=where)
        ours.ask("create", name="rows", path=path, online=False)
        answer = ours.ask("ingest", name="rows", path=path)
        if answer["rows"] != options.rows:
            raise AssertionError(f"{answer['rows']} of {options.rows} rows were loaded")
        ours.ask("close", remove=where)
        return float(answer["seconds"])

    def load_both() -> float:
        where = folder / f"store-{next(numbers)}"
        ours.ask("opened", path=where)
        ours.ask("create", name="rows", path=each, online=True)
        took = ours.time("ingest", name="rows", path=each)
        ours.ask("close", remove=where)
        return took

    def rewrite(streaming: bool) -> Callable[[], float]:
        return lambda: polars.time("rewrite", path=path, out=folder / "copy.parquet", streaming=streaming)

    sides = {
        _OURS: load,
        "polars read_parquet and write_parquet": rewrite(False),
        "polars scan_parquet and sink_parquet": rewrite(True),
    }
    taken = in_turn(sides, options.rounds, say=say)
    peak = f"peak memory {ours.peak / 1e9:.2f} GB"
    report.add(table, Line(_OURS, f"{options.rows / taken.median(_OURS) / 1e3:,.0f} k rows/s", note=peak))
    for name in list(sides)[1:]:
        share = taken.ratio(name, _OURS)
        rate = f"{options.rows / taken.median(name) / 1e3:,.0f} k rows/s"
        report.add(table, Line(name, rate, f"ours reaches {share:.0%} of it", ">= 25%", share >= 0.25))
    both = in_turn({_BOTH: load_both}, max(1, options.rounds - 2), warmup=0, say=say)
    rate = f"{options.online_rows / both.median(_BOTH) / 1e3:,.0f} k rows/s"
    report.add(table, Line(_BOTH, rate, note=f"{short(options.online_rows)} rows, one record a key"))


if __name__ == "__main__":
    main()
