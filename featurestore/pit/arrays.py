"""Arrow columns as NumPy sees them, and key columns compared row by row."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.pit.kernel import Bools, Ints

__all__ = ["KeyColumn", "cells", "differs", "null_mask", "plain", "rising", "taken", "width_of"]

KeyColumn: TypeAlias = np.ndarray | pa.Array
"""A key column as it is searched: int64, or Arrow strings."""

_WIDTHS: tuple[tuple[Any, Any], ...] = (
    (pa.types.is_int64, np.int64),
    (pa.types.is_timestamp, np.int64),
    (pa.types.is_float64, np.float64),
    (pa.types.is_float32, np.float32),
    (pa.types.is_date32, np.int32),
    (pa.types.is_decimal128, "V16"),
)


def width_of(kind: pa.DataType) -> np.dtype[Any] | None:
    """The numpy dtype of a type's cells (booleans one byte, decimals 16-byte void); None where cells vary in size."""
    if pa.types.is_boolean(kind):
        return np.dtype(np.uint8)
    return next((np.dtype(width) for fits, width in _WIDTHS if fits(kind)), None)


def cells(array: pa.Array) -> np.ndarray:
    """The cells of a fixed-width array, in numpy without a copy (booleans one byte); undefined under nulls."""
    buffer, width = array.buffers()[1], width_of(array.type)
    if buffer is None or width is None:
        return np.zeros(len(array), width)
    if pa.types.is_boolean(array.type):
        bits = np.unpackbits(np.frombuffer(buffer, np.uint8), bitorder="little")
        return bits[array.offset : array.offset + len(array)]
    return np.frombuffer(buffer, width, len(array), array.offset * width.itemsize)


def plain(array: pa.Array) -> KeyColumn:
    """A key or system column as it is searched: text stays Arrow, everything else is int64; undefined under nulls."""
    if pa.types.is_string(array.type):
        return array
    return cells(array).astype(np.int64, copy=False)


def null_mask(array: pa.Array) -> Bools:
    """True where an array is null."""
    if not array.null_count:
        return np.zeros(len(array), np.bool_)
    return np.asarray(array.is_null().to_numpy(zero_copy_only=False), np.bool_)


def differs(key: KeyColumn) -> Bools:
    """Whether each row but the first differs from the one before."""
    if isinstance(key, np.ndarray):
        steps: Bools = key[1:] != key[:-1]
        return steps
    return np.asarray(pc.not_equal(key.slice(1), key.slice(0, len(key) - 1)).to_numpy(zero_copy_only=False), np.bool_)


def taken(key: KeyColumn, chosen: Ints) -> KeyColumn:
    """Some rows of a key column."""
    return key[chosen] if isinstance(key, np.ndarray) else key.take(pa.array(chosen))


def rising(keys: list[KeyColumn]) -> bool:
    """Whether distinct keys rise strictly, column after column."""
    rises: Bools | None = None
    for key in reversed(keys):
        if isinstance(key, np.ndarray):
            more, same = key[1:] > key[:-1], key[1:] == key[:-1]
        else:
            after, before = key.slice(1), key.slice(0, max(len(key) - 1, 0))
            more = pc.greater(after, before).to_numpy(zero_copy_only=False)
            same = pc.equal(after, before).to_numpy(zero_copy_only=False)
        rises = more if rises is None else more | (same & rises)
    return bool(rises is None or rises.all())
