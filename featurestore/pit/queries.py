"""Queries: a spine made ready to search: usable rows sorted by (key, time), their keys counted once."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from featurestore.groups import FeatureGroup
from featurestore.pit.arrays import KeyColumn, plain
from featurestore.pit.kernel import Bools, Ints
from featurestore.pit.packing import pack, sort_pairs
from featurestore.pit.questions import SpineRows
from featurestore.pit.reader import Bound
from foundation.errors import InvalidInput

__all__ = ["Queries", "key_frame", "key_table", "match_keys", "prepare"]


@dataclass(frozen=True)
class Queries:
    """Sorted usable spine rows.

    Attributes:
        total: spine rows, usable or not.
        order: int64 spine row of each query.
        times: int64 instant of each query; ascending inside a key.
        known: int64 known-by instant of each query, or None.
        firsts: int64 first query of each key, and the query count at the end.
        keys: distinct keys in order: an int64 array for a single numeric key column, else a frame.
        leading: the first key column of ``keys``, searchable: int64 array, or a string Series.
    """

    total: int
    order: Ints
    times: Ints
    known: Ints | None
    firsts: Ints
    keys: Any
    leading: Any

    def __len__(self) -> int:
        return len(self.times)

    def key_range(self, bounds: tuple[Bound, Bound] | None) -> tuple[int, int]:
        """(from, to) places in ``keys`` whose first column lies within the bounds, both ends included."""
        if bounds is None:
            return 0, len(self.firsts) - 1
        return bisect_left(self.leading, bounds[0]), bisect_right(self.leading, bounds[1])

    def select(self, chosen: Ints) -> Queries:
        """Some of the queries (places rising); keys nobody asks for any more are left out."""
        key_of = np.searchsorted(self.firsts, chosen, side="right") - 1
        fresh = np.ones(len(chosen), np.bool_)
        fresh[1:] = key_of[1:] != key_of[:-1]
        heads = np.flatnonzero(fresh)
        kept = key_of[heads]
        keys = self.keys[kept]
        return Queries(
            self.total,
            self.order[chosen],
            self.times[chosen],
            None if self.known is None else self.known[chosen],
            np.append(heads, len(chosen)),
            keys,
            keys if isinstance(keys, np.ndarray) else _leading(keys.to_series(0)),
        )


def prepare(spine: SpineRows) -> tuple[Queries, np.ndarray]:
    """Sort the usable rows of a spine; also which rows are usable (bool): no null in key, time or known-by instant."""
    usable = np.asarray(spine.valid, np.bool_).copy()
    if spine.known is not None and spine.known_valid is not None:
        usable &= spine.known_valid
    for column in spine.keys.columns:
        if column.null_count:
            usable &= np.asarray(column.is_valid().to_numpy(), np.bool_)
    keys, times = spine.keys, np.asarray(spine.times, np.int64)
    known = None if spine.known is None else np.asarray(spine.known, np.int64)
    rows: Ints | None = None
    if not usable.all():
        # Filtered before NumPy sees them: a column of integers with nulls would become one of floats.
        rows = np.flatnonzero(usable)
        keys, times, known = keys.take(pa.array(rows)), times[rows], None if known is None else known[rows]
    columns = [plain(_one(column)) for column in keys.columns]
    frame = key_frame(columns)
    codes = pack(columns)
    if codes is not None:
        order = sort_pairs(codes, times)
        codes = codes[order]
        changed = np.ones(len(order), np.bool_)
        changed[1:] = codes[1:] != codes[:-1]
    else:
        by_key = frame.with_columns(t=times, row=np.arange(len(times))).sort([*frame.columns, "t"])
        order = by_key["row"].to_numpy()
        changed = _changes(by_key.select(frame.columns))
    heads = np.flatnonzero(changed)
    single = columns[0] if len(columns) == 1 and isinstance(columns[0], np.ndarray) else None
    distinct: np.ndarray | pl.DataFrame = frame[order[heads]] if single is None else single[order[heads]]
    queries = Queries(
        len(usable),
        order if rows is None else rows[order],
        times[order],
        None if known is None else known[order],
        np.append(heads, len(order)),
        distinct,
        distinct if isinstance(distinct, np.ndarray) else _leading(distinct["k0"]),
    )
    return queries, usable


def _one(column: pa.ChunkedArray) -> pa.Array:
    return (
        column.chunk(0)
        if column.num_chunks == 1
        else pa.concat_arrays(column.chunks)
        if column.num_chunks
        else (pa.nulls(0, column.type))
    )


def _changes(frame: pl.DataFrame) -> Bools:
    """True at the first row of each run of equal rows."""
    changed = np.ones(frame.height, np.bool_)
    changed[1:] = False
    for column in frame:
        changed[1:] |= (column[1:] != column[:-1]).to_numpy()
    return changed


def match_keys(queries: Queries, low: int, high: int, keys: Sequence[KeyColumn]) -> Ints:
    """For each distinct key ``low..high`` of the queries its place among a unit's distinct keys, -1 where absent.

    Both sides are sorted. A single numeric column is searched, anything else joined by hash.

    Args:
        queries: the queries.
        low: first distinct key, from ``Queries.key_range``.
        high: end of the range.
        keys: the unit's distinct keys, one array per key column.
    """
    found = np.full(high - low, -1, np.int64)
    if isinstance(queries.keys, np.ndarray):
        asked, there = queries.keys[low:high], keys[0]
        if not len(asked) or not len(there):
            return found
        if len(asked) <= len(there):
            place = np.searchsorted(there, asked)
            hit = there.take(place, mode="clip") == asked
            return np.where(hit, place, -1)
        place = np.searchsorted(asked, there)
        hit = asked.take(place, mode="clip") == there
        found[place[hit]] = np.flatnonzero(hit)
        return found
    asked = queries.keys[low:high].with_row_index("asked")
    there = key_frame(keys).with_row_index("there")
    joined = asked.join(there, on=queries.keys.columns, how="inner", maintain_order="none")
    found[joined["asked"].to_numpy()] = joined["there"].to_numpy()
    return found


def _column(name: str, column: KeyColumn) -> pl.Series:
    """A key column as it sorts: text, or int64 (instants, dates and booleans too)."""
    if not isinstance(column, np.ndarray):
        series = pl.Series(name, column)
        if series.dtype == pl.String:
            return series
        return (series.to_physical() if series.dtype != pl.Boolean else series).cast(pl.Int64)
    return pl.Series(name, column.astype(np.int64, copy=False))


def _leading(column: pl.Series) -> np.ndarray | pl.Series:
    return column.to_numpy() if column.dtype != pl.String else column


def key_frame(keys: Sequence[KeyColumn]) -> pl.DataFrame:
    """Key columns as a frame of ``k0, k1, ...`` that sorts and joins like any other: text or int64."""
    return pl.DataFrame([_column(f"k{i}", key) for i, key in enumerate(keys)])


def key_table(group: FeatureGroup, key: tuple[object, ...]) -> pa.Table:
    """One key as a one-row table of the group's identifier columns.

    Raises:
        InvalidInput: another number of parts, or a part of another type.
    """
    columns = group.key_columns
    names = ", ".join(column.name for column in columns)
    if len(key) != len(columns):
        raise InvalidInput(
            f"a key needs {len(columns)} value(s) ({names}), got {len(key)}: {key!r}",
            subject="key",
            hint="give a tuple in column order",
        )
    try:
        arrays = [pa.array([part], column.type.arrow) for column, part in zip(columns, key, strict=True)]
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise InvalidInput(f"key {key!r} does not fit ({names}): {error}", subject="key") from error
    return pa.table(arrays, schema=pa.schema([column.field for column in columns]))
