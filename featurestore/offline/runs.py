"""Sorted run files: their names, their order, where they may be cut, how they are read.

A run is one Parquet file whose rows rise by (key columns, event time, rank): numbers as numbers, text by its UTF-8
bytes, false before true. Row groups start at a new entity wherever an entity fits into one, so that a reader can take
row groups apart from each other.
"""

from __future__ import annotations

import re
import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from featurestore.groups import FeatureGroup
from featurestore.offline import offline_schema
from foundation.errors import InvalidInput, NotFound, PlatformError
from foundation.files import Files

__all__ = [
    "RunName",
    "count_until",
    "cut_rows",
    "effective_rows",
    "entity_starts",
    "is_run_name",
    "move",
    "new_name",
    "open_run",
    "parse_name",
    "published_name",
    "reordered",
    "searchable",
    "sort_columns",
    "sort_rows",
]

_NAME = re.compile(r"([a-z][a-z0-9-]*?)(?:-(\d{1,19}))?-([0-9a-f]{32})(?:-\d{5})?\.parquet")
_KIND = re.compile(r"[a-z][a-z0-9-]{0,100}")


class RunName(NamedTuple):
    """What a file name says.

    Attributes:
        kind: ``log``, ``load``, ``merge``, or what ``write_run`` was given.
        committed_at: instant of a published load, else 0.
        stem: shared by the parts of one merge, which cover disjoint key ranges.
    """

    kind: str
    committed_at: int
    stem: str


def new_name(kind: str, part: int | None = None, stem: str = "") -> str:
    """A file name nobody else uses.

    Raises:
        InvalidInput: the kind is not lower-case letters, digits and ``-``, or looks like a published load.
    """
    if not _KIND.fullmatch(kind) or re.fullmatch(r"load-\d+", kind):
        raise InvalidInput(
            f"run name {kind!r} is not allowed",
            subject="run name",
            hint="lower-case letters, digits and '-', starting with a letter, not load-<number>",
        )
    stem = stem or uuid.uuid4().hex
    return f"{kind}-{stem}.parquet" if part is None else f"{kind}-{stem}-{part:05d}.parquet"


def published_name(name: str, committed_at: int) -> str:
    """The name of a load's file once its commit instant is known."""
    parsed = parse_name(name)
    return f"load-{committed_at}-{parsed.stem}.parquet"


