"""Results written to local files: under a temporary name, fsynced, then renamed, so half a result is never seen."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from foundation import delta
from foundation.errors import AccessDenied, AlreadyExists, InvalidInput, LimitExceeded, NotSupported, PlatformError
from foundation.files.local import sync_path

__all__ = ["METADATA", "ParquetSink", "disk_errors", "write_delta", "write_parquet"]

METADATA = b"tilth.dataset"
"""Key of the result's own JSON in Arrow schema metadata and Parquet footers."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_GROUP_ROWS = 1 << 18


class ParquetSink:
    """One Parquet file, written table by table.

    Args:
        target: an open output stream or a local path.
        schema: of every table.
    """

    def __init__(self, target: pa.NativeFile | str, schema: pa.Schema) -> None:
        self._writer = pq.ParquetWriter(target, schema, compression="zstd", compression_level=1)
        self.rows = 0

    def write(self, table: pa.Table) -> None:
        """Add rows."""
        if table.num_rows:
            self._writer.write_table(table, row_group_size=_GROUP_ROWS)
            self.rows += table.num_rows

    def close(self, note: Mapping[str, object] | None = None) -> None:
        """Write the footer, with a note of plain JSON."""
        if note is not None:
            self._writer.add_key_value_metadata({METADATA: json.dumps(note).encode()})
        self._writer.close()

    def abort(self) -> None:
        """Let go; what was written is no Parquet file."""
        self._writer.is_open = False


@contextmanager
def disk_errors(place: str) -> Iterator[None]:
    """Turn the operating system's and Parquet's refusals into ours, naming the place.

    Raises:
        LimitExceeded: no space left.
        AccessDenied: not allowed there.
        NotSupported: a column type the format cannot hold.
    """
    try:
        yield
    except PlatformError:
        raise
    except OSError as error:
        if error.errno in _FULL:
            raise LimitExceeded(
                f"no space left while writing {place}", subject=place, hint="free disk space; nothing was left behind"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise AccessDenied(f"{place} cannot be written", subject=place, hint="check owner and mode") from error
        raise InvalidInput(f"{place} cannot be written: {error}", subject=place, hint="name another place") from error
    except pa.ArrowNotImplementedError as error:
        raise NotSupported(f"{place}: {error}", subject=place, hint="cast or leave out that column") from error


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A temporary neighbour of a path; gone again unless it was renamed."""
    with disk_errors(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        spare = path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"
        try:
            yield spare
        finally:
            if spare.is_dir():
                shutil.rmtree(spare, ignore_errors=True)
            else:
                spare.unlink(missing_ok=True)


def write_parquet(
    path: Path, schema: pa.Schema, tables: Iterator[pa.Table], note: Callable[[], Mapping[str, object]]
) -> int:
    """Write one Parquet file, replacing what is there only when it is whole and durable; return its rows.

    Args:
        path: local file.
        schema: of every table.
        tables: the rows, read once; an error in them leaves nothing behind.
        note: asked for the footer's JSON after the last row.
    """
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder", subject=str(path), hint="name a file")
    with _aside(path) as spare:
        sink = ParquetSink(str(spare), schema)
        try:
            for table in tables:
                sink.write(table)
            sink.close(note())
        except BaseException:
            sink.abort()
            raise
        sync_path(spare)
        os.replace(spare, path)
        sync_path(path.parent)
        return sink.rows


def write_delta(
    path: Path, schema: pa.Schema, tables: Iterator[pa.Table], note: Callable[[], Mapping[str, object]]
) -> int:
    """Write a new Delta table, one file per table given, and return its rows. Types Delta lacks are widened.

    Raises:
        AlreadyExists: something is there.
        InvalidInput: a column type with no Delta counterpart.
    """
    if path.exists():
        raise AlreadyExists(f"{path} exists already", subject=str(path), hint="name a new folder")
    target = pa.schema([pa.field(field.name, _delta_type(field.type, field.name)) for field in schema])
    with _aside(path) as spare:
        spare.mkdir()
        files: list[delta.DataFile] = []
        for table in tables:
            name = f"part-{len(files):05d}-{uuid.uuid4().hex}.parquet"
            sink = ParquetSink(str(spare / name), target)
            try:
                sink.write(table.cast(target))
                sink.close()
            except BaseException:
                sink.abort()
                raise
            about = (spare / name).stat()
            files.append(delta.DataFile(name, about.st_size, table.num_rows, about.st_mtime_ns // 1_000_000))
        delta.create(str(spare), target, name=path.name, options={})
        delta.commit(
            delta.load(str(spare), options={}),
            added=files,
            removed=[],
            data_change=True,
            app=None,
            note=note(),
            now=0,
        )
        for each in spare.rglob("*"):
            sync_path(each)
        sync_path(spare)
        spare.rename(path)
        sync_path(path.parent)
        return sum(file.rows for file in files)


def _delta_type(kind: pa.DataType, name: str) -> pa.DataType:
    types = pa.types
    if types.is_dictionary(kind):
        return _delta_type(kind.value_type, name)
    if types.is_timestamp(kind):
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return pa.list_(_delta_type(kind.value_type, name))
    if types.is_struct(kind):
        return pa.struct([(inner.name, _delta_type(inner.type, name)) for inner in kind])
    widened = {
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
        pa.uint64(): pa.int64(),
        pa.float16(): pa.float32(),
        pa.date64(): pa.date32(),
    }.get(kind, kind)
    plain = types.is_integer(widened) or types.is_floating(widened) or types.is_boolean(widened)
    if plain or types.is_date32(widened) or types.is_string(widened) or types.is_binary(widened):
        return widened
    if types.is_decimal128(widened):
        return widened
    raise InvalidInput(
        f"column {name!r} is {kind}, which Delta has no type for",
        subject=f"column {name!r}",
        hint="cast or leave it out",
    )
