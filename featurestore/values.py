"""Values of one group in their three forms, and the way between them.

*Given*: what a caller hands over (Python objects). *Plain*: what the log and the online stores keep: int, float, str,
bool, None, lists and dicts of those (a Timestamp is int64 microseconds UTC, a Date days since 1970-01-01, a Decimal its
exact text). *Arrow*: the offline columns. ``ValueCodec`` is compiled once per group version.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Context, Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pyarrow as pa

from featurestore.groups import FeatureGroup
from featurestore.keys import decode_key, encode_key, integral_key
from foundation.clock import EPOCH, instant_of, moment_of
from foundation.errors import InvalidInput
from foundation.schema import Column, ColumnType

__all__ = [
    "MAX_TEXT",
    "MAX_YEAR_INSTANT",
    "MIN_YEAR_INSTANT",
    "ValueCodec",
    "parse_instant",
    "plain_to_arrow",
    "reader_of",
]

MAX_TEXT = 350 * 1024
"""Longest String value in UTF-8 bytes (AWS's record limit)."""
MIN_YEAR_INSTANT = instant_of(datetime(1, 1, 1, tzinfo=EPOCH.tzinfo))
MAX_YEAR_INSTANT = instant_of(datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=EPOCH.tzinfo))
_INT_LIMIT = 1 << 63
_EXACT = Context(prec=100)
"""Python's own context rounds to 28 digits; a Decimal column has up to 38."""
_EPOCH_DAY = date(1970, 1, 1).toordinal()

Convert = Callable[[Any], Any]