def parse_name(name: str) -> RunName:
    """Read a file name.

    Raises:
        InvalidInput: not one of ours: another tool wrote into the table.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise InvalidInput(f"{name!r} is not a run file of this store", subject=f"file {name!r}")
    kind, at, stem = match.groups()
    if kind != "load" and at is not None:
        kind, at = f"{kind}-{at}", None
    return RunName(kind, int(at or 0), stem)


def is_run_name(name: str) -> bool:
    """Whether a file name is one of ours."""
    return _NAME.fullmatch(name) is not None


def sort_columns(group: FeatureGroup) -> list[str]:
    """The columns a run is sorted by, first to last."""
    return [*group.record_id, group.event_time, "tilth_rank"]


def sort_rows(group: FeatureGroup, rows: pa.Table) -> pl.DataFrame:
    """Rows as a frame in run order; the input is left alone.

    Args:
        group: the group.
        rows: ``offline_schema(group)`` by name; column order is free.

    Raises:
        InvalidInput: a column is missing, unknown or of another type, or a key, event time or rank is null.
    """
    schema = offline_schema(group)
    odd = sorted(set(schema.names) ^ set(rows.column_names)) or [
        field.name for field in schema if rows.schema.field(field.name).type != field.type
    ]
    if odd:
        raise InvalidInput(
            f"rows for group {group.name!r} do not have its columns: {', '.join(odd)}",
            subject=f"column {odd[0]!r}",
            hint="cast them to the offline schema first",
        )
    frame = pl.DataFrame(pl.from_arrow(rows.select(schema.names)))
    order = sort_columns(group)
    for name in order:
        if frame[name].null_count():
            raise InvalidInput(
                f"column {name!r} of group {group.name!r} has a null",
                subject=f"column {name!r}",
                hint="keys, event time and rank are never null",
            )
    if _is_sorted(frame, order):
        return frame
    return reordered(frame, order)


def reordered(frame: pl.DataFrame, order: Sequence[str]) -> pl.DataFrame:
    """A frame sorted by the order columns. Laid out in one piece first: gathering from many is five times slower."""
    whole = frame.rechunk()
    return whole[whole.select(pl.arg_sort_by(order)).to_series()]


def _is_sorted(frame: pl.DataFrame, order: Sequence[str]) -> bool:
    rises = pl.lit(True)
    for name in reversed(order):
        column, before = pl.col(name), pl.col(name).shift(1)
        rises = (before < column) | ((before == column) & rises)
    return bool(frame.select(rises.all(ignore_nulls=True)).item()) if frame.height else True


def searchable(frame: pl.DataFrame, order: Sequence[str]) -> list[np.ndarray | list[str]]:
    """The order columns as they are searched: numbers for all but text, which Python orders as UTF-8 does."""
    found: list[np.ndarray | list[str]] = []
    for name in order:
        column = frame[name]
        if column.dtype == pl.String:
            found.append(column.to_list())
        else:
            found.append(column.to_physical().to_numpy())
    return found


def count_until(columns: Sequence[np.ndarray | list[str]], low: int, bound: Sequence[Any]) -> int:
    """Row number, at least ``low``, behind the last row at or before ``bound`` in sorted ``searchable`` columns."""
    high = len(columns[0])
    for column, value in zip(columns, bound, strict=True):
        low, high = bisect_left(column, value, low, high), bisect_right(column, value, low, high)
        if low == high:
            return low
    return high


def entity_starts(frame: pl.DataFrame, keys: Sequence[str]) -> np.ndarray:
    """Row numbers (int64) at which a new key begins, 0 included."""
    if not frame.height:
        return np.empty(0, np.int64)
    differs = pl.any_horizontal([pl.col(name) != pl.col(name).shift(1) for name in keys])
    changed = frame.select(differs.fill_null(True)).to_series().to_numpy()
    return np.flatnonzero(changed).astype(np.int64)


def cut_rows(starts: np.ndarray, rows: int, target: int) -> list[tuple[int, bool]]:
    """Where pieces of about ``target`` rows end: (row number, whether a new entity begins there).

    Each piece holds at most ``target`` rows and ends at an entity's start, except inside an entity that alone is longer
    than ``target``. The tail is left over: what follows the last cut has at most ``target`` rows.

    Args:
        starts: rising int64 row numbers at which entities begin.
        rows: row count.
        target: the most rows of a piece, at least 1.
    """
    cuts: list[tuple[int, bool]] = []
    place = 0
    while rows - place > target:
        start = int(starts[np.searchsorted(starts, place + target, side="right") - 1])
        aligned = start > place
        place = start if aligned else place + target
        cuts.append((place, aligned))
    return cuts


def effective_rows(table: pa.Table, schema: pa.Schema, committed_at: int) -> pl.DataFrame:
    """A piece of a run as it counts: columns added since are null, a load's write time is no earlier than its commit.

    Args:
        table: as read, possibly under an earlier schema version.
        schema: the columns wanted, in order.
        committed_at: of the run.
    """
    arrays = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    frame = pl.DataFrame(pl.from_arrow(pa.Table.from_arrays(arrays, schema=schema)))
    if committed_at and "write_time" in frame.columns:
        floor = pl.lit(committed_at).cast(frame.schema["write_time"])
        frame = frame.with_columns(pl.max_horizontal("write_time", floor))
    return frame


@contextmanager
def open_run(files: Files, path: str, *, buffer: int = 0) -> Iterator[pq.ParquetFile]:
    """Open a run for reading batch by batch; ``buffer`` bytes are read ahead per column, 0 for whole column chunks.

    Raises:
        NotFound: the file is gone.
        PlatformError: it is damaged, also when that shows only while reading.
    """
    try:
        with files.filesystem.open_input_file(path) as source:
            yield pq.ParquetFile(source, buffer_size=buffer)
    except FileNotFoundError as error:
        raise NotFound(f"file {path} is gone", subject=f"file {path}") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise PlatformError(f"file {path} is damaged: {error}", subject=f"file {path}") from error


def move(files: Files, source: str, target: str) -> None:
    """Rename a file durably; paths are below the root."""
    filesystem: pafs.FileSystem = files.filesystem
    filesystem.move(source, target)
    files.sync([target])
