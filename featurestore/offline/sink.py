"""RunSink: writes sorted rows as run files, row groups cut at entities, durable when closed.

Snappy, and a dictionary only where values repeat: of the codecs it reads as fast as LZ4, three times as fast as zstd,
and every Delta reader knows it.
"""

from __future__ import annotations

import errno
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.groups import FeatureGroup
from featurestore.offline import Run, offline_schema
from featurestore.offline.runs import cut_rows, entity_starts, new_name
from foundation.errors import LimitExceeded
from foundation.files import Files

__all__ = ["RunSink"]

GROUP_ROWS = 2**18
"""Rows of a row group, for rows of ordinary width."""
GROUP_BYTES = 128 * 2**20
"""Uncompressed bytes of a row group, which wide rows reach first."""
_SAMPLE = 2**16
_REPEATS = 2**13
"""A column with fewer distinct values than this in a sample gets a dictionary."""


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
            with suppress(OSError):
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