class ValueCodec:
    """Conversions for one version of one group."""

    def __init__(self, group: FeatureGroup) -> None:
        self.group = group
        self._columns = tuple(group.schema)
        self._names = group.names
        self._known = frozenset(self._names)
        self._plain = [_to_plain(column) for column in self._columns]
        self._time_place = self._names.index(group.event_time)
        self._key_places = tuple(self._names.index(name) for name in group.record_id)
        given = [_from_plain(column.type) for column in self._columns]
        self._given = [(place, convert) for place, convert in enumerate(given) if convert is not None]
        self._width = len(self._names)
        self._integral = [column.type.kind for column in group.key_columns] == ["Integral"]

    # -- given -> plain ---------------------------------------------------------------------------------------------

    def row(self, record: Mapping[str, object], *, latest: int) -> tuple[bytes, int, list[object]]:
        """Check one record and give (canonical key, event time, plain values in column order).

        Features the record leaves out are null; NaN becomes null.

        Args:
            record: feature name to value.
            latest: greatest event time accepted (microseconds UTC).

        Raises:
            InvalidInput: naming the feature, the value and the fix.
        """
        if not isinstance(record, Mapping):
            raise InvalidInput(
                f"a record is a mapping of feature to value, got {type(record).__name__}", subject="record"
            )
        if not self._known.issuperset(record):
            self._refuse_unknown(record)
        values: list[object] = [
            None if (value := record.get(name)) is None else convert(value)
            for name, convert in zip(self._names, self._plain, strict=True)
        ]
        event = self.instant(record.get(self.group.event_time), latest=latest)
        values[self._time_place] = event
        return self.key([record.get(name) for name in self.group.record_id]), event, values

    def key(self, key: object) -> bytes:
        """Canonical bytes of a key: a scalar for one identifier column, a tuple or list for several.

        Raises:
            InvalidInput: wrong number of parts, null, or a type that does not match its column.
        """
        if type(key) is int and self._integral and -_INT_LIMIT <= key < _INT_LIMIT:
            return integral_key(key)
        parts = tuple(key) if isinstance(key, tuple | list) else (key,)
        return encode_key(self.group.key_columns, parts)

    def tombstone(self, key: object, event: int) -> list[object]:
        """Plain values of a delete: identifiers and event time, everything else null."""
        parts = tuple(key) if isinstance(key, tuple | list) else (key,)
        values: list[object] = [None] * self._width
        for place, part in zip(self._key_places, parts, strict=True):
            values[place] = self._plain[place](part)
        values[self._time_place] = event
        return values

    def instant(self, value: object, *, latest: int) -> int:
        """Read an event time: aware datetime, ISO 8601 text with a zone, or epoch seconds.

        Raises:
            InvalidInput: missing, unparsable, naive without a group zone, outside years 1 to 9999, or after ``latest``.
        """
        name = self.group.event_time
        if value is None:
            raise InvalidInput(
                f"event time {name!r} is missing", subject=f"column {name!r}", hint="give every record its event time"
            )
        instant = parse_instant(value, name, zone=self.group.zone)
        if instant > latest:
            raise InvalidInput(
                f"event time {name!r} = {value!r} lies too far in the future",
                subject=f"column {name!r}",
                hint=f"the latest accepted now is {_shown(latest)}; raise the setting future_bound if that is meant",
            )
        return instant

    def _refuse_unknown(self, record: Mapping[str, object]) -> None:
        unknown = next(name for name in record if name not in self._known)
        near = get_close_matches(str(unknown), self._names, n=1)
        raise InvalidInput(
            f"feature {unknown!r} is not in group {self.group.name!r}",
            subject=f"column {unknown!r}",
            hint=f"did you mean {near[0]!r}?" if near else f"features: {', '.join(self._names)}",
        )

    # -- plain -> given ---------------------------------------------------------------------------------------------

    def record(self, values: list[Any]) -> dict[str, Any]:
        """Plain values, written under this or an earlier schema version, as feature to value."""
        if len(values) < self._width:
            values = values + [None] * (self._width - len(values))
        for place, convert in self._given:
            if values[place] is not None:
                values[place] = convert(values[place])
        return dict(zip(self._names, values))  # noqa: B905 - the widths were just made equal

    def shown_key(self, key: bytes) -> Any:  # noqa: ANN401
        """A canonical key as callers give it: a scalar, or a tuple for composite identifiers."""
        parts = decode_key(key)
        shown = tuple(
            part if (convert := _from_plain(column.type)) is None else convert(part)
            for part, column in zip(parts, self.group.key_columns, strict=True)
        )
        return shown[0] if len(shown) == 1 else shown

    def places(self, features: Sequence[str]) -> list[int]:
        """Column places of named features.

        Raises:
            InvalidInput: a name that is not in the group, or given twice.
        """
        if isinstance(features, str):
            features = [features]
        if not self._known.issuperset(features):
            self._refuse_unknown(dict.fromkeys(features))
        if len(set(features)) != len(features):
            raise InvalidInput(f"a feature is asked for twice: {list(features)}", subject="features")
        return [self._names.index(name) for name in features]

    # -- plain <-> Arrow --------------------------------------------------------------------------------------------

    def to_arrow(self, rows: Sequence[Sequence[Any]]) -> list[pa.Array]:
        """Columns of the group's stored schema from plain rows (any schema version)."""
        width = self._width
        padded = [row if len(row) == width else [*row, *[None] * (width - len(row))] for row in rows]
        columns = zip(*padded, strict=True) if padded else ((),) * width
        return [plain_to_arrow(column.type, list(cells)) for column, cells in zip(self._columns, columns, strict=True)]

    def plain_columns(self, table: pa.Table) -> list[list[Any]]:
        """Plain values, column by column, of an offline table holding the group's columns."""
        return [_plain_cells(column.type, table.column(column.name)) for column in self._columns]


def parse_instant(value: object, name: str, *, zone: str | None) -> int:
    """Read one moment as microseconds UTC: aware datetime, ISO 8601 text, or epoch seconds (rounded to microseconds).

    Args:
        value: the moment.
        name: column it stands in, for the error.
        zone: IANA zone for naive values, None to refuse them.

    Raises:
        InvalidInput: unparsable, naive without a zone, or outside years 1 to 9999.
    """
    moment: object = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            moment = None
    if isinstance(moment, datetime):
        if moment.tzinfo is None:
            if zone is None:
                raise InvalidInput(
                    f"{name!r} = {value!r} has no time zone",
                    subject=f"column {name!r}",
                    hint="add one (…Z, +00:00, tzinfo=UTC) or give the group a zone",
                )
            moment = moment.replace(tzinfo=ZoneInfo(zone))
        instant: int | None = instant_of(moment)
    else:
        instant = _epoch_seconds(moment)
    if instant is None or not MIN_YEAR_INSTANT <= instant <= MAX_YEAR_INSTANT:
        raise InvalidInput(
            f"{name!r} = {value!r} is not a moment",
            subject=f"column {name!r}",
            hint="use an aware datetime, ISO 8601 text such as 2026-01-31T12:00:00Z, or epoch seconds; years 1 to 9999",
        )
    return instant


def reader_of(column: Column) -> Convert:
    """The rule one value of a column is read by: given to plain, or InvalidInput."""
    return _to_plain(column)


