"""One column of a source read as a feature type, in bulk: what does not fit is marked with a reason, row by row.

The rules are those of ``values`` (one record at a time), loosened where columns of a frame need it: whole floats are
accepted for Integral, decimals for numbers, any timestamp unit, and text where the source has nothing but text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.instants import Instants, read_instants
from featurestore.values import MAX_TEXT, parse_instant, plain_to_arrow, reader_of
from foundation.errors import InvalidInput
from foundation.schema import INSTANT, Column, ColumnType
from foundation.shown import MIXED

__all__ = ["Cells", "Faults", "instants_to_arrow", "read_cells"]

Faults = list[tuple[np.ndarray, str]]
"""(bool mask over the rows, reason) pairs."""
_INT_EDGE = float(1 << 63)
"""The first float beyond 64-bit integers."""


class Cells(NamedTuple):
    """A column as stored, and the rows that could not be read (whose cells mean nothing)."""

    cells: pa.Array
    faults: Faults


def read_cells(column: Column, cells: pa.Array, *, text: bool, zone: str | None) -> Cells:
    """Read an Arrow array as a feature column.

    Args:
        column: name and type wanted.
        cells: the source's column in one piece.
        text: every value of the source is text to be parsed.
        zone: IANA zone of naive timestamps, None to refuse them.

    Raises:
        InvalidInput: no value of that Arrow type can ever be of the wanted type, or timestamps without a zone.
    """
    kind = cells.type
    if pa.types.is_dictionary(kind):
        return read_cells(column, cells.dictionary_decode(), text=text, zone=zone)
    if pa.types.is_null(kind):
        return Cells(pa.nulls(len(cells), column.type.arrow), [])
    if kind == MIXED:
        return _each(column, (None if cell is None else json.loads(cell) for cell in cells.storage.to_pylist()), zone)
    if text and _is_text(kind):
        return _TEXT[column.type.kind](column, cells, zone)
    reader = _TYPED[column.type.kind]
    found = reader(column, cells, zone)
    if found is None:
        raise InvalidInput(
            f"column {column.name!r} is {kind} in the source but {column.type.name} in the group",
            subject=f"column {column.name!r}",
            hint=f"cast it to {column.type.arrow} in the source",
        )
    return found


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _valid(cells: pa.Array) -> np.ndarray:
    if not cells.null_count:
        return np.ones(len(cells), np.bool_)
    found: np.ndarray = cells.is_valid().to_numpy(zero_copy_only=False)
    return found


def _made(values: np.ndarray, missing: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind, mask=missing if missing.any() else None)


def _marked(mask: np.ndarray, reason: str) -> Faults:
    return [(mask, reason)] if mask.any() else []


# -- numbers --------------------------------------------------------------------------------------------------------

_NOT_WHOLE = "not a whole number of 64 bits"
_NOT_NUMBER = "not a number"
_INFINITE = "infinite"
_TOO_LARGE = "too large for 32-bit floats"


def _integral(column: Column, cells: pa.Array, zone: str | None) -> Cells | None:
    del column, zone
    kind = cells.type
    if kind == pa.int64():
        return Cells(cells, [])
    if kind == pa.uint64():
        numbers = cells.fill_null(0).to_numpy(zero_copy_only=False)
        return Cells(cells.cast(pa.int64(), safe=False), _marked(numbers >= 1 << 63, _NOT_WHOLE))
    if pa.types.is_integer(kind):
        return Cells(cells.cast(pa.int64()), [])
    if pa.types.is_floating(kind):
        return _whole_floats(cells)
    if pa.types.is_decimal(kind):
        return _each(Column("", ColumnType("Integral", pa.int64())), cells.to_pylist(), None)
    return None


def _whole_floats(cells: pa.Array) -> Cells:
    floats = cells.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False)
    missing = ~_valid(cells) | np.isnan(floats)
    bad = ~missing & ~((np.floor(floats) == floats) & (floats >= -_INT_EDGE) & (floats < _INT_EDGE))
    return Cells(
        _made(np.where(missing | bad, 0, floats).astype(np.int64), missing, pa.int64()), _marked(bad, _NOT_WHOLE)
    )


def _fractional(column: Column, cells: pa.Array, zone: str | None) -> Cells | None:
    del zone
    kind = cells.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return None
    return _finite(cells if kind == pa.float64() or kind == column.type.arrow else _floats(cells), column.type.arrow)


def _floats(cells: pa.Array) -> pa.Array:
    """The nearest float of each number; Arrow's own cast of decimals is off by a bit now and then."""
    if pa.types.is_decimal(cells.type):
        return cells.cast(pa.string()).cast(pa.float64())
    return cells.cast(pa.float64(), safe=False)


