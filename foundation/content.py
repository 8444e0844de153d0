"""Content hashes: of files, and of Arrow data whatever its chunks, slices and string layout.

Used to recognise a load or a result that was seen before. SHA-256 throughout: with the processor's instructions it runs
at more than a gigabyte a second, about as long as reading the same bytes takes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["TableHash", "hash_file", "hash_table", "hash_texts"]

_FILE_BLOCK = 1 << 24
_BLOCK = 1 << 16
"""Rows hashed at a time; part of the definition of the hash."""


def hash_file(path: Path) -> str:
    """Hash of a file's bytes, as hex: SHA-256 over the SHA-256 of every 16 MB, which two threads can share."""
    size = path.stat().st_size
    with path.open("rb") as handle, ThreadPoolExecutor(2) as pool:

        def block(start: int) -> bytes:
            return hashlib.sha256(os.pread(handle.fileno(), _FILE_BLOCK, start)).digest()

        whole = hashlib.sha256(size.to_bytes(8, "little"))
        for digest in pool.map(block, range(0, size, _FILE_BLOCK)):
            whole.update(digest)
    return whole.hexdigest()


def hash_texts(parts: Iterable[str]) -> str:
    """SHA-256 over texts, each with its length, so that no two different lists collide by concatenation."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def hash_table(table: pa.Table) -> str:
    """SHA-256 of a table's column names, types and values in row order, as hex.

    Equal for equal values however the table is chunked, sliced, dictionary-encoded, or kept in 32- or 64-bit offsets;
    what lies under a null does not count.
    """
    digest = TableHash(table.schema)
    digest.update(table)
    return digest.hexdigest()


class TableHash:
    """``hash_table`` over rows that arrive in parts."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._digest = hashlib.sha256()
        self._pending: list[pa.Table] = []
        self._rows = 0
        for field in schema:
            self._digest.update(hash_texts([field.name, _shape(field.type)]).encode())

    def update(self, part: pa.Table | pa.RecordBatch) -> None:
        """Add rows of the schema given at the start."""
        table = pa.Table.from_batches([part]) if isinstance(part, pa.RecordBatch) else part
        self._pending.append(table)
        self._rows += table.num_rows
        if self._rows < _BLOCK:
            return
        whole = pa.concat_tables(self._pending)
        start = 0
        while self._rows - start >= _BLOCK:
            self._block(whole.slice(start, _BLOCK))
            start += _BLOCK
        self._pending = [whole.slice(start)]
        self._rows -= start

    def hexdigest(self) -> str:
        """The hash of everything added; nothing may be added afterwards."""
        if self._rows:
            self._block(pa.concat_tables(self._pending))
        self._pending, self._rows = [], 0
        return self._digest.hexdigest()

    def _block(self, rows: pa.Table) -> None:
        self._digest.update(rows.num_rows.to_bytes(8, "little"))
        for column in rows.columns:
            chunk = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
            _feed(self._digest, chunk)


def _shape(kind: pa.DataType) -> str:
    """A type's text with layout differences removed."""
    if pa.types.is_dictionary(kind):
        return _shape(kind.value_type)
    if pa.types.is_struct(kind):
        return "struct<" + ",".join(f"{inner.name!r}:{_shape(inner.type)}" for inner in kind) + ">"
    if _is_list(kind):
        return f"list<{_shape(kind.value_type)}>"
    return str(kind).replace("large_", "").replace("_view", "")


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _feed(digest: hashlib._Hash, cells: pa.Array) -> None:
    kind = cells.type
    if isinstance(kind, pa.BaseExtensionType):
        return _feed(digest, cells.storage)
    if pa.types.is_dictionary(kind):
        return _feed(digest, cells.dictionary_decode())
    if cells.null_count:
        digest.update(b"n" + np.packbits(pc.is_valid(cells).to_numpy(zero_copy_only=False)).tobytes())
    else:
        digest.update(b"v")
    if pa.types.is_null(kind):
        return None
    if _is_list(kind):
        _numbers(digest, pc.fill_null(pc.list_value_length(cells), 0).cast(pa.int64()))
        return _feed(digest, cells.flatten())
    if pa.types.is_struct(kind):
        for inner in cells.flatten():
            _feed(digest, inner)
        return None
    return _flat(digest, cells)


def _flat(digest: hashlib._Hash, cells: pa.Array) -> None:
    kind = cells.type
    if pa.types.is_boolean(kind):
        digest.update(np.packbits(pc.fill_null(cells, False).to_numpy(zero_copy_only=False)).tobytes())
    elif _is_bytes(kind):
        _bytes(digest, cells)
    elif pa.types.is_primitive(kind) or pa.types.is_decimal(kind):
        _numbers(digest, cells)
    else:
        digest.update(repr(cells.to_pylist()).encode())  # maps, unions and the like: rare, never stored


def _is_bytes(kind: pa.DataType) -> bool:
    names = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    return str(kind) in names


def _bytes(digest: hashlib._Hash, cells: pa.Array) -> None:
    cells = cells.cast(pa.large_binary())
    if cells.null_count:
        cells = pc.fill_null(cells, b"")
    if not len(cells):
        return
    _, offsets, data = cells.buffers()
    places = np.frombuffer(offsets, np.int64)[cells.offset : cells.offset + len(cells) + 1]
    digest.update(np.diff(places).tobytes())
    if data is not None:
        digest.update(memoryview(data)[places[0] : places[-1]])


def _numbers(digest: hashlib._Hash, cells: pa.Array) -> None:
    """Fixed-width values; zeros stand under the nulls."""
    width = cells.type.bit_width // 8
    data = cells.buffers()[1]
    if data is None:
        return
    view = np.frombuffer(data, np.uint8)[cells.offset * width : (cells.offset + len(cells)) * width]
    if cells.null_count:
        view = view.reshape(-1, width).copy()
        view[pc.is_null(cells).to_numpy(zero_copy_only=False)] = 0
    digest.update(view.tobytes())
