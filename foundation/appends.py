"""AppendTable: a Delta table to which named batches are appended, each exactly once and durably."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from foundation import delta
from foundation.errors import Conflict, InvalidInput, LimitExceeded, NotFound, PlatformError
from foundation.files import Files

__all__ = ["Appended", "AppendTable"]

_TRIES = 20
_LOOK_BACK = 100
"""Log entries fsynced with every commit: another process may have died between commit and fsync."""


@dataclass(frozen=True)
class Appended:
    """One file of the table: the batch it came with, rows, and its instant in milliseconds since the epoch."""

    path: str
    name: str
    rows: int
    modified_at: int


class AppendTable:
    """Safe from several threads and processes at once; one at a time may append under the same name.

    Data files and their directory are fsynced before the commit, the log entry before ``append`` returns.

    Args:
        files: where the table lives.
        folder: its folder below the root of ``files``.
        schema: columns of a table that is not there yet; one that is keeps its own.
        title: name kept in the table.
    """

    def __init__(self, files: Files, folder: str, schema: pa.Schema, *, title: str) -> None:
        self._files = files
        self._folder = folder
        self._title = title
        self._schema = schema

    def holds(self, name: str) -> bool:
        """Whether a batch of that name was appended."""
        try:
            return bool(delta.position(self._table(create=False), _app(name)))
        except NotFound:
            return False

    def append(self, name: str, parts: Iterable[pa.Table], *, at: int, before: Callable[[], None] | None = None) -> int:
        """Append a batch, in place of what that name appended before; return its rows.

        Args:
            name: of the batch; letters, digits and dashes.
            parts: tables with the columns of the table.
            at: instant (microseconds UTC).
            before: called when all parts are written, before any of them is visible.

        Raises:
            InvalidInput: a part that does not fit the schema.
            LimitExceeded: the disk is full; nothing was appended.
            Conflict: other commits kept coming first.
        """
        table = self._table(create=True)
        version = (delta.position(table, _app(name)) or 0) + 1
        path = f"{name}-{version}-{table.version()}.parquet"
        rows, size = self._write(path, parts, pa.schema(table.schema()))
        try:
            if before is not None:
                before()
            made = self._commit(name, version, delta.DataFile(path, size, rows, at // 1000))
        except BaseException:
            if path not in {file.path for file in self.files()}:
                self._files.delete(f"{self._folder}/{path}")
            raise
        self._sync_log(made)
        return rows

    def _commit(self, name: str, version: int, file: delta.DataFile) -> int:
        for attempt in range(_TRIES):
            table = self._table(create=True)
            if (delta.position(table, _app(name)) or 0) != version - 1:
                break
            old = [each for each in delta.files_of(table) if _name_of(each.path) == name]
            try:
                delta.commit(
                    table,
                    added=[file],
                    removed=old,
                    data_change=True,
                    app=(_app(name), version),
                    note={"append": name},
                    now=file.modified_at,
                )
            except Conflict:
                if attempt == _TRIES - 1:
                    raise
                continue
            return int(table.version()) + 1
        raise Conflict(
            f"{name!r} is being appended to {self._folder} by someone else",
            subject=f"table {self._folder}",
            hint="wait for it, then look whether it is there",
        )

    def files(self) -> list[Appended]:
        """The files held, newest first."""
        try:
            held = delta.files_of(self._table(create=False))
        except NotFound:
            return []
        found = [Appended(file.path, _name_of(file.path), file.rows, file.modified_at) for file in held]
        return sorted(found, key=lambda each: (-each.modified_at, each.path))

    def read(self, files: Iterable[Appended]) -> Iterator[pa.Table]:
        """Rows of some of its files, file by file."""
        schema = pa.schema(self._table(create=True).schema())
        for file in files:
            path = f"{self._folder}/{file.path}"
            yield pq.read_table(path, filesystem=self._files.filesystem, schema=schema, partitioning=None)

    def drop(self) -> None:
        """Remove the table and its files."""
        self._files.delete(self._folder)

    def _table(self, *, create: bool) -> delta.DeltaTable:
        location, options = f"{self._files.url}/{self._folder}", self._files.storage_options
        try:
            return delta.load(location, options=options)
        except NotFound:
            if not create:
                raise
        except PlatformError:
            if not delta.heal(self._files.filesystem, self._folder):
                raise
            return delta.load(location, options=options)
        self._files.filesystem.create_dir(self._folder, recursive=True)
        delta.create(location, self._schema, name=self._title, options=options)
        self._sync_log(0)
        return delta.load(location, options=options)

    def _write(self, name: str, parts: Iterable[pa.Table], schema: pa.Schema) -> tuple[int, int]:
        path = f"{self._folder}/{name}"
        rows = 0
        with _undone(self._files, path):
            with (
                self._files.filesystem.open_output_stream(path) as stream,
                pq.ParquetWriter(stream, schema, compression="zstd") as writer,
            ):
                for part in parts:
                    writer.write_table(self._fitted(part, schema))
                    rows += part.num_rows
            self._files.sync([path])
        return rows, int(self._files.filesystem.get_file_info(path).size)

    def _fitted(self, part: pa.Table, schema: pa.Schema) -> pa.Table:
        if unknown := [name for name in part.column_names if name not in schema.names]:
            raise InvalidInput(
                f"column {unknown[0]!r} is not in the table {self._folder}",
                subject=f"column {unknown[0]!r}",
                hint=f"its columns are {', '.join(schema.names)}",
            )
        try:
            return part.select(schema.names).cast(schema)
        except (KeyError, ValueError, pa.ArrowException) as error:
            raise InvalidInput(
                f"rows do not fit the table {self._folder}: {error}",
                subject=f"table {self._folder}",
                hint=f"its columns are {', '.join(f'{each.name}: {each.type}' for each in schema)}",
            ) from error

    def _sync_log(self, version: int) -> None:
        paths = delta.log_paths(self._files.filesystem, self._folder)
        self._files.sync(path for each, path in paths.items() if each >= version - _LOOK_BACK)


def _app(name: str) -> str:
    return f"tilth/append/{name}"


def _name_of(path: str) -> str:
    """The batch a file is named after: ``<name>-<version of the batch>-<version of the table>.parquet``."""
    return path.rsplit("-", 2)[0]


@contextmanager
def _undone(files: Files, path: str) -> Iterator[None]:
    """Leave no part of a file behind when writing it fails."""
    try:
        yield
    except BaseException as error:
        files.delete(path)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LimitExceeded(
                f"the disk is full, {path} cannot be written",
                subject=f"file {path}",
                hint="free space; nothing of it was kept",
            ) from error
        raise
