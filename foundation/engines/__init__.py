"""Seam Engine: turn what a user hands over (files, frames, queries) into Arrow tables, a batch at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from foundation.errors import NotSupported

__all__ = ["Engine", "Scan", "files_of", "open_engine", "scan"]

_BACKENDS = {"local": "foundation.engines.local"}


class Scan(Protocol):
    """Rows of one source, in a fixed order."""

    @property
    def schema(self) -> pa.Schema:
        """Columns as known before reading; batches of JSON may add columns or differ in type where the text does."""

    @property
    def text(self) -> bool:
        """Values are text still to be parsed (CSV): every column is a string, the empty field is null."""

    @property
    def rows(self) -> int | None:
        """Row count where it is known without reading."""

    @property
    def identity(self) -> str:
        """Hash of the content (hex), computed when first asked for.

        Of files it is that of their bytes in order (all of them; names and places do not count), of a Delta table that
        of its file list, of everything else that of the Arrow values.
        """

    def batches(self, rows: int = 1_000_000) -> Iterator[pa.Table]:
        """Tables of at most ``rows`` rows in source order; every call starts again from the first row.

        Raises:
            InvalidInput: the source turns out to be damaged, naming the file and the place.
        """


class Engine(Protocol):
    """Reads sources."""

    def scan(self, source: object, *, schema_hint: pa.Schema | None = None, sql: str | None = None) -> Scan:
        """See ``foundation.engines.scan``."""


def open_engine(name: str = "local") -> Engine:
    """Open an engine by name.

    Raises:
        NotSupported: no such engine.
    """
    if name not in _BACKENDS:
        raise NotSupported(f"engine {name!r} is unknown", subject="setting engine", hint='use "local"')
    engine: Engine = import_module(_BACKENDS[name]).LocalEngine()
    return engine


def scan(source: object, *, schema_hint: pa.Schema | None = None, sql: str | None = None) -> Scan:
    """Open a source with the local engine.

    Args:
        source: a path, glob, folder or list of paths (CSV, TSV, JSON lines, Parquet, Arrow IPC; a Delta folder; a
            SQLite file), ``sqlite:///file.db?table=name``, an Arrow table, batch or reader, a polars frame, a pandas
            frame, a DuckDB relation, a list of mappings, the text of a query, or a Scan, which is
            given back.
        schema_hint: columns to assume where the source has no rows to tell (an empty list).
        sql: a query DuckDB runs; it may name files, ``source`` (what was given as the source), or the tables of a
            SQLite source.

    Raises:
        NotFound: no such file or table.
        InvalidInput: not a source, a damaged file, a duplicate column.
    """
    return open_engine("local").scan(source, schema_hint=schema_hint, sql=sql)


def files_of(sources: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files (and Delta folders) paths, folders and globs stand for, each a source of its own.

    Raises:
        NotFound: one of them stands for nothing.
    """
    from foundation.engines.paths import expand, is_delta

    return [path for source in sources for path in ([Path(source)] if is_delta(Path(source)) else expand(source))]
