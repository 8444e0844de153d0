"""The table of types: their text, their Arrow form, and the way between."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import InvalidInput
from foundation.schema import INSTANT, TYPE_KEY, Column, ColumnType, Schema

SIMPLE = ["Integral", "Fractional", "Fractional32", "String", "Boolean", "Timestamp", "Date"]


def _decimals() -> st.SearchStrategy[str]:
    pairs = st.integers(1, 38).flatmap(lambda p: st.tuples(st.just(p), st.integers(0, p)))
    return pairs.map(lambda pair: f"Decimal({pair[0]}, {pair[1]})")


NAMES = st.text("abcXYZ019_-.é ", min_size=1, max_size=5).filter(lambda name: name == name.strip())
LEAVES = st.one_of(st.sampled_from(SIMPLE), _decimals(), st.integers(1, 8192).map("Vector({})".format))
TYPES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["List", "Set"]), inner).map(lambda pair: f"{pair[0]}<{pair[1]}>"),
        st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(
            lambda fields: f"Struct<{', '.join(f'{name}: {kind}' for name, kind in fields.items())}>"
        ),
    ),
    max_leaves=6,
)


@given(TYPES)
def test_a_type_reads_back_from_its_text(text: str) -> None:
    kind = ColumnType.parse(text)
    assert kind.name == text
    assert ColumnType.parse(f"  {kind.name} ") == kind


@given(TYPES)
def test_a_column_reads_back_from_its_arrow_field(text: str) -> None:
    column = Column("c", ColumnType.parse(text))
    again = Schema.from_arrow(pa.schema([column.field])).get("c")
    assert again is not None
    assert again.type.arrow == column.type.arrow
    if column.type.kind in (*SIMPLE, "Decimal", "Vector"):
        assert again == column


@given(TYPES)
def test_a_set_or_vector_inside_arrow_keeps_its_outer_name(text: str) -> None:
    column = Column("c", ColumnType.parse(f"Set<{text}>"))
    assert column.field.metadata == {TYPE_KEY: column.type.name.encode()}
    assert Schema.from_arrow(pa.schema([column.field])).get("c") == column


ARROW = [
    (pa.int8(), "Integral"),
    (pa.uint32(), "Integral"),
    (pa.int64(), "Integral"),
    (pa.float64(), "Fractional"),
    (pa.float32(), "Fractional32"),
    (pa.float16(), "Fractional32"),
    (pa.string(), "String"),
    (pa.large_string(), "String"),
    (pa.string_view(), "String"),
    (pa.dictionary(pa.int8(), pa.string()), "String"),
    (pa.bool_(), "Boolean"),
    (pa.timestamp("ns"), "Timestamp"),
    (pa.timestamp("s", "America/New_York"), "Timestamp"),
    (pa.date32(), "Date"),
    (pa.date64(), "Date"),
    (pa.decimal128(10, 2), "Decimal(10, 2)"),
    (pa.decimal256(38, 0), "Decimal(38, 0)"),
    (pa.list_(pa.int16()), "List<Integral>"),
    (pa.large_list(pa.string()), "List<String>"),
    (pa.list_(pa.float32(), 3), "Vector(3)"),
    (pa.list_(pa.int64(), 3), "List<Integral>"),
    (pa.struct([("a", pa.int8()), ("b", pa.list_(pa.bool_()))]), "Struct<a: Integral, b: List<Boolean>>"),
]


@pytest.mark.parametrize(("arrow", "name"), ARROW, ids=lambda value: str(value))
def test_arrow_types_find_their_place(arrow: pa.DataType, name: str) -> None:
    kind = ColumnType.from_arrow(arrow)
    assert kind.name == name
    assert ColumnType.parse(kind.name) == kind


@pytest.mark.parametrize(
    "arrow",
    [
        pa.uint64(),
        pa.binary(),
        pa.null(),
        pa.time64("us"),
        pa.duration("s"),
        pa.map_(pa.string(), pa.int64()),
        pa.decimal256(40, 2),
        pa.decimal128(5, -2),
        pa.list_(pa.binary()),
        pa.struct([("a", pa.null())]),
        pa.struct([]),
        pa.struct([("a: Integral, b", pa.int64())]),
        pa.struct([("a>", pa.int64())]),
        pa.struct([("", pa.int64())]),
        pa.struct([("a", pa.int64()), ("a", pa.int64())]),
        pa.list_(pa.float32(), 8193),
        pa.list_(pa.float32(), 0),
    ],
    ids=lambda value: str(value),
)
def test_arrow_types_without_a_place_name_the_column(arrow: pa.DataType) -> None:
    with pytest.raises(InvalidInput, match="column 'odd'") as caught:
        Schema.from_arrow(pa.schema([("fine", pa.int64()), ("odd", arrow)]))
    assert caught.value.subject == "column 'odd'"
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Int",
        "integral",
        "List<>",
        "List<Int>",
        "List<String",
        "Vector(0)",
        "Vector(9000)",
        "Vector(x)",
        "Decimal(39, 0)",
        "Decimal(5, 6)",
        "Decimal(0, 0)",
        "Struct<>",
        "Struct<a>",
        "Struct<a: Integral, a: String>",
    ],
)
def test_text_that_names_no_type_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ColumnType.parse(text)
    assert caught.value.hint


def test_kinds_and_dimensions() -> None:
    assert ColumnType.parse("Vector(8)").dimension == 8
    assert ColumnType.parse("List<Vector(8)>").dimension is None
    assert [ColumnType.parse(text).kind for text in ("Decimal(3, 1)", "Set<String>", "Date")] == [
        "Decimal",
        "Set",
        "Date",
    ]
    assert ColumnType.parse("Timestamp").arrow == INSTANT == pa.timestamp("us", tz="UTC")


def test_a_schema_knows_its_columns() -> None:
    schema = Schema.of([("b", "String"), ("a", "Integral")])
    assert schema.names == ["b", "a"]
    assert len(schema) == 2
    assert "a" in schema
    assert "c" not in schema
    assert schema.get("c") is None
    assert schema.get("a") == Column("a", ColumnType.parse("Integral"))
    assert schema.arrow == pa.schema([("b", pa.string()), ("a", pa.int64())])


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'a' is given twice"):
        Schema.of([("a", "String"), ("a", "Integral")])
    with pytest.raises(InvalidInput, match="'a' is given twice"):
        Schema.from_arrow(pa.schema([("a", pa.int64()), ("a", pa.int64())]))
