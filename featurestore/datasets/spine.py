"""Spine: the rows a dataset is built for, each with its own moment. Whatever it comes as becomes Arrow, in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from featurestore.datasets.moments import check_moment_type, check_zone, instants_of
from featurestore.groups import FeatureGroup
from foundation.engines import scan
from foundation.errors import InvalidInput
from foundation.schema import INSTANT, Column

__all__ = ["ReadRows", "Spine", "check_key_type", "open_spine", "parquet_rows"]

ReadRows = Callable[[int | None, Sequence[str] | None], Iterator[pa.Table]]
"""(most rows, columns) to tables in row order; None for all rows at once, None for all columns."""

_READ_ROWS = 131_072


@dataclass(frozen=True)
class Spine:
    """Rows with their moments.

    Attributes:
        schema: its columns as given.
        rows: row count, at least 1.
        event_time: the column of moments.
        zone: IANA zone of naive moments, None where they are refused.
        carried: columns that go into the result, in order.
        read: see ``ReadRows``.
    """

    schema: pa.Schema
    rows: int
    event_time: str
    zone: str | None
    carried: tuple[str, ...]
    read: ReadRows

    def slices(self, rows: int | None = None, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The spine in order, at most ``rows`` rows at a time (None for all at once).

        Raises:
            InvalidInput: a file that is damaged.
        """
        return self.read(rows, columns)

    def moments(self, table: pa.Table, name: str, first_row: int) -> tuple[np.ndarray, np.ndarray]:
        """One column of a slice as (int64 microseconds UTC, bool valid); see ``moments.instants_of``."""
        return instants_of(table.column(name), name, self.zone, first_row)

    def check_column(self, name: str, what: str) -> pa.Field:
        """The field of a column.

        Raises:
            InvalidInput: no such column; the hint lists those there are.
        """
        if name not in self.schema.names:
            near = get_close_matches(name, self.schema.names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InvalidInput(
                f"the spine has no column {name!r} ({what})",
                subject=f"column {name!r}",
                hint=f"{hint}columns: {', '.join(self.schema.names)}",
            )
        return self.schema.field(name)

    def keys(
        self, table: pa.Table, group: FeatureGroup, on: Sequence[tuple[str, str]], first_row: int
    ) -> tuple[pa.Table, np.ndarray]:
        """A group's key columns for a slice, named and typed as the group has them.

        Args:
            table: the slice.
            group: the group.
            on: (record_id column, spine column), in record_id order.
            first_row: number of the slice's first row, for errors.

        Returns:
            (keys, bool valid: no part is null).

        Raises:
            InvalidInput: a value that is not of the identifier's type, naming both columns.
        """
        valid = np.ones(table.num_rows, np.bool_)
        columns = []
        for key, (_, name) in zip(group.key_columns, on, strict=True):
            column = _as_key(table.column(name), name, key, self.zone, first_row)
            columns.append(column)
            valid &= column.is_valid().to_numpy()
        return pa.table(columns, schema=pa.schema([key.field for key in group.key_columns])), valid


def open_spine(
    source: object, event_time: str, *, zone: str | None = None, columns: Sequence[str] | None = None
) -> Spine:
    """Take a spine in.

    Args:
        source: a polars DataFrame or LazyFrame, pandas DataFrame, pyarrow Table, RecordBatch or reader, a list of
            mappings, a path ending in ``.parquet`` (read slice by slice) or ``.csv``, SQL text run by DuckDB over local
            files, or whatever else ``foundation.engines.scan`` opens. Everything but Parquet is read whole, once.
            A named pandas index becomes columns.
        event_time: the column of moments: timestamps with a zone (any unit), ISO 8601 text with a zone, or epoch
            seconds.
        zone: IANA zone for naive moments; None refuses them.
        columns: spine columns that go into the result, None for all.

    Raises:
        InvalidInput: empty, a column twice, no such column, naive moments without a zone, or not readable.
        NotFound: no such file.
    """
    check_zone(zone)
    path = _file_named(source, ".parquet")
    if path is not None:
        schema, rows, read = parquet_rows(lambda: path, str(path))
    else:
        table = _table_of(source)
        schema, rows, read = table.schema.remove_metadata(), table.num_rows, _table_reader(table)
    if rows == 0:
        raise InvalidInput("the spine is empty", subject="spine", hint="give at least one row; nothing was built")
    twice = {name for name in schema.names if schema.names.count(name) > 1}
    if twice:
        raise InvalidInput(
            f"the spine has column {min(twice)!r} twice",
            subject=f"column {min(twice)!r}",
            hint="give every column a name of its own",
        )
    spine = Spine(schema, rows, event_time, zone, tuple(schema.names if columns is None else columns), read)
    check_moment_type(event_time, spine.check_column(event_time, "event_time").type, zone)
    for name in spine.carried:
        spine.check_column(name, "columns")
    if len(set(spine.carried)) != len(spine.carried):
        raise InvalidInput(f"a spine column is asked for twice: {list(spine.carried)}", subject="columns")
    return spine


# -- sources -----------------------------------------------------------------------------------------------------------


def _file_named(source: object, suffix: str) -> Path | None:
    """The file a path names, where it is one of that kind; folders and globs are for ``scan``."""
    if isinstance(source, str | Path) and str(source).endswith(suffix) and Path(source).is_file():
        return Path(source)
    return None


def _table_of(source: object) -> pa.Table:
    try:
        table = _convert(source)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InvalidInput(
            f"the spine cannot be read as a table: {error}",
            subject="spine",
            hint="every column needs one type; cast the column named above first",
        ) from error
    _refuse_mixed(table)
    return table.replace_schema_metadata(None)


def _convert(source: object) -> pa.Table:
    if isinstance(source, pa.Table):
        return source
    if isinstance(source, pa.RecordBatch):
        return pa.Table.from_batches([source])
    if isinstance(source, pa.RecordBatchReader):
        return source.read_all()
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if isinstance(source, pl.DataFrame):
        return source.to_arrow(compat_level=pl.CompatLevel.oldest())
    if _file_named(source, ".csv") is not None:
        # Types are guessed here: a spine has no declaration its text could be parsed by.
        return pacsv.read_csv(source)
    opened = scan(source)
    return pa.concat_tables([opened.schema.empty_table(), *opened.batches()], promote_options="permissive")


def _refuse_mixed(table: pa.Table) -> None:
    for field in table.schema:
        if isinstance(field.type, pa.BaseExtensionType):
            raise InvalidInput(
                f"the spine's column {field.name!r} mixes types, or moments with and without a time zone",
                subject=f"column {field.name!r}",
                hint="give every value of a column the same type",
            )


def _table_reader(table: pa.Table) -> ReadRows:
    def read(rows: int | None, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        chosen = table if columns is None else table.select(list(columns))
        step = rows or max(table.num_rows, 1)
        for start in range(0, table.num_rows, step):
            yield chosen.slice(start, step)

    return read


def parquet_rows(
    opened: Callable[[], Any], shown: str, schema: pa.Schema | None = None
) -> tuple[pa.Schema, int, ReadRows]:
    """Schema, row count and reader of a Parquet file.

    Args:
        opened: gives a path or an open file, every time it is read.
        shown: its name, for errors.
        schema: columns it is read as; None for the file's own.

    Raises:
        InvalidInput: a damaged file.
    """

    def damaged(error: Exception) -> InvalidInput:
        return InvalidInput(
            f"{shown} is not a readable Parquet file: {error}", subject=f"file {shown!r}", hint="write the file again"
        )

    try:
        with pq.ParquetFile(opened()) as file:
            given = schema or file.schema_arrow.remove_metadata()
            total = file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise damaged(error) from error

    def read(rows: int | None, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        wanted = given.names if columns is None else list(columns)
        target = pa.schema([given.field(name) for name in wanted])
        try:
            with pq.ParquetFile(opened()) as file:
                yield from _gathered(file.iter_batches(_READ_ROWS, columns=wanted), target, rows)
        except (pa.ArrowException, OSError) as error:
            raise damaged(error) from error

    return given, total, read


def _gathered(batches: Iterator[pa.RecordBatch], schema: pa.Schema, rows: int | None) -> Iterator[pa.Table]:
    """Batches as tables of exactly ``rows`` rows, the last one shorter."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        piece = batch.select(schema.names).cast(schema)
        while rows is not None and count + piece.num_rows >= rows:
            head, piece = piece.slice(0, rows - count), piece.slice(rows - count)
            yield pa.Table.from_batches([*waiting, head], schema)
            waiting, count = [], 0
        if piece.num_rows:
            waiting.append(piece)
            count += piece.num_rows
    if count:
        yield pa.Table.from_batches(waiting, schema)


# -- keys --------------------------------------------------------------------------------------------------------------


def check_key_type(name: str, kind: pa.DataType, key: Column) -> None:
    """Refuse a spine column whose type can never match an identifier.

    Raises:
        InvalidInput: naming both columns and types.
    """
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    types = pa.types
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    fits = {
        "Integral": number,
        "String": text,
        "Boolean": types.is_boolean(kind),
        "Timestamp": types.is_timestamp(kind),
        "Date": types.is_date(kind),
    }[key.type.kind]
    if not fits and not types.is_null(kind):
        raise InvalidInput(
            f"spine column {name!r} is {kind} but record_id {key.name!r} is {key.type.name}",
            subject=f"column {name!r}",
            hint=f"cast {name!r} to {key.type.name} before joining",
        )


def _as_key(column: pa.ChunkedArray, name: str, key: Column, zone: str | None, first_row: int) -> pa.ChunkedArray:
    check_key_type(name, column.type, key)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if key.type.kind == "Timestamp" and not pa.types.is_null(column.type):
        instants, valid = instants_of(column, name, zone, first_row)
        return pa.chunked_array([pa.array(instants, mask=~valid).cast(INSTANT)])
    if pa.types.is_floating(column.type):
        column = _whole(column, name, key, first_row)
    try:
        return column.cast(key.type.arrow)
    except pa.ArrowInvalid as error:
        raise InvalidInput(
            f"spine column {name!r} does not fit record_id {key.name!r} ({key.type.name}): {error}",
            subject=f"column {name!r}",
            hint=f"cast {name!r} to {key.type.name} before joining",
        ) from None


def _whole(column: pa.ChunkedArray, name: str, key: Column, first_row: int) -> pa.ChunkedArray:
    """Floats that are all whole numbers (what pandas makes of integers with gaps); NaN is null."""
    floats = column.cast(pa.float64()).fill_null(float("nan")).to_numpy()
    valid = ~np.isnan(floats)
    safe = np.where(valid, floats, 0.0)
    bad = (np.floor(safe) != safe) | (np.abs(safe) >= 2.0**63)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InvalidInput(
            f"row {first_row + row}: spine column {name!r} = {floats[row]} is no whole number, "
            f"but record_id {key.name!r} is {key.type.name}",
            subject=f"column {name!r}",
            hint=f"cast {name!r} to integers before joining",
        )
    return pa.chunked_array([pa.array(safe.astype(np.int64), mask=~valid)])
