"""Rows held in memory: Python mappings, frames and readers turned into Arrow, and results kept for several readings."""

from __future__ import annotations

import json
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from foundation.content import TableHash
from foundation.errors import InvalidInput
from foundation.shown import MIXED

__all__ = [
    "BATCH_BYTES",
    "MIXED",
    "Kept",
    "cells_to_arrow",
    "keep",
    "pandas_to_arrow",
    "polars_to_arrow",
    "rebatch",
    "records_to_arrow",
]

BATCH_BYTES = 512 << 20
"""Bytes a batch may hold, whatever its rows: wide rows come in smaller batches."""
_IN_MEMORY = 256 << 20
"""Bytes of a streamed result kept in memory; beyond, it goes to a temporary file."""


def records_to_arrow(records: Sequence[Mapping[str, Any]], schema_hint: pa.Schema | None = None) -> pa.Table:
    """A table of mappings: columns in order of first appearance, missing ones null.

    Raises:
        InvalidInput: something else than a mapping with text keys among them.
    """
    names: dict[str, None] = {}
    for place, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise InvalidInput(
                f"row {place} is {type(record).__name__}, not a mapping", subject="source", hint="give one dict a row"
            )
        if not names.keys() >= record.keys():
            names.update(dict.fromkeys(record))
    if not records and schema_hint is not None:
        return schema_hint.empty_table()
    for name in names:
        if not isinstance(name, str):
            raise InvalidInput(f"column name {name!r} is not text", subject=f"column {name!r}")
    columns = [cells_to_arrow([record.get(name) for record in records]) for name in names]
    return pa.Table.from_arrays(columns, names=list(names))


_NUMBERS = (int, float, np.integer, np.floating)


def cells_to_arrow(cells: list[Any]) -> pa.Array:
    """One column of Python values: a plain Arrow type where all agree, else ``MIXED``.

    Unlike ``pa.array`` it never converts one kind of value into another (aware and naive moments, numbers and
    booleans, dates and moments stay apart); integers among floats only become floats where that is exact.
    """
    kinds = set(map(type, cells)) - {type(None)}
    if _agree(kinds, cells):
        try:
            array = pa.array(cells, from_pandas=False)
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            return _mixed(cells)
        if not (pa.types.is_nested(array.type) and "timestamp" in str(array.type)):
            return array
    return _mixed(cells)


def _agree(kinds: set[type], cells: list[Any]) -> bool:
    if kinds <= {int, float} or (len(kinds) <= 1 and kinds <= {str, bool, dict, list, bytes, date, Decimal}):
        return True
    if all(issubclass(kind, datetime) for kind in kinds):
        return len({cell.tzinfo is None for cell in cells if cell is not None}) == 1
    if any(issubclass(kind, bool | np.bool_) for kind in kinds):
        return len(kinds) == 1
    return all(issubclass(kind, _NUMBERS) for kind in kinds) or len(kinds) == 1


def _mixed(cells: list[Any]) -> pa.Array:
    texts = [None if cell is None else json.dumps(cell, default=_jsonable, ensure_ascii=False) for cell in cells]
    texts = [text if text is None or text.isascii() or _is_unicode(text) else json.dumps(text) for text in texts]
    return pa.ExtensionArray.from_storage(MIXED, pa.array(texts, pa.string()))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _jsonable(value: object) -> object:
    match value:
        case datetime() | date():
            return value.isoformat()
        case Decimal():
            return str(value)
        case np.generic():
            return value.item() if not isinstance(value, np.datetime64 | np.timedelta64) else {"unfit": repr(value)}
        case np.ndarray():
            return value.tolist()
        case set() | frozenset():
            return sorted(value, key=repr)
        case tuple():
            return list(value)
        case Mapping():
            return dict(value)
    return {"unfit": repr(value)}


