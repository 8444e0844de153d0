"""Reading runs by row group: what footers prove, the columns asked for and no others, order checked on the way.

A *unit* is one row group of one run: sorted rows that can be searched without any other. Statistics in the footers
prune units a question cannot touch and tell which system columns need not be read at all.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.offline import Snapshot, offline_schema
from featurestore.pit.arrays import KeyColumn, differs, null_mask, plain, rising, taken
from featurestore.pit.kernel import NEVER, Bools, Ints, slices_of
from foundation.errors import InvalidInput, NotFound, PlatformError

__all__ = [
    "Bound",
    "Decoded",
    "Facts",
    "Reader",
    "Unit",
    "Wanted",
    "check_columns",
    "overlapping_runs",
]

Bound: TypeAlias = int | str
"""An end of a unit's range on its first key column, as it sorts: instants, dates and booleans are ints."""
_OPEN_FILES = 16


class Facts(NamedTuple):
    """What a unit's footer proves, so that a column need not be read.

    Attributes:
        events: (least, greatest) event time, None if unknown.
        writes: (least, greatest) effective write time, None if unknown.
        deletes, hards, expires, declares, offline_only: whether such rows may be there.
    """

    events: tuple[int, int] | None
    writes: tuple[int, int] | None
    deletes: bool
    hards: bool
    expires: bool
    declares: bool
    offline_only: bool


class Unit(NamedTuple):
    """One row group of one run.

    Attributes:
        number: place among all units of the snapshot: by run, then by row group.
        run: index into ``snapshot.runs``.
        group: row group number.
        rows: row count.
        bounds: (least, greatest) value of the first key column, None if unknown.
        facts: what the footer proves.
    """

    number: int
    run: int
    group: int
    rows: int
    bounds: tuple[Bound, Bound] | None
    facts: Facts


class Wanted(NamedTuple):
    """Which system columns a question needs; a unit's facts may spare them."""

    rank: bool = False
    deletes: bool = False
    hards: bool = False
    expires: bool = False
    writes: bool = False
    known: bool = False
    offline_only: bool = False


class Decoded(NamedTuple):
    """A unit's columns as a search wants them; one slice per key.

    Attributes:
        starts: int64 first row of each key.
        keys: the distinct keys in order, one array per key column (int64, or Arrow strings).
        events: int64 event times.
        rank: int64 ranks; None if not wanted.
        deleted, hard, offline_only: bool flags; None for all False (or not wanted).
        expires: int64 expiry, NEVER where there is none; None for never.
        writes: int64 effective write times (a bulk load's commit instant where that is later); None if not wanted.
        known: int64 effective known times; None if not wanted.
        declared: bool: ``known`` was declared; None for nowhere.
    """

    starts: Ints
    keys: list[KeyColumn]
    events: Ints
    rank: Ints | None = None
    deleted: Bools | None = None
    hard: Bools | None = None
    expires: Ints | None = None
    writes: Ints | None = None
    known: Ints | None = None
    declared: Bools | None = None
    offline_only: Bools | None = None

    @property
    def slices(self) -> tuple[Ints, Ints]:
        """(low, high) of each key's rows."""
        return slices_of(self.starts, len(self.events))