def plain_to_arrow(kind: ColumnType, cells: list[Any]) -> pa.Array:
    """One column of plain values as it is stored."""
    return pa.array(_for_arrow(kind, cells), kind.arrow)


def _epoch_seconds(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | np.integer) and not isinstance(value, np.timedelta64):
        return int(value) * 1_000_000
    if isinstance(value, float | np.floating) and math.isfinite(value):
        return round(float(value) * 1_000_000)
    if isinstance(value, Decimal) and value.is_finite():
        return round(value * 1_000_000)
    return None


def _shown(instant: int) -> str:
    return moment_of(min(max(instant, MIN_YEAR_INSTANT), MAX_YEAR_INSTANT)).isoformat()


def _refuse(name: str, kind: ColumnType, value: object, hint: str = "") -> InvalidInput:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}…"
    return InvalidInput(
        f"feature {name!r} is {kind.name}, got {shown} ({type(value).__name__})",
        subject=f"column {name!r}",
        hint=hint or f"give a {kind.name} value or null",
    )


def _to_plain(column: Column) -> Convert:
    return _PLAIN[column.type.kind](column.name, column.type)


def _integral(name: str, kind: ColumnType) -> Convert:
    def convert(value: object) -> int:
        if type(value) is int or (isinstance(value, np.integer) and not isinstance(value, np.timedelta64)):
            if -_INT_LIMIT <= value < _INT_LIMIT:
                return int(value)
            raise _refuse(name, kind, value, "integers are 64 bit")
        raise _refuse(name, kind, value)

    return convert


def _fractional(name: str, kind: ColumnType) -> Convert:
    narrow = kind.name == "Fractional32"

    def convert(value: object) -> float | None:
        if isinstance(value, bool | np.timedelta64) or not isinstance(value, int | float | np.integer | np.floating):
            raise _refuse(name, kind, value)
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if narrow and math.isfinite(number):
            with np.errstate(over="ignore"):
                number = float(np.float32(number))
        if number != number:
            return None
        if math.isinf(number):
            raise _refuse(name, kind, value, "infinities cannot be stored; clip the value or leave it null")
        return number

    return convert


def _string(name: str, kind: ColumnType) -> Convert:
    def convert(value: object) -> str:
        if not isinstance(value, str):
            raise _refuse(name, kind, value)
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise _refuse(name, kind, value, "the text holds lone surrogates; it must be valid Unicode") from None
        if size > MAX_TEXT:
            raise InvalidInput(
                f"feature {name!r} has {size} bytes of text",
                subject=f"column {name!r}",
                hint=f"keep a value within {MAX_TEXT} bytes",
            )
        return str(value)

    return convert


def _boolean(name: str, kind: ColumnType) -> Convert:
    def convert(value: object) -> bool:
        if isinstance(value, bool | np.bool_):
            return bool(value)
        raise _refuse(name, kind, value)

    return convert


def _timestamp(name: str, kind: ColumnType) -> Convert:
    del kind

    def convert(value: object) -> int:
        return parse_instant(value, name, zone="UTC" if isinstance(value, int | float) else None)

    return convert


def _date(name: str, kind: ColumnType) -> Convert:
    def convert(value: object) -> int:
        if isinstance(value, date) and not isinstance(value, datetime):
            return value.toordinal() - _EPOCH_DAY
        if isinstance(value, str):
            try:
                return date.fromisoformat(value).toordinal() - _EPOCH_DAY
            except ValueError:
                pass
        raise _refuse(name, kind, value, "give a date or ISO text such as 2026-01-31")

    return convert


def _decimal(name: str, kind: ColumnType) -> Convert:
    scale = kind.arrow.scale
    bound = Decimal(10) ** (kind.arrow.precision - scale)
    step = Decimal(1).scaleb(-scale)

    def convert(value: object) -> str:
        if isinstance(value, Decimal | int | str) and not isinstance(value, bool):
            try:
                number = Decimal(value)
                if (
                    number.is_finite()
                    and -bound < number < bound
                    and number == (fixed := number.quantize(step, context=_EXACT))
                ):
                    return str(fixed if fixed else fixed.copy_abs())
            except InvalidOperation:
                pass
        raise _refuse(name, kind, value, f"give a Decimal that fits {kind.name} exactly")

    return convert


