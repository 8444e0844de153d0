"""Scans of a whole table without a spine: each key's online row, every instant of a range, one key's rows.

A scan goes through key ranges of bounded size. Within one, every unit is first reduced on its own (one row per key, or
per key and instant), so that memory follows the answers, not the rows read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.offline import Snapshot
from featurestore.pit.gather import gather
from featurestore.pit.kernel import Bools, Ints, last_before
from featurestore.pit.queries import key_frame, key_table, match_keys, prepare
from featurestore.pit.questions import Asked, SpineRows
from featurestore.pit.reader import Decoded, Facts, Reader, Unit, Wanted, check_columns
from featurestore.pit.search import existing
from foundation.errors import InvalidInput

__all__ = ["latest_rows", "range_rows", "rows_of"]

_PIECE_ROWS = 2_000_000
_SLAB_ROWS = 250_000


def rows_of(snapshot: Snapshot, key: tuple[Any, ...], *, as_of: int | None = None) -> pa.Table:
    """All rows of one key, ordered by (event time, rank): every offline column.

    ``write_time`` is the effective one: a bulk load's rows carry its commit instant where that is later.

    Args:
        snapshot: the group's table.
        key: one value per identifier column.
        as_of: leave out rows written after this instant.

    Raises:
        InvalidInput: the key does not fit the group's identifier columns.
        NotFound: a file was vacuumed away.
        PlatformError: a damaged or unsorted file, named.
    """
    return pa.concat_tables([table for _, table in key_rows(Reader(snapshot), key, as_of=as_of)]).sort_by(
        [(snapshot.group.event_time, "ascending"), ("tilth_rank", "ascending")]
    )


def key_rows(reader: Reader, key: tuple[Any, ...], *, as_of: int | None = None) -> list[tuple[int, pa.Table]]:
    """The rows of one key as (run, its rows of that run), an empty table of run -1 among them."""
    group = reader.snapshot.group
    keys = key_table(group, key)
    queries, usable = prepare(SpineRows(keys, np.zeros(1, np.int64), np.ones(1, np.bool_)))
    if not usable.all():
        raise InvalidInput(f"key {key!r} has a null", subject="key", hint="give a value for every identifier column")
    found = [(-1, reader.schema.empty_table())]
    for unit in reader.units:
        facts = unit.facts
        low, high = queries.key_range(unit.bounds)
        if low == high or (as_of is not None and facts.writes is not None and facts.writes[0] > as_of):
            continue
        decoded = reader.decode(unit, Wanted())
        place = int(match_keys(queries, 0, 1, decoded.keys)[0])
        if place < 0:
            continue
        first, end = (int(side[place]) for side in decoded.slices)
        got = reader.read(unit, reader.schema.names)
        table = pa.table(got, schema=reader.schema).slice(first, end - first)
        table = _with_commit(table, reader.snapshot.runs[unit.run].committed_at)
        if as_of is not None:
            table = table.filter(pc.less_equal(table["write_time"].cast(pa.int64()), as_of))
        found.append((unit.run, table))
    return found


def _with_commit(table: pa.Table, committed_at: int) -> pa.Table:
    place = table.schema.get_field_index("write_time")
    return table.set_column(place, table.schema.field(place), _at_least(table.column(place), committed_at))


def _at_least(column: pa.ChunkedArray, least: int | Ints) -> pa.ChunkedArray:
    """Instants, none before ``least``."""
    later = pc.max_element_wise(
        column.cast(pa.int64()), pa.scalar(least) if isinstance(least, int) else pa.array(least)
    )
    return pa.chunked_array([later.combine_chunks() if isinstance(later, pa.ChunkedArray) else later]).cast(column.type)


def latest_rows(snapshot: Snapshot) -> Iterator[pa.Table]:
    """For each key the row the online store must hold, in key order, in pieces of bounded size.

    That is ``featurestore.records.fold`` over the rows meant for the online store: rows sequenced before the latest
    hard delete do not exist; of the others the greatest (event time, rank) stays, tombstones included; where none is
    left, the hard delete itself. Every offline column, and int64 ``barrier``: the hard delete's sequence, 0 for none.

    Raises:
        NotFound: a file was vacuumed away.
        PlatformError: a damaged or unsorted file, named.
    """
    reader = Reader(snapshot)
    schema = reader.schema.append(pa.field("barrier", pa.int64()))
    wanted = Wanted(rank=True, hards=True, offline_only=True)

    def reduce(decoded: Decoded, rows: Ints, limits: Ints) -> tuple[Bools, Ints]:
        assert decoded.rank is not None
        sequences = np.abs(decoded.rank[rows])
        stands = sequences >= limits
        if decoded.offline_only is not None:
            stands &= ~decoded.offline_only[rows]
        # a barrier stands only until an ordinary row follows it: the order of ``grade``
        grade = np.ones(len(rows), np.int64)
        if decoded.hard is not None:
            grade[decoded.hard[rows]] = 0
        return stands, grade

    for winners in _pieces(reader, wanted, Asked(()), reduce, per_instant=False, online=True):
        for table, slab in _fetch(reader, winners, reader.schema.names):
            yield pa.Table.from_arrays([*table.values(), pa.chunked_array([slab["limit"].to_arrow()])], schema=schema)


def range_rows(snapshot: Snapshot, asked: Asked) -> Iterator[pa.Table]:
    """Every record of ``asked.event_range`` without a spine: one row per (key, event time), in key order, in pieces.

    Each instant is judged as a row at that instant would be: of the rows that exist by ``as_of`` and are not behind a
    hard delete up to then the greatest rank wins, and an instant whose winner is a tombstone is left out (passed over
    under ``include_deleted``). Expiry and age do not apply.

    Returns:
        Tables of the key columns, the event time and the asked features.

    Raises:
        NotFound: an unknown feature, or a file that was vacuumed away.
        InvalidInput: options that need a spine (recent, label_within).
        PlatformError: a damaged or unsorted file, named.
    """
    check_columns(snapshot, asked.features)
    if asked.recent is not None or asked.label_within is not None:
        raise InvalidInput("recent records and labels need a spine", subject="event_range", hint="give a spine")
    reader = Reader(snapshot)
    group = snapshot.group
    fixed = [*group.record_id, group.event_time]
    names = [*fixed, *(name for name in asked.features if name not in fixed)]
    wanted = Wanted(rank=True, deletes=True, hards=True, writes=asked.as_of is not None)

    def reduce(decoded: Decoded, rows: Ints, limits: Ints) -> tuple[Bools, Ints]:
        assert decoded.rank is not None
        stands = np.abs(decoded.rank[rows]) > limits
        grade = np.ones(len(rows), np.int64)
        if decoded.deleted is not None:
            grade[decoded.deleted[rows]] = 0
        return stands, grade

    for winners in _pieces(reader, wanted, asked, reduce, per_instant=True, online=False):
        winners = winners.filter(pl.col("grade") == 1)
        for table, _ in _fetch(reader, winners, names):
            yield pa.table(table)


class _Hards(NamedTuple):
    """Hard deletes of a key range: keys with the slice of their deletes, which ascend by event time."""

    keys: pl.DataFrame
    events: Ints
    greatest: Ints


Reduce = Callable[[Decoded, Ints, Ints], tuple[Bools, Ints]]
"""(unit, rows, limit of each) -> (whether each stands, its grade)."""


def _pieces(
    reader: Reader, wanted: Wanted, asked: Asked, reduce: Reduce, *, per_instant: bool, online: bool
) -> Iterator[pl.DataFrame]:
    """The winning rows of one key range after another: frames sorted by key (and event time)."""
    names = [f"k{i}" for i in range(len(reader.snapshot.group.record_id))]
    last_by = [*names, "event"] if per_instant else names
    # online, an ordinary row beats a barrier whatever its time; in history a tombstone is a row like any other
    sort_by = [*last_by, "grade", "event", "rank"] if online else [*last_by, "rank"]
    for bounds in _key_ranges(reader):
        units = [unit for unit in reader.units if _within(unit, bounds) and not _too_late(unit.facts, asked.as_of)]
        hards = _hards(reader, units, asked, online=online)
        frames = []
        for unit in units:
            if not online and _outside(unit.facts, asked.event_range):
                continue
            frame = _reduced(reader, unit, wanted, asked, reduce, hards, bounds, per_instant, online)
            if frame.height:
                frames.append(frame)
        if not frames:
            continue
        whole = pl.concat(frames).sort(sort_by)
        yield whole.filter(_last_of(whole, last_by))


def _reduced(
    reader: Reader,
    unit: Unit,
    wanted: Wanted,
    asked: Asked,
    reduce: Reduce,
    hards: _Hards | None,
    bounds: tuple[Any, Any],
    per_instant: bool,
    online: bool,
) -> pl.DataFrame:
    """A unit's own winners within a key range: keys, event, rank, unit, row, limit, grade."""
    decoded = reader.decode(unit, wanted)
    assert decoded.rank is not None
    keys = key_frame(decoded.keys)
    starts, ends = decoded.slices
    inside = _inside(keys["k0"], bounds)
    first, end = (int(starts[inside[0]]), int(ends[inside[-1]])) if len(inside) else (0, 0)
    rows = np.arange(first, end)
    place = np.searchsorted(starts, rows, side="right") - 1
    if not online:
        view, _, _ = existing(decoded, asked, unit)
        if view.rows is not None:
            there = np.zeros(unit.rows, np.bool_)
            there[view.rows] = True
            rows, place = rows[there[rows]], place[there[rows]]
    limits = _limits(hards, keys, place, decoded.events[rows], online=online)
    stands, grade = reduce(decoded, rows, limits)
    rows, place, grade, limits = rows[stands], place[stands], grade[stands], limits[stands]
    if online and decoded.hard is not None:
        order = np.lexsort((np.arange(len(rows)), grade, place))
        rows, place, grade, limits = rows[order], place[order], grade[order], limits[order]
    final = np.ones(len(rows), np.bool_)
    if len(rows):
        final[:-1] = place[1:] != place[:-1]
        if per_instant:
            final[:-1] |= decoded.events[rows[1:]] != decoded.events[rows[:-1]]
    rows, place = rows[final], place[final]
    return keys[place].with_columns(
        event=decoded.events[rows],
        rank=decoded.rank[rows],
        unit=np.full(len(rows), unit.number, np.int32),
        row=rows.astype(np.int32),
        limit=limits[final],
        grade=grade[final],
    )


