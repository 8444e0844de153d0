"""The only importer of DuckDB (pinned below 2) and the reader of SQLite files.

Every query has a connection of its own, closed when its result is exhausted or dropped; the module-level default
connection is never used. Extensions are never downloaded, so SQLite files are read through Python's ``sqlite3``.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeGuard
from urllib.parse import parse_qs, unquote

import duckdb
import pyarrow as pa

from foundation.errors import InvalidInput, LimitExceeded, NotFound, NotSupported

__all__ = ["is_relation", "looks_like_sql", "query", "relation_batches", "sqlite_path", "sqlite_table", "sqlite_tables"]

_ROWS = 122_880
"""Rows of a result batch: one DuckDB row group."""
_OPTIONS: dict[str, str | bool | int | float | list[str]] = {"autoinstall_known_extensions": "false"}
_KINDS = {"integer": pa.int64(), "real": pa.float64(), "text": pa.string(), "blob": pa.binary(), "null": pa.null()}
_SQL = re.compile(r"\s*(select|with|from|values)\b", re.IGNORECASE)


def looks_like_sql(text: str) -> bool:
    """Whether a text starts as a query does."""
    return _SQL.match(text) is not None


def query(sql: str, tables: Mapping[str, pa.Table] | None = None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Run one SELECT; naive timestamps stay naive, zoned ones come back in UTC.

    Args:
        sql: one query; it may name files (``from 'x.parquet'``, ``read_csv(...)``) and ``tables``.
        tables: Arrow tables the query may name.

    Returns:
        The result's schema, and its batches, to be read once.

    Raises:
        InvalidInput: not one query, or DuckDB refuses it or fails on it.
        NotFound: it names a file or table that does not exist.
        NotSupported: it needs an extension that is not built in.
    """
    connection = duckdb.connect(":memory:", config=_OPTIONS)
    try:
        statements = connection.extract_statements(sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise InvalidInput(
                f"{_shown(sql)} is not one query", subject="sql", hint="give a single SELECT without side effects"
            )
        connection.execute("set TimeZone = 'UTC'")
        for name, table in (tables or {}).items():
            connection.register(name, table)
        reader = connection.execute(statements[0]).to_arrow_reader(_ROWS)
    except (duckdb.Error, InvalidInput) as error:
        connection.close()
        raise _translated(error, sql) from error
    return reader.schema, _drain(connection, reader, sql)


def _drain(connection: duckdb.DuckDBPyConnection, reader: pa.RecordBatchReader, sql: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise _translated(error, sql) from error
    finally:
        reader.close()
        connection.close()


def is_relation(value: object) -> TypeGuard[duckdb.DuckDBPyRelation]:
    """Whether a value is a DuckDB relation."""
    return isinstance(value, duckdb.DuckDBPyRelation)


def relation_batches(relation: duckdb.DuckDBPyRelation) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and batches of a caller's relation; its connection stays the caller's.

    Raises:
        InvalidInput: its connection is closed or its query fails.
    """
    try:
        reader = relation.to_arrow_reader(_ROWS)
    except duckdb.Error as error:
        raise _translated(error, "the relation") from error

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise _translated(error, "the relation") from error
        finally:
            reader.close()

    return reader.schema, batches()


def _translated(error: Exception, sql: str) -> Exception:
    if isinstance(error, InvalidInput):
        return error
    text = str(error).strip().split("\n\n", maxsplit=1)[0].splitlines()
    told = next(iter(text), type(error).__name__)
    if "required extension" in told or isinstance(error, duckdb.HTTPException):
        return NotSupported(
            f"{_shown(sql)}: {told}",
            subject="sql",
            hint="extensions are not downloaded; read a SQLite file with the source sqlite:///file.db",
        )
    if "No files found" in told or (isinstance(error, duckdb.CatalogException) and "does not exist" in told):
        return NotFound(f"{_shown(sql)}: {told}", subject="sql", hint="check the names of files and tables")
    if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in told:
        return LimitExceeded(f"{_shown(sql)}: {told}", subject="sql", hint="free space, or ask for fewer rows")
    return InvalidInput(f"{_shown(sql)}: {told}", subject="sql", hint="try the query in a DuckDB shell")


def _shown(sql: str) -> str:
    flat = " ".join(sql.split())
    return flat if len(flat) <= 80 else f"{flat[:77]}…"


# -- SQLite files ---------------------------------------------------------------------------------------------------


def sqlite_path(url: str) -> tuple[Path, str | None]:
    """Split ``sqlite:///file.db?table=name``: the file (absolute, else below the working folder) and the table.

    Raises:
        NotFound: no such file.
        InvalidInput: not of that form.
    """
    place, _, options = url.removeprefix("sqlite://").partition("?")
    chosen = parse_qs(options, keep_blank_values=True)
    if not place.startswith("/") or set(chosen) - {"table"}:
        raise InvalidInput(f"{url!r} is not a SQLite source", subject="source", hint="use sqlite:///file.db?table=name")
    for path in (Path(unquote(place)), Path(unquote(place[1:]))):
        if path.is_file():
            return path, chosen.get("table", [None])[0]
    raise NotFound(f"file {unquote(place)!r} does not exist", subject=f"file {unquote(place)!r}")


def sqlite_tables(path: Path) -> list[str]:
    """Names of a SQLite file's tables and views.

    Raises:
        InvalidInput: not a SQLite file.
    """
    with closing(_sqlite(path)) as connection:
        return _sqlite_names(connection, path)


def _sqlite(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _sqlite_names(connection: sqlite3.Connection, path: Path) -> list[str]:
    try:
        found = connection.execute(
            "select name from sqlite_schema where type in ('table', 'view') and name not like 'sqlite_%' order by name"
        )
        return [name for (name,) in found]
    except sqlite3.Error as error:
        raise InvalidInput(f"{path}: {error}", subject=f"file {str(path)!r}", hint="give a SQLite file") from error


def sqlite_table(path: Path, table: str | None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Schema and batches of one table or view (the only one, when ``table`` is None).

    SQLite types values, not columns, so a column is Integral where all its values are integers, Fractional where they
    are integers and reals, String where any is text (the others are given as their text), binary where any is a blob.

    Raises:
        InvalidInput: not a SQLite file, or several tables and none named.
        NotFound: no such table.
    """
    connection = _sqlite(path)
    try:
        names = _sqlite_names(connection, path)
        if table is None and len(names) == 1:
            table = names[0]
        if table is None:
            raise InvalidInput(
                f"{path} holds {len(names)} tables", subject="source", hint=f"add ?table=, one of {', '.join(names)}"
            )
        if table not in names:
            raise NotFound.of("table", table, names)
        connection.execute("begin")  # types and rows from one snapshot
        schema, select = _sqlite_plan(connection, table)
    except sqlite3.Error as error:
        connection.close()
        raise InvalidInput(f"{path}: {error}", subject=f"file {str(path)!r}") from error
    except Exception:
        connection.close()
        raise
    return schema, _sqlite_rows(connection, select, schema, path)


def _sqlite_plan(connection: sqlite3.Connection, table: str) -> tuple[pa.Schema, str]:
    columns = [name for _, name, *_ in connection.execute(f"pragma table_xinfo({_quoted(table)})")]
    fields, select = [], []
    for name in columns:
        found = connection.execute(f"select distinct typeof({_quoted(name)}) from {_quoted(table)}")
        kinds = {kind for (kind,) in found} - {"null"}
        kind = next((kind for kind in ("blob", "text", "real", "integer") if kind in kinds), "null")
        fields.append(pa.field(name, _KINDS[kind]))
        mixed = kind in ("blob", "text") and len(kinds) > 1
        select.append(f"cast({_quoted(name)} as {kind})" if mixed else _quoted(name))
    return pa.schema(fields), f"select {', '.join(select)} from {_quoted(table)}"


def _sqlite_rows(
    connection: sqlite3.Connection, select: str, schema: pa.Schema, path: Path
) -> Iterator[pa.RecordBatch]:
    try:
        cursor = connection.execute(select)
        while rows := cursor.fetchmany(_ROWS):
            cells = zip(*rows, strict=True)
            yield pa.record_batch(
                [pa.array(list(column), field.type) for column, field in zip(cells, schema, strict=True)], schema=schema
            )
    except (sqlite3.Error, pa.ArrowException, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: {error}", subject=f"file {str(path)!r}") from error
    finally:
        connection.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
