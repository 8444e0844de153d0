"""Gathering: the cells of chosen rows, from many units into one place, unit by unit so that memory stays bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from featurestore.pit.arrays import cells, null_mask, width_of
from featurestore.pit.kernel import Bools, Ints
from featurestore.pit.reader import Reader, Unit
from featurestore.pit.search import each_unit

__all__ = ["array_of", "gather"]

_SMALL = 1 << 30
"""Bytes of variable-width cells that fit into one Arrow array with room to spare (its offsets are 32 bits)."""
_SLAB = 1 << 18


def gather(
    reader: Reader,
    unit: npt.NDArray[np.int32],
    row: npt.NDArray[np.int32],
    target: Ints,
    total: int,
    columns: Sequence[str],
    *,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> dict[str, pa.ChunkedArray]:
    """Put the cells of row ``row[i]`` of unit ``unit[i]`` at place ``target[i]`` of columns ``total`` long.

    Places that are no target are null. Fixed-width cells are scattered straight into their place; others are taken
    per unit and put in order once at the end.

    Args:
        reader: where the units are.
        unit: int32 unit of each source row, all of them real.
        row: int32 row in the unit.
        target: distinct int64 places.
        total: length of the result.
        columns: names of offline columns.
        threads: worker threads.
        progress: told the fraction of units done.
    """
    filled = np.zeros(total, np.bool_)
    filled[target] = True
    sinks = {name: _sink(reader.schema.field(name).type, total) for name in columns}
    if len(unit) and sinks:
        numbers = unit.astype(np.uint16) if len(reader.units) < 1 << 16 else unit
        order = np.argsort(numbers, kind="stable")
        present, heads = np.unique(numbers[order], return_index=True)
        ends = np.append(heads[1:], len(order))
        spans = {int(n): (int(a), int(b)) for n, a, b in zip(present, heads, ends, strict=True)}

        def work(each: Unit) -> None:
            low, high = spans[each.number]
            items = order[low:high]
            rows, places = row[items].astype(np.int64), target[items]
            got = reader.read(each, columns)
            for name, sink in sinks.items():
                sink.put(each.number, got[name], rows, places)

        each_unit([reader.units[number] for number in spans], work, threads=threads, progress=progress)
    shared = _bitmap(filled)
    return {name: sink.finish(filled, shared) for name, sink in sinks.items()}


def array_of(values: np.ndarray, valid: Bools, kind: pa.DataType) -> pa.Array:
    """A fixed-width Arrow array over numpy cells (booleans one byte), null where not valid."""
    return _array(values, kind, _bitmap(valid), valid)


def _bitmap(valid: Bools) -> pa.Buffer | None:
    return None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _array(values: np.ndarray, kind: pa.DataType, bitmap: pa.Buffer | None, valid: Bools) -> pa.Array:
    if pa.types.is_boolean(kind):
        values = np.packbits(values, bitorder="little")
    nulls = 0 if bitmap is None else len(valid) - int(np.count_nonzero(valid))
    return pa.Array.from_buffers(kind, len(valid), [bitmap, pa.py_buffer(values)], nulls)


def _sink(kind: pa.DataType, total: int) -> _Fixed | _Varied:
    width = width_of(kind)
    return _Varied(kind, total) if width is None else _Fixed(kind, width, total)


class _Fixed:
    """Cells of equal width: scattered into place."""

    def __init__(self, kind: pa.DataType, width: np.dtype[Any], total: int) -> None:
        self._kind = kind
        self._cells = np.zeros(total, width)
        self._nulls: Bools | None = None
        self._lock = threading.Lock()

    def put(self, number: int, array: pa.Array, rows: Ints, places: Ints) -> None:
        """Take cells of one unit; threads write disjoint places."""
        if array.null_count < len(array):
            self._cells[places] = cells(array).take(rows)
        if array.null_count:
            gone = places[null_mask(array)[rows]]
            self._cells[gone] = np.zeros(1, self._cells.dtype)[0]
            with self._lock:
                if self._nulls is None:
                    self._nulls = np.zeros(len(self._cells), np.bool_)
            self._nulls[gone] = True

    def finish(self, filled: Bools, shared: pa.Buffer | None) -> pa.ChunkedArray:
        """The column."""
        if self._nulls is not None:
            filled = filled & ~self._nulls
            shared = _bitmap(filled)
        return pa.chunked_array([_array(self._cells, self._kind, shared, filled)])


class _Varied:
    """Cells of varying size: taken per unit, put in order at the end."""

    def __init__(self, kind: pa.DataType, total: int) -> None:
        self._kind = kind
        self._total = total
        self._lock = threading.Lock()
        self._pieces: list[tuple[int, pa.Array, Ints]] = []

    def put(self, number: int, array: pa.Array, rows: Ints, places: Ints) -> None:
        """Take cells of one unit."""
        piece = array.take(pa.array(rows))
        with self._lock:
            self._pieces.append((number, piece, places))

    def finish(self, filled: Bools, shared: pa.Buffer | None) -> pa.ChunkedArray:
        """The column; several chunks when it is too long for 32-bit offsets."""
        self._pieces.sort(key=lambda piece: piece[0])
        pieces = [piece for _, piece, _ in self._pieces]
        source = np.zeros(self._total, np.int64)
        start = 0
        for _, piece, places in self._pieces:
            source[places] = np.arange(start, start + len(piece))
            start += len(piece)
        if not pieces:
            return pa.chunked_array([pa.nulls(self._total, self._kind)])
        wanted = pa.array(source, mask=~filled)
        if sum(piece.nbytes for piece in pieces) < _SMALL:
            return pa.chunked_array([pa.concat_arrays(pieces).take(wanted)])
        whole = pa.chunked_array(pieces)
        slabs = [whole.take(wanted.slice(place, _SLAB)) for place in range(0, self._total, _SLAB)]
        return pa.chunked_array([chunk for slab in slabs for chunk in slab.chunks], self._kind)