class Reader:
    """Reads the units of a snapshot; safe to share between threads.

    Args:
        snapshot: what to read.

    Raises:
        NotFound: a file is gone (vacuumed away).
        PlatformError: a file is not a whole Parquet file, or a column in it has another type.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.schema = offline_schema(snapshot.group)
        self._remote = not str(snapshot.files.url).startswith("file:")
        self._local = threading.local()
        self._footers: list[pq.FileMetaData] = []
        self._columns: list[dict[str, int]] = []
        self._cast: list[frozenset[str]] = []
        units: list[Unit] = []
        for run in range(len(snapshot.runs)):
            units += self._open_run(run, len(units))
        self.units: tuple[Unit, ...] = tuple(units)

    def path(self, run: int) -> str:
        """A run's file below the root of the snapshot's files."""
        return f"{self.snapshot.folder}/{self.snapshot.runs[run].path}"

    def read(self, unit: Unit, columns: Sequence[str]) -> dict[str, pa.Array]:
        """Columns of a unit, each one array of the offline schema's type; a column the file lacks is all null.

        Raises:
            NotFound: the file is gone.
            PlatformError: the file is damaged.
        """
        there = [name for name in columns if name in self._columns[unit.run]]
        got: dict[str, pa.Array] = {}
        if there:
            with self._damage(unit.run):
                table = self._file(unit.run).read_row_group(unit.group, columns=there, use_threads=False)
                for name in there:
                    column = table.column(name)
                    if name in self._cast[unit.run]:
                        column = column.cast(self.schema.field(name).type)
                    got[name] = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        for name in columns:
            if name not in got:
                got[name] = pa.nulls(unit.rows, self.schema.field(name).type)
        return got

    def decode(self, unit: Unit, wanted: Wanted) -> Decoded:
        """Read what a search needs and check that the rows are in order.

        Raises:
            NotFound: the file is gone.
            PlatformError: the file is damaged or its rows are not sorted by (key, event time, rank).
        """
        group, facts = self.snapshot.group, unit.facts
        committed = self.snapshot.runs[unit.run].committed_at
        fixed_write = facts.writes[0] if facts.writes and facts.writes[0] == facts.writes[1] else None
        need_writes = (wanted.writes or wanted.known) and fixed_write is None
        asked = {
            "tilth_rank": wanted.rank,
            "is_deleted": wanted.deletes and facts.deletes,
            "tilth_hard": wanted.hards and facts.hards,
            "tilth_expires_at": wanted.expires and facts.expires,
            "write_time": need_writes,
            "tilth_known_at": wanted.known and facts.declares,
            "tilth_offline_only": wanted.offline_only and facts.offline_only,
        }
        names = [*group.record_id, group.event_time, *(name for name, needed in asked.items() if needed)]
        got = self.read(unit, names)
        for name in (*group.record_id, group.event_time, *(["tilth_rank"] if wanted.rank else [])):
            if got[name].null_count:
                raise self._disorder(unit, f"a null in {name!r}")
        events = plain(got[group.event_time])
        rank = plain(got["tilth_rank"]) if wanted.rank else None
        keys = [plain(got[name]) for name in group.record_id]
        starts = self._ordered(unit, keys, events, rank)
        writes = known = declared = None
        if wanted.writes or wanted.known:
            if fixed_write is not None:
                writes = np.full(unit.rows, fixed_write, np.int64)
            else:
                writes = np.maximum(_filled(got["write_time"], 0), committed)
        if wanted.known and writes is not None:
            known = writes
            if asked["tilth_known_at"]:
                declared = ~null_mask(got["tilth_known_at"])
                known = np.where(declared, plain(got["tilth_known_at"]), writes)
        return Decoded(
            starts,
            [taken(key, starts) for key in keys],
            events,
            rank,
            _flags(got, "is_deleted"),
            _flags(got, "tilth_hard"),
            _filled(got["tilth_expires_at"], NEVER) if asked["tilth_expires_at"] else None,
            writes if wanted.writes else None,
            known,
            declared,
            _flags(got, "tilth_offline_only"),
        )

    def _open_run(self, run: int, number: int) -> Iterator[Unit]:
        with self._damage(run), self.snapshot.files.filesystem.open_input_file(self.path(run)) as stream:
            file = pq.ParquetFile(stream)
            footer, schema = file.metadata, file.schema_arrow
        self._footers.append(footer)
        there = {name: schema.field(name).type for name in schema.names if name in self.schema.names}
        leaves = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
        self._columns.append({name: leaves.get(name, -1) for name in there})
        self._cast.append(frozenset(name for name, kind in there.items() if kind != self.schema.field(name).type))
        group = self.snapshot.group
        missing = [name for name in (*group.record_id, group.event_time, "tilth_rank") if name not in there]
        if missing:
            raise PlatformError(
                f"file {self.path(run)} lacks column {missing[0]!r}",
                subject=f"file {self.path(run)}",
                hint="another tool wrote into this table; restore it from an earlier version",
            )
        units: list[Unit] = []
        for part in range(footer.num_row_groups):
            rows = footer.row_group(part).num_rows
            if rows:
                facts = self._facts(run, part)
                bounds = self._bounds(run, part, group.record_id[0])
                units.append(Unit(number + len(units), run, part, rows, bounds, facts))
        return iter(units)

    def _stats(self, run: int, part: int, name: str) -> pq.Statistics | None:
        place = self._columns[run].get(name, -1)
        if place < 0 or name in self._cast[run]:
            return None
        return self._footers[run].row_group(part).column(place).statistics

    def _bounds(self, run: int, part: int, name: str) -> tuple[Any, Any] | None:
        stats = self._stats(run, part, name)
        if stats is None or not stats.has_min_max:
            return None
        low, high = stats.min_raw, stats.max_raw
        if isinstance(low, bytes):
            try:
                return low.decode(), high.decode()
            except UnicodeDecodeError:
                return None
        return int(low), int(high)

    def _facts(self, run: int, part: int) -> Facts:
        committed = self.snapshot.runs[run].committed_at
        writes = self._bounds(run, part, "write_time")
        if writes is not None:
            writes = max(writes[0], committed), max(writes[1], committed)
        events = self._bounds(run, part, self.snapshot.group.event_time)

        def may(name: str) -> bool:
            if name not in self._columns[run]:
                return False
            stats = self._stats(run, part, name)
            if stats is None:
                return True
            if stats.has_min_max:
                return bool(stats.max_raw)
            return not (stats.has_null_count and stats.num_values == 0)

        def some(name: str) -> bool:
            if name not in self._columns[run]:
                return False
            stats = self._stats(run, part, name)
            rows = self._footers[run].row_group(part).num_rows
            return stats is None or not stats.has_null_count or stats.null_count < rows

        stats = self._stats(run, part, "write_time")
        if stats is None or not stats.has_null_count or stats.null_count:
            writes = None
        return Facts(
            events,
            writes,
            may("is_deleted"),
            may("tilth_hard"),
            some("tilth_expires_at"),
            some("tilth_known_at"),
            may("tilth_offline_only"),
        )

    def _file(self, run: int) -> pq.ParquetFile:
        """This thread's handle on a run; a thread keeps a few open."""
        held: OrderedDict[int, pq.ParquetFile] | None = getattr(self._local, "held", None)
        if held is None:
            held = self._local.held = OrderedDict()
        if run in held:
            held.move_to_end(run)
            return held[run]
        stream = self.snapshot.files.filesystem.open_input_file(self.path(run))
        held[run] = pq.ParquetFile(stream, metadata=self._footers[run], pre_buffer=self._remote)
        if len(held) > _OPEN_FILES:
            held.popitem(last=False)[1].close(force=True)
        return held[run]

    def _ordered(self, unit: Unit, keys: list[KeyColumn], events: Ints, rank: Ints | None) -> Ints:
        """First row of each key, the order checked."""
        fresh = np.ones(unit.rows, np.bool_)
        if unit.rows > 1:
            fresh[1:] = differs(keys[0])
            for key in keys[1:]:
                fresh[1:] |= differs(key)
        starts = np.flatnonzero(fresh)
        if not rising([taken(key, starts) for key in keys]):
            raise self._disorder(unit, "keys do not rise")
        back = events[1:] < events[:-1]
        back &= ~fresh[1:]
        if back.any():
            raise self._disorder(unit, "event times of one key do not rise")
        if rank is not None:
            back = (events[1:] == events[:-1]) & (rank[1:] < rank[:-1])
            back &= ~fresh[1:]
            if back.any():
                raise self._disorder(unit, "ranks at one event time do not rise")
        return starts

    def _disorder(self, unit: Unit, what: str) -> PlatformError:
        path = self.path(unit.run)
        return PlatformError(
            f"file {path} is not a sorted run: {what} in row group {unit.group}",
            subject=f"file {path}",
            hint="another tool wrote into this table; restore an earlier version or rebuild it",
        )

    @contextmanager
    def _damage(self, run: int) -> Iterator[None]:
        path = self.path(run)
        try:
            yield
        except FileNotFoundError as error:
            raise NotFound(
                f"file {path} is gone", subject=f"file {path}", hint="this table version was vacuumed; read a later one"
            ) from error
        except (OSError, pa.ArrowException) as error:
            raise PlatformError(
                f"file {path} is damaged: {error}",
                subject=f"file {path}",
                hint="restore the file, or rebuild the store from the other one",
            ) from error