def _hards(reader: Reader, units: list[Unit], asked: Asked, *, online: bool) -> _Hards | None:
    frames = []
    for unit in units:
        if not unit.facts.hards:
            continue
        decoded = reader.decode(
            unit, Wanted(rank=True, hards=True, writes=asked.as_of is not None, offline_only=online)
        )
        hard = decoded.hard
        if hard is None or decoded.rank is None:
            continue
        if decoded.writes is not None and asked.as_of is not None:
            hard = hard & (decoded.writes <= asked.as_of)
        if decoded.offline_only is not None:
            hard = hard & ~decoded.offline_only
        rows = np.flatnonzero(hard)
        keys = key_frame(decoded.keys)[np.searchsorted(decoded.starts, rows, side="right") - 1]
        frames.append(keys.with_columns(event=decoded.events[rows], sequence=np.abs(decoded.rank[rows])))
    if not frames or not any(frame.height for frame in frames):
        return None
    whole = pl.concat(frames)
    names = whole.columns[:-2]
    whole = whole.sort([*names, "event"]).with_columns(pl.col("sequence").cum_max().over(names)).with_row_index("at")
    keys = whole.group_by(names, maintain_order=True).agg(
        pl.col("at").min().cast(pl.Int64).alias("low"), pl.len().cast(pl.Int64).alias("count")
    )
    return _Hards(keys, whole["event"].to_numpy(), whole["sequence"].to_numpy())


