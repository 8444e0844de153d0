"""The local engine: polars and pyarrow for files and frames, DuckDB for queries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import polars as pl
import pyarrow as pa

from foundation import delta
from foundation.content import hash_file, hash_table, hash_texts
from foundation.engines import Scan
from foundation.engines.formats import EXTENSIONS, Opened, extension_of, open_file
from foundation.engines.memory import Kept, keep, pandas_to_arrow, polars_to_arrow, rebatch, records_to_arrow
from foundation.engines.paths import expand, is_delta
from foundation.errors import InvalidInput
from foundation.sql import (
    is_relation,
    looks_like_sql,
    query,
    relation_batches,
    sqlite_path,
    sqlite_table,
    sqlite_tables,
)

__all__ = ["LocalEngine", "scan"]

_SQLITE = frozenset({"db", "sqlite", "sqlite3"})


@dataclass(frozen=True)
class _Source:
    """A ``foundation.engines.Scan``."""

    schema: pa.Schema
    text: bool
    rows: int | None
    read: Callable[[int], Iterator[pa.Table]]
    identify: Callable[[], str]

    @cached_property
    def identity(self) -> str:
        return self.identify()

    def batches(self, rows: int = 1_000_000) -> Iterator[pa.Table]:
        return self.read(rows)


class LocalEngine:
    """See ``foundation.engines.Engine``."""

    def scan(self, source: object, *, schema_hint: pa.Schema | None = None, sql: str | None = None) -> Scan:
        """See ``foundation.engines.scan``."""
        return scan(source, schema_hint=schema_hint, sql=sql)


def scan(source: object, *, schema_hint: pa.Schema | None = None, sql: str | None = None) -> Scan:
    """See ``foundation.engines.scan``."""
    if sql is None and _is_scan(source):
        return source
    if isinstance(source, str) and sql is None and looks_like_sql(source) and not os.path.exists(source):
        source, sql = None, source
    opened = _scan_query(sql, source, schema_hint) if sql is not None else _scan_source(source, schema_hint)
    seen: set[str] = set()
    for name in opened.schema.names:
        if name in seen:
            raise InvalidInput(
                f"column {name!r} is in the source twice",
                subject=f"column {name!r}",
                hint="give every column a name of its own",
            )
        seen.add(name)
    return opened


def _is_scan(source: object) -> TypeGuard[Scan]:
    """Looked up on the class: asking the object could hash its content, or resolve a lazy frame's schema."""
    kind = type(source)
    return callable(getattr(kind, "batches", None)) and hasattr(kind, "identity")


def _scan_source(source: object, schema_hint: pa.Schema | None) -> _Source:
    if isinstance(source, str) and source.startswith("sqlite:"):
        return _of_kept(keep(*sqlite_table(*sqlite_path(source))), "arrow")
    if isinstance(source, str | os.PathLike):
        return _scan_paths([source])
    if isinstance(source, Sequence) and source and all(isinstance(each, str | os.PathLike) for each in source):
        return _scan_paths(list(source))
    if isinstance(source, pl.LazyFrame):
        return _of_kept(_keep_lazy(source), "arrow")
    if isinstance(source, pa.RecordBatchReader):
        return _of_kept(_keep_reader(source), "arrow")
    if is_relation(source):
        return _of_kept(keep(*relation_batches(source)), "arrow")
    return _of_table(_table_of(source, schema_hint))


def _table_of(source: object, schema_hint: pa.Schema | None) -> pa.Table:
    if isinstance(source, pa.Table):
        return source
    if isinstance(source, pa.RecordBatch):
        return pa.Table.from_batches([source])
    if isinstance(source, pl.DataFrame):
        return polars_to_arrow(source)
    if type(source).__module__.split(".")[0] == "pandas" and type(source).__name__ == "DataFrame":
        return pandas_to_arrow(source)
    if isinstance(source, list | tuple) and not isinstance(source, str):
        return records_to_arrow(source, schema_hint)
    if hasattr(source, "__arrow_c_stream__"):
        return pa.table(source)
    raise InvalidInput(
        f"{type(source).__name__} is not a source of rows",
        subject="source",
        hint="give a path, a query, a polars, pandas or Arrow table, a DuckDB relation or a list of dicts",
    )


def _of_table(table: pa.Table) -> _Source:
    return _Source(
        table.schema,
        False,
        table.num_rows,
        lambda rows: rebatch([table], rows),
        lambda: hash_texts(["arrow", hash_table(table)]),
    )


def _of_kept(kept: Kept, kind: str) -> _Source:
    return _Source(kept.schema, False, kept.rows, kept.batches, lambda: hash_texts([kind, kept.identity]))


