"""Schema, Column, ColumnType: the one table of types.

Everything stored is one of these, cast explicitly before writing. AWS's three words come first (Integral, Fractional,
String; List, Set, Vector); the rest are what Arrow adds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from foundation.errors import InvalidInput

__all__ = ["INSTANT", "Column", "ColumnType", "Schema"]

INSTANT = pa.timestamp("us", tz="UTC")
"""How every moment is stored: microseconds, UTC."""

TYPE_KEY = b"tilth.type"
"""Arrow field metadata naming a type Arrow cannot tell apart, e.g. ``{b"tilth.type": b"Set<String>"}``."""

_SIMPLE: dict[str, pa.DataType] = {
    "Integral": pa.int64(),
    "Fractional": pa.float64(),
    "String": pa.string(),
    "Boolean": pa.bool_(),
    "Timestamp": INSTANT,
    "Date": pa.date32(),
}
_MAX_VECTOR = 8192
_FIELD = re.compile(r"[^\s<>(),:](?:[^<>(),:]*[^\s<>(),:])?")


@dataclass(frozen=True)
class ColumnType:
    """One type: its field-standard name and how it is stored.

    Attributes:
        name: text form, e.g. ``Integral``, ``Decimal(10, 2)``, ``List<String>``, ``Set<Integral>``, ``Vector(8)``,
            ``Struct<a: Integral, b: String>``. ``parse(name)`` gives the type back.
        arrow: the Arrow type it is stored as (a Vector is ``list<float32>`` with its length checked).
    """

    name: str
    arrow: pa.DataType

    @property
    def kind(self) -> str:
        """The word before any parameters: ``Vector`` for ``Vector(8)``."""
        return re.split(r"[(<]", self.name, maxsplit=1)[0]

    @property
    def dimension(self) -> int | None:
        """Length of a Vector, else None."""
        return int(self.name[7:-1]) if self.kind == "Vector" else None

    @classmethod
    def parse(cls, text: str) -> ColumnType:
        """Read the text form.

        Raises:
            InvalidInput: the text names no known type; the hint lists them.
        """
        return _parse(text.strip(), text)

    @classmethod
    def from_arrow(cls, arrow: pa.DataType) -> ColumnType:
        """Map any Arrow type onto the closed set: narrow ints widen to Integral, floats to Fractional.

        A timestamp of any unit and zone becomes Timestamp; whether naive *values* are accepted is decided where
        they arrive.

        Raises:
            InvalidInput: Arrow types with no counterpart (binary, time, duration, map, union, null, uint64).
        """
        return _from_arrow(arrow)


@dataclass(frozen=True)
class Column:
    """A named, typed column."""

    name: str
    type: ColumnType

    @property
    def field(self) -> pa.Field:
        """The Arrow field it is stored as; always nullable, tagged when Arrow alone cannot tell the type."""
        metadata = {TYPE_KEY: self.type.name.encode()} if self.type.kind in ("Set", "Vector") else None
        return pa.field(self.name, self.type.arrow, metadata=metadata)


@dataclass(frozen=True)
class Schema:
    """Ordered columns with distinct names."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for column in self.columns:
            if column.name in seen:
                raise InvalidInput(
                    f"column {column.name!r} is given twice",
                    subject=f"column {column.name!r}",
                    hint="give every column a name of its own",
                )
            seen.add(column.name)

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        return {column.name: column for column in self.columns}

    @property
    def names(self) -> list[str]:
        """Column names in order."""
        return [column.name for column in self.columns]

    def get(self, name: str) -> Column | None:
        """The column of that name, or None."""
        return self._by_name.get(name)

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema it is stored as."""
        return pa.schema([column.field for column in self.columns])

    @classmethod
    def from_arrow(cls, schema: pa.Schema) -> Schema:
        """Read a schema declared in or inferred from Arrow.

        Raises:
            InvalidInput: a column name given twice or a type with no counterpart, naming the column.
        """
        return cls(tuple(_column_from_arrow(field) for field in schema))

    @classmethod
    def of(cls, columns: Sequence[tuple[str, str]]) -> Schema:
        """Build from (name, type text) pairs."""
        return cls(tuple(Column(name, ColumnType.parse(text)) for name, text in columns))


def _column_from_arrow(field: pa.Field) -> Column:
    declared = (field.metadata or {}).get(TYPE_KEY)
    try:
        kind = ColumnType.parse(declared.decode()) if declared else _from_arrow(field.type)
    except InvalidInput as error:
        raise InvalidInput(
            f"column {field.name!r}: {error.message}", subject=f"column {field.name!r}", hint=error.hint
        ) from None
    return Column(field.name, kind)


def _unknown(text: str) -> InvalidInput:
    return InvalidInput(
        f"{text!r} is not a feature type",
        hint="use Integral, Fractional, String, Boolean, Timestamp, Date, Decimal(p, s), List<T>, Set<T>, "
        "Vector(n) or Struct<name: T, ...>",
    )


def _parse(text: str, whole: str) -> ColumnType:
    if text in _SIMPLE:
        return ColumnType(text, _SIMPLE[text])
    if text == "Fractional32":
        return ColumnType(text, pa.float32())
    if match := re.fullmatch(r"Decimal\(\s*(\d+)\s*,\s*(\d+)\s*\)", text):
        return _decimal(int(match[1]), int(match[2]))
    if match := re.fullmatch(r"Vector\(\s*(\d+)\s*\)", text):
        return _vector(int(match[1]))
    if match := re.fullmatch(r"(List|Set)<(.+)>", text, re.DOTALL):
        return _collection(match[1], _parse(match[2].strip(), whole))
    if match := re.fullmatch(r"Struct<(.+)>", text, re.DOTALL):
        parts = [part.partition(":") for part in _split(match[1])]
        if all(middle for _, middle, _ in parts):
            return _struct([(name.strip(), _parse(inner.strip(), whole)) for name, _, inner in parts])
    raise _unknown(whole)


def _split(text: str) -> list[str]:
    """Split on commas outside brackets."""
    parts, depth, start = [], 0, 0
    for place, char in enumerate(text):
        depth += (char in "<(") - (char in ">)")
        if char == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def _decimal(precision: int, scale: int) -> ColumnType:
    if not (1 <= precision <= 38 and 0 <= scale <= precision):
        raise InvalidInput(
            f"Decimal({precision}, {scale}) is out of range", hint="precision is 1 to 38, scale 0 to precision"
        )
    return ColumnType(f"Decimal({precision}, {scale})", pa.decimal128(precision, scale))


def _vector(dimension: int) -> ColumnType:
    if not 1 <= dimension <= _MAX_VECTOR:
        raise InvalidInput(f"Vector({dimension}) is out of range", hint=f"a dimension is 1 to {_MAX_VECTOR}")
    return ColumnType(f"Vector({dimension})", pa.list_(pa.float32()))


def _collection(kind: str, element: ColumnType) -> ColumnType:
    return ColumnType(f"{kind}<{element.name}>", pa.list_(element.arrow))


def _struct(fields: Sequence[tuple[str, ColumnType]]) -> ColumnType:
    names = [name for name, _ in fields]
    if not names or len(set(names)) != len(names) or not all(_FIELD.fullmatch(name) for name in names):
        raise InvalidInput(
            f"Struct fields {names} cannot be told apart",
            hint="give at least one field, each a name of its own without spaces around it and without < > ( ) , :",
        )
    text = ", ".join(f"{name}: {inner.name}" for name, inner in fields)
    return ColumnType(f"Struct<{text}>", pa.struct([(name, inner.arrow) for name, inner in fields]))


_ARROW_KINDS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType], ColumnType]], ...] = (
    (pa.types.is_dictionary, lambda arrow: _from_arrow(arrow.value_type)),
    (lambda arrow: pa.types.is_integer(arrow) and arrow != pa.uint64(), lambda _: _named("Integral")),
    (pa.types.is_float64, lambda _: _named("Fractional")),
    (pa.types.is_floating, lambda _: _named("Fractional32")),
    (pa.types.is_string, lambda _: _named("String")),
    (pa.types.is_large_string, lambda _: _named("String")),
    (pa.types.is_string_view, lambda _: _named("String")),
    (pa.types.is_boolean, lambda _: _named("Boolean")),
    (pa.types.is_timestamp, lambda _: _named("Timestamp")),
    (pa.types.is_date, lambda _: _named("Date")),
    (
        lambda arrow: pa.types.is_decimal(arrow) and arrow.precision <= 38,
        lambda arrow: _decimal(arrow.precision, arrow.scale),
    ),
    (
        lambda arrow: pa.types.is_fixed_size_list(arrow) and pa.types.is_floating(arrow.value_type),
        lambda arrow: _vector(arrow.list_size),
    ),
    (
        lambda arrow: pa.types.is_list(arrow) or pa.types.is_large_list(arrow) or pa.types.is_fixed_size_list(arrow),
        lambda arrow: _collection("List", _from_arrow(arrow.value_type)),
    ),
    (pa.types.is_struct, lambda arrow: _struct([(inner.name, _from_arrow(inner.type)) for inner in arrow])),
)


def _named(name: str) -> ColumnType:
    return ColumnType(name, pa.float32() if name == "Fractional32" else _SIMPLE[name])


def _from_arrow(arrow: pa.DataType) -> ColumnType:
    for fits, build in _ARROW_KINDS:
        if fits(arrow):
            return build(arrow)
    raise InvalidInput(
        f"Arrow type {arrow} has no feature type",
        hint="cast it to an integer, float, string, boolean, timestamp, date, decimal, list or struct first",
    )