def polars_to_arrow(frame: pl.DataFrame) -> pa.Table:
    """A polars frame; only text is copied, into the layout every Arrow function takes.

    Raises:
        InvalidInput: a column of Python objects.
    """
    for name, kind in frame.schema.items():
        if kind == pl.Object:
            raise InvalidInput(
                f"column {name!r} holds Python objects", subject=f"column {name!r}", hint="cast it to a polars type"
            )
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def pandas_to_arrow(frame: Any) -> pa.Table:  # noqa: ANN401 - pandas is imported only by its users
    """A pandas frame; NaN, NaT and None become null, a named index becomes columns, an unnamed one is left out.

    Raises:
        InvalidInput: a duplicate or non-text column name.
    """
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    names = list(frame.columns)
    for name in names:
        if not isinstance(name, str):
            raise InvalidInput(
                f"column name {name!r} is not text", subject=f"column {name!r}", hint="rename the columns to text"
            )
    columns = []
    for place in range(len(names)):
        series = frame.iloc[:, place]
        if series.dtype == object:
            missing = series.isna().to_numpy()
            cells = [None if gone else cell for cell, gone in zip(series.tolist(), missing, strict=True)]
            columns.append(cells_to_arrow(cells))
            continue
        try:
            made = pa.Array.from_pandas(series)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise InvalidInput(
                f"column {names[place]!r}: {error}", subject=f"column {names[place]!r}", hint="cast it to a plain type"
            ) from error
        columns.append(made)
    return pa.Table.from_arrays(columns, names=names)


def rebatch(parts: Iterable[pa.Table], rows: int, size: int = BATCH_BYTES) -> Iterator[pa.Table]:
    """Join small parts and cut large ones into tables of up to ``rows`` rows and about ``size`` bytes.

    Parts whose types differ are not joined; one that lacks columns or has only nulls in one is.
    """
    waiting: pa.Table | None = None
    for part in parts:
        if waiting is not None and waiting.num_rows:
            small = waiting.nbytes + part.nbytes <= size
            joined = (_joined(waiting, part) if small else None) if part.num_rows else waiting
            if joined is None:
                yield waiting
                joined = part
        else:
            joined = part
        while joined.num_rows > (most := _fitting(joined, rows, size)):
            yield joined.slice(0, most)
            joined = joined.slice(most)
        waiting = joined
    if waiting is not None and waiting.num_rows:
        yield waiting


def _fitting(table: pa.Table, rows: int, size: int) -> int:
    """How many of a table's rows make a batch."""
    held = table.nbytes
    return rows if held <= size else max(1, min(rows, table.num_rows * size // held))


def _joined(first: pa.Table, second: pa.Table) -> pa.Table | None:
    if len({*first.column_names}) < first.num_columns or len({*second.column_names}) < second.num_columns:
        return pa.concat_tables([first, second]) if first.schema.equals(second.schema) else None
    try:
        return pa.concat_tables([first, second], promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


class Kept:
    """A streamed result kept for several readings: in memory while small, else in a temporary file gone with it."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.rows = 0
        self._parts: list[pa.RecordBatch] = []
        self._size = 0
        self._path: Path | None = None
        self._writer: Any = None
        self._hash = TableHash(schema)
        self.identity = ""

    def add(self, part: pa.RecordBatch) -> None:
        """Append one batch."""
        self._hash.update(part)
        self.rows += part.num_rows
        if self._writer is not None:
            self._writer.write_batch(part)
            return
        self._parts.append(part)
        self._size += part.nbytes
        if self._size > _IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        with tempfile.NamedTemporaryFile(prefix="tilth-", suffix=".arrow", delete=False) as handle:
            self._path = Path(handle.name)
        weakref.finalize(self, self._path.unlink, missing_ok=True)
        self._writer = pa.ipc.new_file(str(self._path), self.schema)
        for part in self._parts:
            self._writer.write_batch(part)
        self._parts = []

    def close(self) -> None:
        """End of the result: fix its identity."""
        self.identity = self._hash.hexdigest()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def batches(self, rows: int) -> Iterator[pa.Table]:
        """See ``foundation.engines.Scan.batches``."""
        return rebatch((pa.Table.from_batches([part]) for part in self._read()), rows)

    def _read(self) -> Iterator[pa.RecordBatch]:
        if self._path is None:
            yield from self._parts
            return
        with pa.memory_map(str(self._path)) as mapped:
            reader = pa.ipc.open_file(mapped)
            for place in range(reader.num_record_batches):
                yield reader.get_batch(place)


def keep(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Kept:
    """Read a result once and keep it."""
    kept = Kept(schema)
    for part in batches:
        kept.add(part)
    kept.close()
    return kept
