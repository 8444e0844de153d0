"""Compaction: many sorted runs into few, by one streaming merge and one fenced commit.

Which runs: size-tiered. Sorted by size, the longest prefix of at least four runs whose largest member is no bigger than
the others together; so a row's run at least doubles each time it is rewritten, and what stays behind grows
geometrically. The merge is a block merge: every run holds one batch; all rows up to the least of the batches' last rows
can be ordered at once; memory is one batch per run, however long or skewed the runs are.

No row is dropped: corrections, tombstones and hard deletes stay. Bulk-load runs get their effective write time written
into the rows. Writers are never blocked, and appends commit freely while a merge runs; a second compaction is fenced
off by the application id. A crash leaves files no commit knows, which vacuum removes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.groups import FeatureGroup
from featurestore.offline import Change, Run, Snapshot, offline_schema
from featurestore.offline.delta import DeltaStore
from featurestore.offline.runs import (
    count_until,
    effective_rows,
    open_run,
    parse_name,
    reordered,
    searchable,
    sort_columns,
)
from featurestore.offline.sink import RunSink
from foundation.errors import Conflict

if TYPE_CHECKING:
    from foundation.progress import Progress

__all__ = ["APP", "CompactionReport", "compact", "logical_runs", "plan"]

APP = "tilth/compact"
"""Application id of rewrites: its version counts them and fences two from removing the same runs."""
MEMORY = 256 * 2**20
FILE_BYTES = 512 * 2**20
_AT_LEAST = 4
_FAN_IN = 32
_TRIES = 5
_BATCH = 2**17
_BUFFER = 2**16
_FAR_BUFFER = 2**21
"""Bytes read ahead per column: few where a seek is cheap, more where each is a request."""


@dataclass(frozen=True)
class CompactionReport:
    """What a compaction did.

    Attributes:
        runs_before, runs_after: files of the table's newest version before and after.
        rows: rows rewritten.
        bytes: bytes written.
        seconds: wall time.
    """

    runs_before: int
    runs_after: int
    rows: int
    bytes: int
    seconds: float


def logical_runs(runs: Sequence[Run]) -> list[tuple[Run, ...]]:
    """Files grouped into sorted sequences: the parts of one merge belong together, any other file is alone."""
    stems = sorted(runs, key=lambda run: (parse_name(run.path).stem, run.path))
    return [tuple(parts) for _, parts in groupby(stems, key=lambda run: parse_name(run.path).stem)]


def plan(runs: Sequence[Run], *, full: bool = False) -> list[tuple[Run, ...]]:
    """The logical runs to merge now, smallest first; empty when there is nothing to gain.

    Args:
        runs: files of a snapshot.
        full: merge everything into one logical run.
    """
    ranked = sorted(logical_runs(runs), key=lambda parts: (_size(parts), parts[0].path))
    if full:
        return ranked if len(ranked) > 1 else []
    total, best = 0, 0
    for place, parts in enumerate(ranked):
        if _size(parts) <= total:
            best = place + 1
        total += _size(parts)
    return ranked[:best] if best >= _AT_LEAST else []


def _size(parts: Sequence[Run]) -> int:
    return sum(run.size for run in parts)


def compact(
    store: DeltaStore,
    group: FeatureGroup,
    *,
    full: bool = False,
    memory: int = MEMORY,
    file_bytes: int = FILE_BYTES,
    progress: Progress | None = None,
) -> CompactionReport:
    """Merge the runs there are now until the plan is satisfied; what writers add meanwhile is for the next time.

    Args:
        store: where the table is.
        group: the group as it stands now.
        full: leave one logical run.
        memory: bytes the merge may hold, roughly; at least 16 MB are used.
        file_bytes: start another file at the first entity after this size.
        progress: told about rows as they are merged, pass by pass.

    Raises:
        Conflict: other compactions kept coming first, or the group has columns ``group`` does not know.
        LimitExceeded: the disk is full; nothing changed.
    """
    started = time.perf_counter()
    before = store.snapshot(group).runs
    mine = {run.path for run in before}
    rows = written = failures = 0
    while True:
        position = store.position(group, APP)
        snapshot = store.snapshot(group)
        chosen = plan([run for run in snapshot.runs if run.path in mine], full=full)
        if not chosen:
            return CompactionReport(len(before), len(snapshot.runs), rows, written, time.perf_counter() - started)
        merge = _Merge(store, snapshot, chosen, memory=max(memory, 2**24), file_bytes=file_bytes, progress=progress)
        try:
            added = merge.run()
            _commit(store, group, added, merge.runs, position)
        except Conflict:
            failures += 1
            if failures == _TRIES or merge.unknown:
                raise
            continue
        mine.update(run.path for run in added)
        rows += sum(run.rows for run in added)
        written += _size(added)


def _commit(
    store: DeltaStore, group: FeatureGroup, added: Sequence[Run], removed: Sequence[Run], position: int
) -> None:
    """Swap the files in one commit; when that fails the new ones are deleted."""
    change = Change(added, removed, app=(APP, position + 1), rewrite=True, note={"compaction": len(removed)})
    try:
        for attempt in range(_TRIES):
            try:
                store.commit(group, change, expected=position)
            except Conflict:
                if attempt == _TRIES - 1 or store.position(group, APP) != position:
                    raise
            else:
                return
    except BaseException:
        store.discard(group, added)
        raise


class _Merge:
    """One pass over some logical runs."""

    def __init__(
        self,
        store: DeltaStore,
        snapshot: Snapshot,
        chosen: Sequence[tuple[Run, ...]],
        *,
        memory: int,
        file_bytes: int,
        progress: Progress | None,
    ) -> None:
        self._store, self._snapshot, self._progress = store, snapshot, progress
        self._group = snapshot.group
        self._order = sort_columns(self._group)
        self._file_bytes = file_bytes
        self._group_bytes = memory // 4
        self.unknown = False
        columns = len(offline_schema(self._group))
        self._buffer = _BUFFER if store.files.url.startswith("file:") else _FAR_BUFFER
        fan_in = max(2, min(_FAN_IN, memory // 2 // (columns * self._buffer)))
        self._small, self._large = _split(chosen, memory // 4, fan_in, columns)
        self.runs = [run for parts in (*self._small, *self._large) for run in parts]
        width = max((_width(parts, columns) for parts in chosen), default=1)
        self._batch = int(max(2**10, min(_BATCH, memory // 4 // (width * (len(self._large) + 1)))))

    def run(self) -> list[Run]:
        """Merge into new files, durable but not committed."""
        sink = RunSink(
            self._store.files, self._snapshot.folder, self._group, "merge", self._file_bytes, self._group_bytes
        )
        total = sum(run.rows for run in self.runs)
        if self._progress is not None:
            self._progress.start(total, "rows")
        cursors = [_Cursor(self._order, self._batches(parts)) for parts in self._large]
        if self._small:
            cursors.append(_Cursor(self._order, self._in_memory()))
        try:
            for frame in _merged(cursors, self._order):
                sink.write(frame)
                if self._progress is not None:
                    self._progress.advance(frame.height)
            added = sink.close()
            if sum(run.rows for run in added) != total:
                raise Conflict(
                    f"merged {sum(run.rows for run in added)} rows of {total}", subject=self._snapshot.folder
                )
        except BaseException:
            sink.abort()
            raise
        if self._progress is not None:
            self._progress.done()
        return added

    def _batches(self, parts: Sequence[Run]) -> Iterator[pl.DataFrame]:
        schema = offline_schema(self._group)
        for run in parts:
            path = f"{self._snapshot.folder}/{run.path}"
            with open_run(self._store.files, path, buffer=self._buffer) as file:
                self._check_known(file, schema)
                for batch in file.iter_batches(batch_size=self._batch):
                    yield effective_rows(pa.Table.from_batches([batch]), schema, run.committed_at)

    def _in_memory(self) -> Iterator[pl.DataFrame]:
        frames = [frame for parts in self._small for frame in self._batches(parts)]
        if not frames:
            return
        ordered = reordered(pl.concat(frames), self._order)
        del frames
        yield from (ordered[start : start + self._batch] for start in range(0, ordered.height, self._batch))

    def _check_known(self, file: pq.ParquetFile, schema: pa.Schema) -> None:
        unknown = sorted(set(file.schema_arrow.names).difference(schema.names))
        if unknown:
            self.unknown = True
            raise Conflict(
                f"group {self._group.name!r} has columns this process does not know: {', '.join(unknown)}",
                subject=f"column {unknown[0]!r}",
                hint="read the group again",
            )


def _width(parts: Sequence[Run], columns: int) -> int:
    """Bytes of a decoded row, guessed: eight a column, or the file's own bytes thrice over when that is more."""
    rows = sum(run.rows for run in parts)
    return max(8 * columns, 3 * _size(parts) // max(1, rows))


def _split(
    chosen: Sequence[tuple[Run, ...]], memory: int, fan_in: int, columns: int
) -> tuple[list[tuple[Run, ...]], list[tuple[Run, ...]]]:
    """Runs that fit into memory together, smallest first, and up to ``fan_in`` more to stream; at least two in all."""
    small: list[tuple[Run, ...]] = []
    held = 0
    for parts in chosen:
        held += _width(parts, columns) * sum(run.rows for run in parts)
        if held > memory:
            break
        small.append(parts)
    return small, list(chosen[len(small) : len(small) + fan_in])


class _Cursor:
    """The front of one sorted sequence."""

    def __init__(self, order: Sequence[str], batches: Iterator[pl.DataFrame]) -> None:
        self._order, self._batches = order, batches
        self._frame: pl.DataFrame | None = None
        self._columns: list[np.ndarray | list[str]] = []
        self._place = 0
        self._next = self._read()
        self._fill()

    @property
    def is_done(self) -> bool:
        """Whether all rows were taken."""
        return self._frame is None

    @property
    def last(self) -> tuple[Any, ...] | None:
        """The order columns of the last row at hand; None when no row follows it."""
        return tuple(column[-1] for column in self._columns) if self._next is not None else None

    def take(self, bound: tuple[Any, ...] | None) -> pl.DataFrame:
        """Take the rows at hand up to ``bound`` inclusive, all of them for None."""
        assert self._frame is not None
        until = self._frame.height if bound is None else count_until(self._columns, self._place, bound)
        taken = self._frame[self._place : until]
        self._place = until
        if until == self._frame.height:
            self._fill()
        return taken

    def _fill(self) -> None:
        self._frame, self._place = self._next, 0
        if self._frame is not None:
            self._columns = searchable(self._frame, self._order)
            self._next = self._read()

    def _read(self) -> pl.DataFrame | None:
        return next((frame for frame in self._batches if frame.height), None)


def _merged(cursors: Sequence[_Cursor], order: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Rows of all cursors in order, piece by piece."""
    live = [cursor for cursor in cursors if not cursor.is_done]
    while live:
        bound = min((last for cursor in live if (last := cursor.last) is not None), default=None)
        taken = [piece for cursor in live if (piece := cursor.take(bound)).height]
        live = [cursor for cursor in live if not cursor.is_done]
        if len(taken) == 1:
            yield taken[0]
        else:
            yield reordered(pl.concat(taken), order)