def _finite(cells: pa.Array, kind: pa.DataType) -> Cells:
    """NaN becomes null; infinities, and what overflows the stored width, are refused."""
    values = cells.to_numpy(zero_copy_only=False)  # nulls read as NaN
    if cells.type == kind and not cells.null_count and np.isfinite(values).all():
        return Cells(cells, [])
    missing = np.isnan(values)
    infinite = np.isinf(values)
    faults = _marked(infinite, _INFINITE)
    if kind != cells.type:
        with np.errstate(over="ignore"):
            values = values.astype(kind.to_pandas_dtype())
        faults += _marked(np.isinf(values) & ~infinite, _TOO_LARGE)
    return Cells(_made(values, missing, kind), faults)


def _text_integral(column: Column, cells: pa.Array, zone: str | None) -> Cells:
    """Decimal digits with a sign, also written as whole floats (``3.0``), as frames with nulls do."""
    del column, zone
    given = pl.Series(cells)
    found = given.cast(pl.Int64, strict=False)
    unread = (given.is_not_null() & found.is_null()).to_numpy()
    if not unread.any():
        return Cells(_plain(found), [])
    rest = given.filter(pl.Series(unread)).str.strip_chars()
    whole = rest.str.replace(r"^([+-]?[0-9]+)\.0*$", "${1}").cast(pl.Int64, strict=False)
    missing = rest.str.contains(r"^(?i)[+-]?nan$")
    places = np.flatnonzero(unread)
    bad = np.zeros(len(cells), np.bool_)
    bad[places] = (whole.is_null() & ~missing).to_numpy()
    return Cells(_plain(found.scatter(places, whole)), _marked(bad, _NOT_WHOLE))


def _text_fractional(column: Column, cells: pa.Array, zone: str | None) -> Cells:
    del zone
    given = pl.Series(cells)
    found = given.cast(pl.Float64, strict=False)
    unread = given.is_not_null() & found.is_null()
    if unread.any():
        found = given.str.strip_chars().cast(pl.Float64, strict=False)
        unread = given.is_not_null() & found.is_null()
    read = _finite(_plain(found), column.type.arrow)
    return Cells(read.cells, [*_marked(unread.to_numpy(), _NOT_NUMBER), *read.faults])


def _plain(series: pl.Series) -> pa.Array:
    """A fixed-width polars series as one Arrow array."""
    return series.rechunk().to_arrow()


# -- text, booleans, moments ----------------------------------------------------------------------------------------

_NOT_UNICODE = "not valid UTF-8"
_TOO_LONG = f"over {MAX_TEXT} bytes of text"
_NOT_BOOLEAN = "not true, false, 1 or 0"
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


def _string(column: Column, cells: pa.Array, zone: str | None) -> Cells | None:
    del column, zone
    if not _is_text(cells.type):
        return None
    cells = cells if pa.types.is_string(cells.type) else cells.cast(pa.string())
    try:
        cells.validate(full=True)
    except pa.ArrowInvalid:
        return _mend(cells)
    if (data := cells.buffers()[2]) is None or data.size <= MAX_TEXT:
        return Cells(cells, [])
    long = pc.greater(pc.binary_length(cells), MAX_TEXT).fill_null(False)
    return Cells(cells, _marked(long.to_numpy(zero_copy_only=False), _TOO_LONG))


def _mend(cells: pa.Array) -> Cells:
    """Text with invalid bytes in it (a reader did not check): those rows are refused."""
    bad = np.zeros(len(cells), np.bool_)
    for place, raw in enumerate(cells.cast(pa.binary()).to_pylist()):
        try:
            bad[place] = raw is not None and raw.decode() is None
        except UnicodeDecodeError:
            bad[place] = True
    read = _string(Column("", ColumnType("String", pa.string())), pc.if_else(pa.array(bad), None, cells), None)
    assert read is not None
    return Cells(read.cells, [(bad, _NOT_UNICODE), *read.faults])


def _text_string(column: Column, cells: pa.Array, zone: str | None) -> Cells:
    read = _string(column, cells, zone)
    assert read is not None
    return read


def _boolean(column: Column, cells: pa.Array, zone: str | None) -> Cells | None:
    del column, zone
    return Cells(cells, []) if pa.types.is_boolean(cells.type) else None