def _list(name: str, kind: ColumnType) -> Convert:
    element = ColumnType.from_arrow(kind.arrow.value_type)
    inner = _PLAIN[element.kind](name, element)
    unique = kind.kind == "Set"

    def convert(value: object) -> list[object]:
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = value.tolist()
        if isinstance(value, set | frozenset):
            value = sorted(value, key=repr)
        if not isinstance(value, list | tuple):
            raise _refuse(name, kind, value)
        cells = [None if cell is None else inner(cell) for cell in value]
        return list(dict.fromkeys(cells)) if unique else cells

    return convert


def _vector(name: str, kind: ColumnType) -> Convert:
    inner = _fractional(name, ColumnType("Fractional32", pa.float32()))

    def convert(value: object) -> list[object]:
        if isinstance(value, np.ndarray) and value.ndim == 1:
            value = value.tolist()
        if not isinstance(value, list | tuple) or len(value) != kind.dimension:
            raise _refuse(name, kind, value, f"give exactly {kind.dimension} numbers")
        cells = [None if cell is None else inner(cell) for cell in value]
        if None in cells:
            raise _refuse(name, kind, value, "a vector has no nulls or NaN")
        return cells

    return convert


def _struct(name: str, kind: ColumnType) -> Convert:
    inner = {
        field.name: _to_plain(Column(f"{name}.{field.name}", ColumnType.from_arrow(field.type))) for field in kind.arrow
    }

    def convert(value: object) -> dict[str, object]:
        if not isinstance(value, Mapping):
            raise _refuse(name, kind, value)
        for unknown in value.keys() - inner.keys():
            raise _refuse(name, kind, value, f"{unknown!r} is not a field")
        return {key: None if (cell := value.get(key)) is None else to(cell) for key, to in inner.items()}

    return convert


_PLAIN: dict[str, Callable[[str, ColumnType], Convert]] = {
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


def _day(days: int) -> date:
    return date.fromordinal(days + _EPOCH_DAY)


def _moment(instant: int) -> datetime:
    return EPOCH + timedelta(microseconds=instant)


def _from_plain(kind: ColumnType) -> Convert | None:
    """Plain to what callers get back; None where nothing changes."""
    match kind.kind:
        case "Timestamp":
            return _moment
        case "Date":
            return _day
        case "Decimal":
            return Decimal
        case "List" | "Set":
            inner = _from_plain(ColumnType.from_arrow(kind.arrow.value_type))
            return None if inner is None else lambda cells: [None if c is None else inner(c) for c in cells]
        case "Struct":
            fields = {field.name: _from_plain(ColumnType.from_arrow(field.type)) for field in kind.arrow}
            if not any(fields.values()):
                return None
            return lambda cells: {
                name: cell if cell is None or (to := fields.get(name)) is None else to(cell)
                for name, cell in cells.items()
            }
    return None


def _for_arrow(kind: ColumnType, cells: list[Any]) -> list[Any]:
    """Plain cells as ``pa.array`` takes them: only decimals, at any depth, differ."""
    if "Decimal" not in kind.name:
        return cells
    convert = _from_plain(kind)
    assert convert is not None
    return [None if cell is None else convert(cell) for cell in cells]


def _plain_cells(kind: ColumnType, column: pa.ChunkedArray) -> list[Any]:
    if kind.kind == "Timestamp":
        column = column.cast(pa.int64())
    elif kind.kind == "Date":
        column = column.cast(pa.int32())
    cells = pl.Series(column).to_list()
    if kind.kind in ("List", "Set", "Struct", "Decimal"):
        depth = _nested_plain(kind)
        return cells if depth is None else [None if cell is None else depth(cell) for cell in cells]
    return cells


def _nested_plain(kind: ColumnType) -> Convert | None:
    """Python objects polars gives for stored values, back to plain; None where nothing changes."""
    match kind.kind:
        case "Timestamp":
            return instant_of
        case "Date":
            return lambda day: day.toordinal() - _EPOCH_DAY
        case "Decimal":
            return str
        case "List" | "Set":
            inner = _nested_plain(ColumnType.from_arrow(kind.arrow.value_type))
            return None if inner is None else lambda cells: [None if c is None else inner(c) for c in cells]
        case "Struct":
            fields = {field.name: _nested_plain(ColumnType.from_arrow(field.type)) for field in kind.arrow}
            if not any(fields.values()):
                return None
            return lambda cells: {
                name: cell if cell is None or (to := fields.get(name)) is None else to(cell)
                for name, cell in cells.items()
            }
    return None
