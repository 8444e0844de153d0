"""Sorted run files: order, row groups cut at entities, names, footers.

A run is one Parquet file whose rows rise by (key columns, event time, rank): numbers as numbers, text by its UTF-8
bytes, false before true. Row groups start at a new entity wherever an entity fits into one, so that a reader can take
row groups apart from each other. Snappy and a dictionary only where values repeat: of the codecs it reads as fast as
LZ4, three times as fast as zstd, and every Delta reader knows it.
"""

from __future__ import annotations

import errno
import re
import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from featurestore.groups import FeatureGroup
from featurestore.offline import SYSTEM_FIELDS, Run, offline_schema
from foundation.errors import InvalidInput, LimitExceeded, NotFound, PlatformError
from foundation.files import Files

__all__ = [
    "RunName",
    "RunSink",
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
    "read_footer",
    "searchable",
    "sort_columns",
    "sort_rows",
    "stats_of",
]

GROUP_ROWS = 2**18
"""Rows of a row group, for rows of ordinary width."""
GROUP_BYTES = 128 * 2**20
"""Uncompressed bytes of a row group, which wide rows reach first."""
_SAMPLE = 2**16
_REPEATS = 2**13
"""A column with fewer distinct values than this in a sample gets a dictionary."""
_TEXT_LIMIT = 256
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
    return frame[frame.select(pl.arg_sort_by(order)).to_series()]


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