def _text_boolean(column: Column, cells: pa.Array, zone: str | None) -> Cells:
    del column, zone
    words = pc.utf8_lower(pc.utf8_trim_whitespace(cells.cast(pa.string())))
    places = pc.index_in(words, pa.array(list(_BOOLEANS)))
    bad = _valid(cells) & ~_valid(places)
    return Cells(pa.array(list(_BOOLEANS.values())).take(places), _marked(bad, _NOT_BOOLEAN))


def _timestamp(column: Column, cells: pa.Array, zone: str | None, *, numbers: bool = False) -> Cells | None:
    kind = cells.type
    if not (
        _is_text(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_date(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    ):
        return None
    if zone is None and (pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.tz is None)):
        raise InvalidInput(
            f"column {column.name!r} holds timestamps without a time zone",
            subject=f"column {column.name!r}",
            hint='give zone="UTC" (or another IANA name), give the group a zone, or make the column zone-aware',
        )
    read = read_instants(cells, zone=zone, numbers=numbers)
    return Cells(instants_to_arrow(read), read.faults)


def instants_to_arrow(read: Instants) -> pa.Array:
    """Instants as they are stored; null where not valid."""
    return _made(read.micros, ~read.valid, pa.int64()).cast(INSTANT)


def _text_timestamp(column: Column, cells: pa.Array, zone: str | None) -> Cells:
    read = _timestamp(column, cells, zone, numbers=True)
    assert read is not None
    return read


def _date(column: Column, cells: pa.Array, zone: str | None) -> Cells | None:
    if pa.types.is_date(cells.type):
        return Cells(cells.cast(pa.date32()), [])
    if not _is_text(cells.type):
        return None
    try:
        return Cells(cells.cast(pa.string()).cast(pa.date32()), [])
    except pa.ArrowInvalid:
        return _distinct(column, cells, zone)


def _text_date(column: Column, cells: pa.Array, zone: str | None) -> Cells:
    read = _date(column, cells, zone)
    assert read is not None
    return read


def _decimal(column: Column, cells: pa.Array, zone: str | None) -> Cells | None:
    """Exact values only: what would be rounded or does not fit is refused; floats have no exact decimal meaning."""
    kind = cells.type
    if not (pa.types.is_decimal(kind) or pa.types.is_integer(kind) or _is_text(kind)):
        return None
    try:
        return Cells((cells.cast(pa.string()) if _is_text(kind) else cells).cast(column.type.arrow), [])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return _distinct(column, cells, zone)


def _text_decimal(column: Column, cells: pa.Array, zone: str | None) -> Cells:
    read = _decimal(column, cells, zone)
    assert read is not None
    return read


# -- collections ----------------------------------------------------------------------------------------------------


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _lengths(cells: pa.Array) -> np.ndarray:
    found: np.ndarray = pc.list_value_length(cells).fill_null(0).to_numpy(zero_copy_only=False)
    return found


def _of_elements(faults: Faults, lengths: np.ndarray) -> Faults:
    """Faults of elements as faults of the rows that hold them."""
    rows = np.repeat(np.arange(len(lengths)), lengths)
    marked = []
    for mask, reason in faults:
        bad = np.zeros(len(lengths), np.bool_)
        bad[rows[mask]] = True
        marked.append((bad, f"an element is {reason}"))
    return marked


def _assembled(kind: ColumnType, cells: pa.Array, lengths: np.ndarray, elements: pa.Array) -> pa.Array:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    mask = pa.array(~_valid(cells)) if cells.null_count else None
    made = pa.ListArray.from_arrays(pa.array(offsets), elements, mask=mask)
    return made.cast(kind.arrow)


def _list(column: Column, cells: pa.Array, zone: str | None) -> Cells | None:
    if not _is_list(cells.type):
        return None
    element = ColumnType.from_arrow(column.type.arrow.value_type)
    lengths = _lengths(cells)
    read = read_cells(Column(column.name, element), cells.flatten(), text=False, zone=zone)
    made = _assembled(column.type, cells, lengths, read.cells)
    if column.type.kind == "Set" and element.kind not in ("List", "Struct") and len(read.cells):
        made = pl.Series(made).list.unique(maintain_order=True).to_arrow().cast(column.type.arrow)
    return Cells(made, _of_elements(read.faults, lengths))


def _vector(column: Column, cells: pa.Array, zone: str | None) -> Cells | None:
    if not _is_list(cells.type):
        return None
    lengths = _lengths(cells)
    element = Column(column.name, ColumnType("Fractional32", pa.float32()))
    flat = cells.flatten()
    read = read_cells(element, flat, text=False, zone=zone)
    wrong = _valid(cells) & (lengths != column.type.dimension)
    faults = _marked(wrong, f"not {column.type.dimension} numbers long")
    faults += _of_elements([*read.faults, *_marked(~_valid(read.cells), "null or NaN")], lengths)
    return Cells(_assembled(column.type, cells, lengths, read.cells), faults)


def _struct(column: Column, cells: pa.Array, zone: str | None) -> Cells | None:
    if not pa.types.is_struct(cells.type):
        return None
    wanted = {inner.name: inner.type for inner in column.type.arrow}
    parts = dict(zip([inner.name for inner in cells.type], cells.flatten(), strict=False))
    if unknown := next((name for name in parts if name not in wanted), None):
        raise InvalidInput(
            f"column {column.name!r} has a field {unknown!r} that {column.type.name} has not",
            subject=f"column {column.name!r}",
            hint=f"fields: {', '.join(wanted)}",
        )
    made: list[pa.Array] = []
    faults: Faults = []
    for name, kind in wanted.items():
        inner = Column(f"{column.name}.{name}", ColumnType.from_arrow(kind))
        read = read_cells(inner, parts.get(name, pa.nulls(len(cells))), text=False, zone=zone)
        made.append(read.cells)
        faults += [(mask, f"field {name!r} is {reason}") for mask, reason in read.faults]
    mask = pa.array(~_valid(cells)) if cells.null_count else None
    return Cells(pa.StructArray.from_arrays(made, fields=list(column.type.arrow), mask=mask), faults)


# -- value by value -------------------------------------------------------------------------------------------------


class _Unreadable:
    """Stands for text that is not JSON."""


def _text_nested(column: Column, cells: pa.Array, zone: str | None) -> Cells:
    """Lists, sets, vectors and structs in text are JSON."""
    return _each(column, map(_loaded, cells.to_pylist()), zone)


def _loaded(text: str | None) -> object:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return _Unreadable()


def _distinct(column: Column, cells: pa.Array, zone: str | None) -> Cells:
    """Value by value, but each distinct value once."""
    coded = cells.dictionary_encode()
    words = coded.dictionary.to_pylist()
    read = _each(column, [word.strip() if isinstance(word, str) else word for word in words], zone)
    indices = coded.indices
    places = indices.fill_null(0).to_numpy(zero_copy_only=False)
    faults = [(mask[places] & _valid(cells), reason) for mask, reason in read.faults] if len(words) else []
    return Cells(read.cells.take(indices), faults)


def _each(column: Column, values: Iterable[Any], zone: str | None) -> Cells:
    """The rules of a single record, for sources that mix kinds of values in one column."""
    rule = _rule(column, zone)
    cells: list[Any] = []
    bad: list[bool] = []
    for value in values:
        try:
            cells.append(None if value is None else rule(value))
            bad.append(False)
        except InvalidInput:
            cells.append(None)
            bad.append(True)
    return Cells(plain_to_arrow(column.type, cells), _marked(np.array(bad, np.bool_), f"not {column.type.name}"))


def _rule(column: Column, zone: str | None) -> Callable[[Any], object]:
    if column.type.kind == "Timestamp":
        return lambda value: parse_instant(value, column.name, zone=zone)
    rule = reader_of(column)
    if column.type.kind != "Integral":
        return rule

    def whole(value: Any) -> object:  # noqa: ANN401 - numbers of several kinds
        if isinstance(value, float) and value != value:
            return None
        if isinstance(value, float | Decimal) and -_INT_EDGE <= value <= _INT_EDGE and value == int(value):
            value = int(value)
        return rule(value)

    return whole


_TYPED: dict[str, Callable[[Column, pa.Array, str | None], Cells | None]] = {
    "Integral": _integral,
    "Fractional": _fractional,
    "Fractional32": _fractional,
    "String": _string,
    "Boolean": _boolean,
    "Timestamp": _timestamp,
    "Date": _date,
    "Decimal": _decimal,
    "List": _list,
    "Set": _list,
    "Vector": _vector,
    "Struct": _struct,
}
_TEXT: dict[str, Callable[[Column, pa.Array, str | None], Cells]] = {
    "Integral": _text_integral,
    "Fractional": _text_fractional,
    "Fractional32": _text_fractional,
    "String": _text_string,
    "Boolean": _text_boolean,
    "Timestamp": _text_timestamp,
    "Date": _text_date,
    "Decimal": _text_decimal,
    "List": _text_nested,
    "Set": _text_nested,
    "Vector": _text_nested,
    "Struct": _text_nested,
}