def _keep_lazy(frame: pl.LazyFrame) -> Kept:
    try:
        kept: Kept | None = None
        for part in frame.collect_batches(maintain_order=True):
            table = polars_to_arrow(part)
            kept = kept or Kept(table.schema)
            for batch in table.to_batches():
                kept.add(batch)
        kept = kept or Kept(polars_to_arrow(frame.head(0).collect()).schema)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InvalidInput(f"the lazy frame fails: {error}", subject="source") from error
    kept.close()
    return kept


def _keep_reader(reader: pa.RecordBatchReader) -> Kept:
    try:
        return keep(reader.schema, reader)
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"the reader fails: {error}", subject="source") from error


# -- queries --------------------------------------------------------------------------------------------------------


def _scan_query(sql: str, source: object, schema_hint: pa.Schema | None) -> _Source:
    """The result of a query, kept: running it again might give other rows or another order."""
    return _of_kept(keep(*query(sql, _tables_of(source, schema_hint))), "arrow")


def _tables_of(source: object, schema_hint: pa.Schema | None) -> Mapping[str, pa.Table]:
    if source is None:
        return {}
    path = _sqlite_file(source)
    if path is None:
        opened = scan(source, schema_hint=schema_hint)
        return {"source": pa.concat_tables([opened.schema.empty_table(), *opened.batches()], promote_options="default")}
    return {name: _whole(*sqlite_table(path, name)) for name in sqlite_tables(path)}


def _whole(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(list(batches), schema)


def _sqlite_file(source: object) -> Path | None:
    if isinstance(source, str) and source.startswith("sqlite:"):
        return sqlite_path(source)[0]
    if isinstance(source, str | os.PathLike) and extension_of(Path(source)) in _SQLITE and Path(source).is_file():
        return Path(source)
    return None


# -- files ----------------------------------------------------------------------------------------------------------


def _scan_paths(sources: Sequence[str | os.PathLike[str]]) -> _Source:
    if len(sources) == 1:
        if (file := _sqlite_file(sources[0])) is not None:
            return _of_kept(keep(*sqlite_table(file, None)), "arrow")
        if is_delta(Path(sources[0])):
            return _scan_delta(Path(sources[0]))
    paths = [path for source in sources for path in expand(source)]
    kinds = {EXTENSIONS.get(extension_of(path)) for path in paths}
    if len(kinds) > 1:
        raise InvalidInput(
            f"files of several formats: {', '.join(sorted({extension_of(path) for path in paths}))}",
            subject="source",
            hint="load one format at a time",
        )
    opened = [open_file(path) for path in paths]
    counts = [each.rows for each in opened]
    kind = "text" if opened[0].text else "rows"
    return _Source(
        _common(paths, opened),
        opened[0].text,
        None if None in counts else sum(count or 0 for count in counts),
        lambda rows: rebatch((table for each in opened for table in each.read(rows)), rows),
        lambda: hash_texts([kind, extension_of(paths[0]), *map(hash_file, paths)]),
    )


def _common(paths: Sequence[Path], opened: Sequence[Opened]) -> pa.Schema:
    schema = opened[0].schema
    for path, other in zip(paths[1:], opened[1:], strict=True):
        if other.schema.equals(schema) or len(set(other.schema.names)) < len(other.schema):
            schema = other.schema
            continue
        try:
            schema = pa.unify_schemas([schema, other.schema], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InvalidInput(
                f"{path} does not fit {paths[0]}: {error}",
                subject=f"file {str(path)!r}",
                hint="files of one load need the same columns; load them one by one",
            ) from error
    return schema


def _scan_delta(path: Path) -> _Source:
    """The latest version of a Delta table. Its identity is its file list: a rewrite of the same rows is new content."""
    table = delta.load(str(path), options={})
    files = sorted(delta.files_of(table), key=lambda file: file.path)
    identity = hash_texts(["delta", *(f"{file.path}:{file.size}" for file in files)])
    kept = pl.scan_delta(table)

    def read(rows: int) -> Iterator[pa.Table]:
        try:
            parts = kept.collect_batches(chunk_size=rows, maintain_order=True)
            yield from rebatch((polars_to_arrow(part) for part in parts), rows)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InvalidInput(
                f"the Delta table {path} cannot be read: {error}", subject=f"file {str(path)!r}"
            ) from error

    counts: list[Any] = [file.rows for file in files]
    schema = polars_to_arrow(kept.head(0).collect()).schema
    return _Source(schema, False, None if -1 in counts else sum(counts), read, lambda: identity)
