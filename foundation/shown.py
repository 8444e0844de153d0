"""Rows of a table as JSON text for people to read: nothing is lost to a type JSON lacks."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["MIXED", "json_rows"]

MIXED = pa.json_(pa.string())
"""Type of a column whose values have no common Arrow type: each value as JSON text."""


def json_rows(table: pa.Table, rows: np.ndarray) -> list[str]:
    """Some rows, each as a JSON object.

    Moments become ISO 8601 text (UTC where they have a zone), infinities and NaN their names, anything else JSON has no
    form for its text.

    Args:
        table: the rows.
        rows: int64 row numbers.
    """
    places = pa.array(rows, pa.int64())
    columns = [_shown(_unviewed(column).take(places)) for column in table.columns]
    return [
        json.dumps(dict(zip(table.column_names, cells, strict=True)), default=str, ensure_ascii=False)
        for cells in zip(*columns, strict=True)
    ]


def _unviewed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Arrow's ``take`` has no kernel for views."""
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    return column.cast(pa.large_binary()) if pa.types.is_binary_view(column.type) else column


def _shown(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _shown(column.cast(kind.value_type))
    if kind == MIXED:
        return [None if cell is None else json.loads(cell) for cell in column.cast(pa.string()).to_pylist()]
    if pa.types.is_temporal(kind):
        column = column.cast(pa.timestamp(kind.unit, "UTC")) if getattr(kind, "tz", None) else column
        return list(column.cast(pa.string()).to_pylist())
    try:
        cells = column.to_pylist()
    except (ValueError, OverflowError, UnicodeDecodeError):
        return [_piece(cell) for cell in column]
    if pa.types.is_floating(kind):
        return [str(cell) if cell is not None and not math.isfinite(cell) else cell for cell in cells]
    return list(cells)


def _piece(cell: pa.Scalar) -> object:
    try:
        return cell.as_py()
    except (ValueError, OverflowError, UnicodeDecodeError):
        return repr(cell.as_buffer().to_pybytes()) if hasattr(cell, "as_buffer") else str(cell)
