"""Point-in-time answers from a group's history: joins, labels, recent records, scans, and why a row won.

Planning and assembly: ``kernel`` searches, ``offline.reader`` reads, ``search`` merges, ``gather`` fetches. Of all rows
of a key that exist for a question the greatest (event time, rank) wins; one result row per spine row, in its order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.offline import Snapshot
from featurestore.pit.barriers import Barriers, collect_barriers
from featurestore.pit.candidates import explain
from featurestore.pit.gather import array_of, gather
from featurestore.pit.kernel import Bools, Ints
from featurestore.pit.queries import Queries, prepare
from featurestore.pit.questions import REASONS, Answered, Asked, Candidate, SpineRows
from featurestore.pit.reader import Reader, Unit, check_columns
from featurestore.pit.scans import latest_rows, range_rows, rows_of
from featurestore.pit.search import Found, each_unit, plan_units, search
from foundation.errors import InvalidInput
from foundation.schema import INSTANT

__all__ = [
    "REASONS",
    "Answered",
    "Asked",
    "Candidate",
    "SpineRows",
    "answer",
    "explain",
    "latest_rows",
    "range_rows",
    "rows_of",
]

_NULL, _NONE, _DELETED, _EXPIRED, _OLD, _IMMATURE = range(1, 7)
_LABEL_SLOTS = 64

Progress = Callable[[float], None]


class _Winners(NamedTuple):
    """The rows that are served, flat: some queries have none, some (``recent``) several, newest first.

    Attributes:
        query: int64 query of each.
        unit, row: int32 where they stand.
        event: int64 event time.
        why_not: uint8 per query: 0 where something is served.
    """

    query: Ints
    unit: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    event: Ints
    why_not: npt.NDArray[np.uint8]


def answer(
    snapshot: Snapshot,
    asked: Asked,
    spine: SpineRows,
    *,
    evidence: bool = False,
    threads: int = 2,
    progress: Progress | None = None,
) -> Answered:
    """Join one group to a spine.

    Args:
        snapshot: the group's table.
        asked: what is wanted.
        spine: the rows.
        evidence: also say when each record was known.
        threads: worker threads.
        progress: told the fraction done, 0 to 1.

    Raises:
        NotFound: an unknown feature, or a file that was vacuumed away.
        InvalidInput: a question that makes no sense, or key columns that are not the group's.
        PlatformError: a damaged or unsorted file, named.
    """
    _check(snapshot, asked, spine)
    if asked.label_within is not None and spine.known is not None:
        spine = dataclasses.replace(spine, known=None, known_valid=None)
    queries, usable = prepare(spine)
    reader = Reader(snapshot)
    half = (lambda done: progress(done / 2)) if progress else None
    rest = (lambda done: progress(0.5 + done / 2)) if progress else None
    if asked.label_within is not None:
        winners = _find_labels(reader, queries, asked, threads, half)
    else:
        winners = _find(reader, queries, asked, threads, half)
    answered = _assemble(reader, queries, asked, winners, usable, evidence=evidence, threads=threads, progress=rest)
    if progress:
        progress(1.0)
    return answered


def _check(snapshot: Snapshot, asked: Asked, spine: SpineRows) -> None:
    check_columns(snapshot, asked.features)
    group = snapshot.group
    schema = group.schema.arrow
    if spine.keys.column_names != list(group.record_id):
        raise InvalidInput(
            f"key columns {spine.keys.column_names} are not those of group {group.name!r}",
            subject=f"feature group {group.name!r}",
            hint=f"give {list(group.record_id)}",
        )
    for field in spine.keys.schema:
        if field.type != schema.field(field.name).type:
            raise InvalidInput(
                f"key column {field.name!r} is {field.type}, group {group.name!r} has {schema.field(field.name).type}",
                subject=f"column {field.name!r}",
                hint="cast the spine's key to the group's type",
            )
    if asked.recent is not None and (asked.recent < 1 or asked.label_within is not None):
        raise InvalidInput(f"recent={asked.recent} is not a positive count without a label", subject="recent")
    if asked.label_within is not None and asked.label_within < 0:
        raise InvalidInput(f"label_within={asked.label_within} is negative", subject="label_within")


def _find(reader: Reader, queries: Queries, asked: Asked, threads: int, progress: Progress | None) -> _Winners:
    units = plan_units(reader, queries, asked)
    barriers = _barriers(reader, queries, asked, threads)
    slots = asked.recent or 1
    found = search(reader, queries, asked, units, barriers, slots=slots, threads=threads, progress=progress)
    there = found.unit >= 0
    why = np.zeros(len(queries), np.uint8)
    if found.deleted is not None:
        dead = there & found.deleted
        why[dead[:, 0]] = _DELETED
        there &= ~np.logical_or.accumulate(dead, axis=1)
    why[found.unit[:, 0] < 0] = _NONE
    times = queries.times[:, None]
    for reason, late in ((_EXPIRED, _expired(found, times)), (_OLD, _too_old(found, times, asked))):
        if late is not None:
            late = there & late
            why[late[:, 0]] = reason
            there &= ~late
    query, slot = np.nonzero(there) if slots > 1 else (np.flatnonzero(there[:, 0]), np.int64(0))
    why[query] = 0
    return _Winners(query, found.unit[query, slot], found.row[query, slot], found.event[query, slot], why)


def _expired(found: Found, times: Ints) -> Bools | None:
    return None if found.expires is None else found.expires <= times


def _too_old(found: Found, times: Ints, asked: Asked) -> Bools | None:
    return None if asked.max_age is None else times - found.event > asked.max_age


def _barriers(reader: Reader, queries: Queries, asked: Asked, threads: int) -> Barriers:
    return collect_barriers(reader, queries, asked, lambda units, work: each_unit(units, work, threads=threads))


def _find_labels(reader: Reader, queries: Queries, asked: Asked, threads: int, progress: Progress | None) -> _Winners:
    """The first record after each query that is no tombstone; looks further only behind tombstones."""
    count = len(queries)
    why = np.full(count, _NONE, np.uint8)
    unit = np.full(count, -1, np.int32)
    row = np.zeros(count, np.int32)
    event = np.zeros(count, np.int64)
    mature = queries.times <= asked.matured_by - (asked.label_within or 0)
    why[~mature] = _IMMATURE
    open_ = np.flatnonzero(mature)
    queries = queries.select(open_)
    barriers = _barriers(reader, queries, asked, threads)
    after: Ints | None = None
    slots = 1
    while len(queries):
        units = plan_units(reader, queries, asked)
        found = search(
            reader, queries, asked, units, barriers, slots=slots, after=after, threads=threads, progress=progress
        )
        live = found.unit >= 0
        if found.deleted is not None:
            live &= ~found.deleted
        slot = live.argmax(axis=1)
        won = np.flatnonzero(live.any(axis=1))
        place = open_[won]
        unit[place], row[place] = found.unit[won, slot[won]], found.row[won, slot[won]]
        event[place] = found.event[won, slot[won]]
        why[place] = 0
        more = np.flatnonzero((found.unit[:, -1] >= 0) & ~live.any(axis=1))
        seen = np.flatnonzero((found.unit[:, 0] >= 0) & ~live.any(axis=1))
        why[open_[seen]] = _DELETED
        open_, after = open_[more], found.event[more, -1]
        queries = queries.select(more)
        barriers = barriers.select(more, queries)
        slots = min(4 * slots, _LABEL_SLOTS)
    won = np.flatnonzero(why == 0)
    return _Winners(won, unit[won], row[won], event[won], why)


def _assemble(
    reader: Reader,
    queries: Queries,
    asked: Asked,
    winners: _Winners,
    usable: Bools,
    *,
    evidence: bool,
    threads: int,
    progress: Progress | None,
) -> Answered:
    total = queries.total
    why = np.full(total, _NULL, np.uint8)
    why[queries.order] = winners.why_not
    matched = why == 0
    spine_row = queries.order[winners.query]
    first = np.ones(len(spine_row), np.bool_)
    first[1:] = winners.query[1:] != winners.query[:-1]
    heads = np.flatnonzero(first) if asked.recent is not None else slice(None)
    event_time = np.zeros(total, np.int64)
    event_time[spine_row[heads]] = winners.event[heads]
    offsets: Ints | None = None
    target, length = spine_row, total
    if asked.recent is not None:
        counts = np.zeros(total, np.int64)
        ends = np.append(np.flatnonzero(first)[1:], len(first))
        counts[spine_row[heads]] = ends - np.flatnonzero(first) if len(first) else 0
        offsets = np.zeros(total + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        within = np.arange(len(first)) - np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))
        target, length = offsets[spine_row] + within, len(first)
    names = [name for name in asked.features if name != reader.snapshot.group.event_time]
    got = gather(reader, winners.unit, winners.row, target, length, names, threads=threads, progress=progress)
    if reader.snapshot.group.event_time in asked.features:
        cells, valid = np.zeros(length, np.int64), np.zeros(length, np.bool_)
        cells[target], valid[target] = winners.event, True
        got[reader.snapshot.group.event_time] = pa.chunked_array([array_of(cells, valid, INSTANT)])
    known_at, declared = np.empty(0, np.int64), np.empty(0, np.bool_)
    if evidence:
        known, was_declared = _known(reader, winners, threads)
        known_at, declared = np.zeros(total, np.int64), np.zeros(total, np.bool_)
        order = np.argsort(known, kind="stable") if asked.recent is not None else slice(None)
        known_at[spine_row[order]], declared[spine_row[order]] = known[order], was_declared[order]
    fields = [reader.schema.field(name) for name in asked.features]
    columns = [got[field.name] for field in fields]
    if offsets is not None:
        columns = [_listed(column, offsets, matched) for column in columns]
        fields = [pa.field(field.name, column.type) for field, column in zip(fields, columns, strict=True)]
    table = pa.Table.from_arrays(columns, schema=pa.schema(fields)) if fields else _no_columns(total)
    return Answered(table, matched, event_time, known_at, declared, why)


def _no_columns(rows: int) -> pa.Table:
    return pa.table({"": pa.nulls(rows)}).select([])


def _listed(column: pa.ChunkedArray, offsets: Ints, matched: Bools) -> pa.ChunkedArray:
    """A list column over flat values, null where nothing matched."""
    values = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    rows = len(offsets) - 1
    buffers = [
        None if matched.all() else pa.py_buffer(np.packbits(matched, bitorder="little")),
        pa.py_buffer(offsets.astype(np.int32)),
    ]
    nulls = rows - int(np.count_nonzero(matched))
    kind = pa.list_(values.type)
    return pa.chunked_array([pa.Array.from_buffers(kind, rows, buffers, nulls, children=[values])])


def _known(reader: Reader, winners: _Winners, threads: int) -> tuple[Ints, Bools]:
    """When each winner was known, and whether that was declared; reads only where footers leave it open."""
    known = np.zeros(len(winners.unit), np.int64)
    declared = np.zeros(len(winners.unit), np.bool_)
    fixed = np.array([_fixed_write(unit) for unit in reader.units], np.int64)
    settled = np.array([_is_settled(unit) for unit in reader.units], np.bool_)
    if len(fixed):
        known = fixed[winners.unit]
        open_ = np.flatnonzero(~settled[winners.unit])
    else:
        open_ = np.empty(0, np.int64)
    if not len(open_):
        return known, declared
    names = ["write_time", "tilth_known_at"]
    unit, row = winners.unit[open_], winners.row[open_]
    got = gather(reader, unit, row, np.arange(len(open_)), len(open_), names, threads=threads)
    committed = np.array([reader.snapshot.runs[each.run].committed_at for each in reader.units], np.int64)
    write = got["write_time"].combine_chunks().cast(pa.int64()).fill_null(0).to_numpy()
    told = got["tilth_known_at"].combine_chunks().cast(pa.int64())
    declared[open_] = told.is_valid().to_numpy(zero_copy_only=False)
    recorded = np.maximum(write, committed[unit])
    known[open_] = np.where(declared[open_], told.fill_null(0).to_numpy(), recorded)
    return known, declared


def _is_settled(unit: Unit) -> bool:
    writes = unit.facts.writes
    return not unit.facts.declares and writes is not None and writes[0] == writes[1]


def _fixed_write(unit: Unit) -> int:
    return unit.facts.writes[0] if unit.facts.writes is not None else 0