def _limits(hards: _Hards | None, keys: pl.DataFrame, place: Ints, events: Ints, *, online: bool) -> Ints:
    """For each row the sequence of the hard delete it must not stand behind: the latest of all, or up to its time."""
    limits = np.zeros(len(place), np.int64)
    if hards is None or not len(place):
        return limits
    joined = keys.join(hards.keys, on=keys.columns, how="left", maintain_order="left")
    low = joined["low"].fill_null(0).to_numpy()[place]
    high = low + joined["count"].fill_null(0).to_numpy()[place]
    under = np.flatnonzero(high > low)
    low, high = low[under], high[under]
    last = high - 1 if online else last_before(hards.events, low, high, events[under])
    hit = last >= low
    limits[under[hit]] = hards.greatest[last[hit]]
    return limits


def _fetch(
    reader: Reader, winners: pl.DataFrame, names: list[str]
) -> Iterator[tuple[dict[str, pa.ChunkedArray], pl.DataFrame]]:
    for start in range(0, winners.height, _SLAB_ROWS):
        slab = winners.slice(start, _SLAB_ROWS)
        target = np.arange(slab.height)
        got = gather(reader, slab["unit"].to_numpy(), slab["row"].to_numpy(), target, slab.height, names)
        yield _committed(reader, slab, got), slab