def _filled(array: pa.Array, instead: int) -> Ints:
    values: Ints = plain(array)
    return np.where(null_mask(array), instead, values) if array.null_count else values


def _flags(got: dict[str, pa.Array], name: str) -> Bools | None:
    if name not in got:
        return None
    array = got[name]
    values = plain(array).astype(np.bool_)
    flags: Bools = values & ~null_mask(array) if array.null_count else values
    return flags if flags.any() else None


def overlapping_runs(units: Iterable[Unit]) -> frozenset[int]:
    """Runs that may share a key with another run, judged by the first key column's bounds."""
    ranges: dict[int, tuple[Any, Any] | None] = {}
    for unit in units:
        held = ranges.get(unit.run, unit.bounds)
        if held is None or unit.bounds is None:
            ranges[unit.run] = None
        else:
            ranges[unit.run] = min(held[0], unit.bounds[0]), max(held[1], unit.bounds[1])
    if len(ranges) < 2:
        return frozenset()
    if any(bounds is None for bounds in ranges.values()):
        return frozenset(ranges)
    shared: set[int] = set()
    reach: tuple[Any, int] | None = None
    for run, bounds in sorted(ranges.items(), key=lambda item: item[1][0] if item[1] else 0):
        assert bounds is not None
        if reach is not None and bounds[0] <= reach[0]:
            shared |= {run, reach[1]}
        if reach is None or bounds[1] > reach[0]:
            reach = bounds[1], run
    return frozenset(shared)


def check_columns(snapshot: Snapshot, names: Sequence[str]) -> None:
    """Refuse a column the group does not have.

    Raises:
        NotFound: no such feature; a close name is suggested.
        InvalidInput: a column asked for twice.
    """
    for name in names:
        snapshot.group.feature(name)
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise InvalidInput(f"column {twice!r} is asked for twice", subject=f"column {twice!r}")