class RunSink:
    """Takes rows in run order, piece by piece, and writes them as one or more files.

    Args:
        files: where to.
        folder: the table's folder below the root of ``files``.
        group: the group.
        kind: first word of the file names.
        file_bytes: start the next file at the first entity after this many bytes; None for a single file.
        group_bytes: uncompressed bytes of a row group, at most; rows held in memory are about as many.
    """

    def __init__(
        self,
        files: Files,
        folder: str,
        group: FeatureGroup,
        kind: str,
        file_bytes: int | None = None,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        self._files, self._folder, self._kind, self._limit = files, folder, kind, file_bytes
        self._group_bytes = min(group_bytes, GROUP_BYTES)
        self._schema = offline_schema(group)
        self._keys = list(group.record_id)
        self._stem = uuid.uuid4().hex
        self._held: list[pl.DataFrame] = []
        self._held_rows = 0
        self._target = GROUP_ROWS
        self._path = ""
        self._stream: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0
        self.runs: list[Run] = []
        new_name(kind)

    def write(self, frame: pl.DataFrame) -> None:
        """Take the next rows; they follow all rows before."""
        if not frame.height:
            return
        width = max(1, frame.estimated_size() // frame.height)
        self._target = int(min(GROUP_ROWS, max(2**10, self._group_bytes // width)))
        self._held.append(frame)
        self._held_rows += frame.height
        if self._held_rows <= self._target:
            return
        whole = pl.concat(self._held)
        place = 0
        for cut, aligned in cut_rows(entity_starts(whole, self._keys), whole.height, self._target):
            self._put(whole[place:cut])
            if aligned and self._limit is not None and self._stream is not None and self._stream.tell() >= self._limit:
                self._finish()
            place = cut
        self._held = [whole[place:]]
        self._held_rows = whole.height - place

    def close(self) -> list[Run]:
        """Write what is held, fsync everything, return the runs: one at least unless ``file_bytes`` was given."""
        if self._held_rows or (self._limit is None and self._writer is None):
            self._put(pl.concat(self._held) if self._held else _empty(self._schema))
        self._held, self._held_rows = [], 0
        self._finish()
        with _space(self._folder):
            self._files.sync([f"{self._folder}/{run.path}" for run in self.runs])
        return self.runs

    def abort(self) -> None:
        """Delete what was written."""
        if self._stream is not None:
            self._stream.close()
            self._stream = self._writer = None
        for path in {self._path, *(run.path for run in self.runs)} - {""}:
            self._files.delete(f"{self._folder}/{path}")
        self.runs = []

    def _put(self, frame: pl.DataFrame) -> None:
        with _space(self._folder):
            if self._writer is None:
                self._open(frame)
            assert self._writer is not None
            table = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(self._schema)
            self._writer.write_table(table, row_group_size=max(1, frame.height))
            self._rows += frame.height

    def _open(self, frame: pl.DataFrame) -> None:
        part = None if self._limit is None else len(self.runs)
        self._path = new_name(self._kind, part, self._stem)
        self._stream = self._files.filesystem.open_output_stream(f"{self._folder}/{self._path}")
        self._writer = pq.ParquetWriter(
            self._stream, self._schema, compression="snappy", use_dictionary=_repeating(frame, self._schema)
        )

    def _finish(self) -> None:
        if self._writer is None or self._stream is None:
            return
        with _space(self._folder):
            self._writer.close()
            size = self._stream.tell()
            self._stream.close()
        self.runs.append(Run(self._path, self._rows, size))
        self._writer = self._stream = None
        self._path, self._rows = "", 0


def _empty(schema: pa.Schema) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(schema.empty_table()))


def _repeating(frame: pl.DataFrame, schema: pa.Schema) -> list[str]:
    """Parquet columns worth a dictionary: few distinct values in a sample; text inside collections always."""
    sample = frame.head(_SAMPLE)
    names: list[str] = []
    for field in schema:
        if pa.types.is_nested(field.type):
            names += _text_leaves(field.name, field.type)
        elif sample[field.name].n_unique() < min(_REPEATS, sample.height // 4 + 2):
            names.append(field.name)
    return names


def _text_leaves(path: str, kind: pa.DataType) -> Iterator[str]:
    if pa.types.is_list(kind):
        yield from _text_leaves(f"{path}.list.element", kind.value_type)
    elif pa.types.is_struct(kind):
        for field in kind:
            yield from _text_leaves(f"{path}.{field.name}", field.type)
    elif pa.types.is_string(kind):
        yield path


@contextmanager
def _space(folder: str) -> Iterator[None]:
    """Name a full disk as one."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise LimitExceeded(
                f"no space left while writing below {folder}",
                subject=f"folder {folder}",
                hint="free disk space and write again; nothing was committed",
            ) from error
        raise


def read_footer(files: Files, path: str) -> pq.FileMetaData:
    """The Parquet footer of a file below the root.

    Raises:
        NotFound: no such file.
        PlatformError: it is not a whole Parquet file.
    """
    try:
        with files.filesystem.open_input_file(path) as file:
            return pq.read_metadata(file)
    except FileNotFoundError as error:
        raise NotFound(f"file {path} is gone", subject=f"file {path}") from error
    except pa.ArrowInvalid as error:
        raise PlatformError(f"file {path} is damaged: {error}", subject=f"file {path}") from error


def stats_of(footer: pq.FileMetaData, group: FeatureGroup) -> dict[str, Any]:
    """Delta's ``minValues``, ``maxValues`` and ``nullCount`` of the key, event time and system columns."""
    wanted = {*sort_columns(group), *(field.name for field in SYSTEM_FIELDS)}
    lows: dict[str, Any] = {}
    highs: dict[str, Any] = {}
    nulls: dict[str, int] = dict.fromkeys(sorted(wanted), 0)
    vague: set[str] = set()
    for part in range(footer.num_row_groups):
        row_group = footer.row_group(part)
        for place in range(row_group.num_columns):
            column = row_group.column(place)
            name, stats = column.path_in_schema, column.statistics
            if name not in wanted:
                continue
            if stats is None or not stats.has_null_count:
                nulls.pop(name, None)
                vague.add(name)
                continue
            if name in nulls:
                nulls[name] += stats.null_count
            if stats.has_min_max:
                lows[name] = min(lows.get(name, stats.min), stats.min)
                highs[name] = max(highs.get(name, stats.max), stats.max)
            elif stats.null_count < row_group.num_rows:
                vague.add(name)
    told = {name for name in lows if name not in vague and _is_telling(lows[name]) and _is_telling(highs[name])}
    return {
        "minValues": {name: _plain(lows[name]) for name in sorted(told)},
        "maxValues": {name: _plain(highs[name]) for name in sorted(told)},
        "nullCount": nulls,
    }


def _is_telling(value: object) -> bool:
    return not isinstance(value, bool) and (not isinstance(value, str) or len(value) <= _TEXT_LIMIT)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value.isoformat() if isinstance(value, date) else value


def move(files: Files, source: str, target: str) -> None:
    """Rename a file durably; paths are below the root."""
    filesystem: pafs.FileSystem = files.filesystem
    filesystem.move(source, target)
    files.sync([target])