def _committed(reader: Reader, slab: pl.DataFrame, got: dict[str, pa.ChunkedArray]) -> dict[str, pa.ChunkedArray]:
    if "write_time" in got and any(run.committed_at for run in reader.snapshot.runs):
        commits = np.array([reader.snapshot.runs[unit.run].committed_at for unit in reader.units], np.int64)
        got["write_time"] = _at_least(got["write_time"], commits[slab["unit"].to_numpy()])
    return got


def _key_ranges(reader: Reader) -> Iterator[tuple[Any, Any]]:
    """(from, below) ranges of the first key column, None for an open end, of about ``_PIECE_ROWS`` rows."""
    if any(unit.bounds is None for unit in reader.units):
        yield None, None
        return
    low: Any = None
    rows = 0
    starts: list[tuple[Any, int]] = [(unit.bounds[0], unit.rows) for unit in reader.units if unit.bounds is not None]
    for start, count in sorted(starts):
        if rows >= _PIECE_ROWS and (low is None or start > low):
            yield low, start
            low, rows = start, 0
        rows += count
    yield low, None


def _within(unit: Unit, bounds: tuple[Any, Any]) -> bool:
    low, high = bounds
    if unit.bounds is None:
        return True
    return not ((low is not None and unit.bounds[1] < low) or (high is not None and unit.bounds[0] >= high))


def _too_late(facts: Facts, as_of: int | None) -> bool:
    return as_of is not None and facts.writes is not None and facts.writes[0] > as_of


def _outside(facts: Facts, event_range: tuple[int | None, int | None]) -> bool:
    start, end = event_range
    if facts.events is None:
        return False
    return (start is not None and facts.events[1] < start) or (end is not None and facts.events[0] > end)


def _inside(leading: pl.Series, bounds: tuple[Any, Any]) -> Ints:
    """Places of distinct keys (in order) whose first column lies in [from, below)."""
    low, high = bounds
    inside: Bools = np.ones(len(leading), np.bool_)
    if low is not None:
        inside &= (leading >= low).to_numpy()
    if high is not None:
        inside &= (leading < high).to_numpy()
    return np.flatnonzero(inside)


def _last_of(frame: pl.DataFrame, names: list[str]) -> pl.Series:
    """True at the last row of each run of equal values."""
    differs = pl.any_horizontal([pl.col(name) != pl.col(name).shift(-1) for name in names])
    return frame.select(differs.fill_null(True)).to_series()
