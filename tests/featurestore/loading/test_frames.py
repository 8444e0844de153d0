"""Coercion in bulk says of every cell what a slow reading of one cell at a time says; sources that cannot fit raise."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from featurestore.groups import FeatureGroup, define_group
from featurestore.loading.frames import Coerced, coerce
from featurestore.values import MAX_TEXT
from foundation.engines.memory import cells_to_arrow
from foundation.errors import InvalidInput
from foundation.schema import Schema

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOW = (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
HIGH = (datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
NOW = 1_800_000_000_000_000
ZONE = "America/New_York"
BAD = object()


@cache
def a_group(
    *features: tuple[str, str], event: str = "Timestamp", key: str = "String", zone: str | None = None
) -> FeatureGroup:
    schema = Schema.of([("id", key), ("t", event), *features])
    return define_group("g", record_id="id", event_time="t", schema=schema, zone=zone, now=1)


def run(table: pa.Table, group: FeatureGroup, **options: Any) -> Coerced:
    return coerce(table, group, **{"now": NOW, "future_bound": 0, **options})


# -- the slow reading -----------------------------------------------------------------------------------------------


def whole(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return BAD
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and math.isinf(value):
        return BAD
    return int(value) if value == int(value) and -(2**63) <= value < 2**63 else BAD


def number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return BAD
    value = float(value)
    return None if math.isnan(value) else BAD if math.isinf(value) else value


def single(value: Any) -> Any:
    read = number(value)
    if read is BAD or read is None:
        return read
    with np.errstate(over="ignore"):
        narrow = float(np.float32(read))
    return BAD if math.isinf(narrow) else narrow


def bounded(micros: int) -> Any:
    return micros if LOW <= micros <= HIGH else BAD


def seconds(value: Any) -> Any:
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, float) and (math.isinf(value) or abs(value) > 1e15):
        return BAD
    return bounded(value * 1_000_000 if isinstance(value, int) else round(value * 1_000_000))


def iso(text: str, zone: str | None) -> Any:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return BAD
    if moment.tzinfo is None:
        if zone is None:
            return BAD
        moment = moment.replace(tzinfo=ZoneInfo(zone))
    return bounded((moment - EPOCH) // timedelta(microseconds=1))


def any_moment(text: str, zone: str | None) -> Any:
    if re.fullmatch(r"\d{8}", text.strip()):
        return BAD
    if re.fullmatch(r"[+-]?\d+(\.\d*)?", text.strip()):
        return seconds(float(text))
    return iso(text, zone)


def ticks(value: int, per_second: int, zone: str | None) -> Any:
    micros = value * 1_000_000 // per_second
    if zone is None or bounded(micros) is BAD:
        return bounded(micros)
    moment = datetime(1970, 1, 1) + timedelta(microseconds=micros)
    return bounded((moment.replace(tzinfo=ZoneInfo(zone)) - EPOCH) // timedelta(microseconds=1))


def text_whole(text: str) -> Any:
    text = text.strip()
    if re.fullmatch(r"[+-]?nan", text, re.IGNORECASE):
        return None
    match = re.fullmatch(r"([+-]?[0-9]+)(\.0*)?", text)
    return whole(int(match[1])) if match else BAD


def text_number(text: str) -> Any:
    if not re.fullmatch(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|inf|infinity|nan)", text.strip(), re.I):
        return BAD
    return number(float(text))


def text_boolean(text: str) -> Any:
    return {"true": True, "false": False, "1": True, "0": False}.get(text.strip().lower(), BAD)


def exact(value: Any) -> Any:
    try:
        read = Decimal(value.strip() if isinstance(value, str) else value)
        if not read.is_finite() or abs(read) >= Decimal(10) ** 8 or read != read.quantize(Decimal("0.01")):
            return BAD
    except InvalidOperation:
        return BAD
    return read.quantize(Decimal("0.01"))


def text_date(text: str) -> Any:
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        return BAD


def each(rule: Callable[[Any], Any], *, unique: bool = False) -> Callable[[list[Any]], Any]:
    def read(cells: list[Any]) -> Any:
        found = [None if cell is None else rule(cell) for cell in cells]
        if BAD in found:
            return BAD
        return list(dict.fromkeys(found)) if unique else found

    return read


def pair(cells: list[Any]) -> Any:
    found = each(single)(cells)
    return BAD if found is BAD or len(found) != 2 or None in found else found


def short(text: str) -> Any:
    return BAD if len(text.encode()) > MAX_TEXT else text


# -- sources of every type -----------------------------------------------------------------------------------------

floats = st.one_of(
    st.floats(),
    st.integers(-(2**54), 2**54).map(float),
    st.sampled_from([float("nan"), float("inf"), 2.0**63, -(2.0**63), 1e39, -1e39, 0.5, 1700000000.123]),
)
ints = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-5, 5), st.integers(-(10**11), 10**12))
decimals = st.decimals(min_value=-(10**9), max_value=10**9, places=3).map(lambda d: d + 0)
moment = st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30))
offsets = st.sampled_from(["Z", "+00:00", "-05:00", "+0530", "+05", "", "", "z", " Z", "+25:00"])
ODD = """x|2020-13-01T00:00:00Z|2020-01-01|20200101|20200101T000000Z|2020-W01-1|1577836800|1577836800.123|-5|+7.|1e9| |
2020-03-08 02:30|2021-11-07 01:30:00|nan|inf|-inf|NaN|0000-01-01T00:00:00Z|9999-12-31T23:59:59-05:00|
0001-01-01T00:00:00+05:00|2020-01-01T00:00:00.1234567Z|"""
odd = st.sampled_from(ODD.split("|"))
iso_text = st.one_of(odd, st.builds(lambda m, s, o: m.isoformat(sep=s) + o, moment, st.sampled_from("T "), offsets))
digits = st.one_of(
    st.sampled_from(
        ["0", "-0", "+5", " 7 ", "7.0", "7.", "7.5", ".5", "007", "1e3", "1_0", "0x1F", "٣", "--1", "", "NaN"]
    )
    | st.sampled_from(
        ["inf", "-Infinity", "nan", "1e400", "1e-400", "1,5", "9223372036854775808", "9007199254740993.0"]
    ),
    st.integers(-(2**64), 2**64).map(str),
    st.floats(allow_nan=False).map(str),
)
FLOAT = "Fractional"


@dataclass(frozen=True)
class Case:
    kind: str
    arrow: pa.DataType | None
    cells: st.SearchStrategy[Any]
    read: Callable[[Any], Any]
    text: bool = False
    zone: str | None = None


def ticking(unit: str, tz: str | None, zone: str | None = None) -> Case:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    near = st.integers(-(10**10) * per_second, 10**10 * per_second).filter(lambda v: abs(v) < 2**63)
    clock = st.sampled_from([1583652600, 1636264800, 1636268400]).map(lambda second: second * per_second)
    cells = st.one_of(near, clock, st.integers(-(2**63) + 1, 2**63 - 1))
    return Case("Timestamp", pa.timestamp(unit, tz), cells, lambda value: ticks(value, per_second, zone), zone=zone)


CASES = {
    "int8": Case("Integral", pa.int8(), st.integers(-128, 127), whole),
    "int64": Case("Integral", pa.int64(), ints, whole),
    "uint64": Case("Integral", pa.uint64(), st.integers(0, 2**64 - 1) | st.integers(0, 5), whole),
    "float to int": Case("Integral", pa.float64(), floats, whole),
    "decimal to int": Case("Integral", pa.decimal128(38, 3), decimals, whole),
    "text to int": Case("Integral", pa.string(), digits, text_whole, text=True),
    "float": Case(FLOAT, pa.float64(), floats, number),
    "int to float": Case(FLOAT, pa.int64(), ints, number),
    "decimal to float": Case(FLOAT, pa.decimal128(38, 3), decimals, number),
    "text to float": Case(FLOAT, pa.large_string(), digits, text_number, text=True),
    "float to single": Case("Fractional32", pa.float64(), floats, single),
    "string": Case("String", pa.string(), st.text(), short),
    "large string": Case("String", pa.large_string(), st.text(), short),
    "view": Case("String", pa.string_view(), st.text(), short),
    "dictionary": Case("String", pa.dictionary(pa.int32(), pa.string()), st.text(max_size=2), short),
    "boolean": Case("Boolean", pa.bool_(), st.booleans(), lambda value: value),
    "text to boolean": Case(
        "Boolean", pa.string(), st.sampled_from(["true", " FALSE", "1", "0", "yes", "", "2"]), text_boolean, text=True
    ),
    "seconds": Case("Timestamp", pa.int64(), ints, seconds),
    "float seconds": Case("Timestamp", pa.float64(), floats, seconds),
    "iso": Case("Timestamp", pa.string(), iso_text, lambda text: iso(text, None)),
    "iso with zone": Case("Timestamp", pa.string(), iso_text, lambda text: iso(text, ZONE), zone=ZONE),
    "any moment": Case("Timestamp", pa.string(), iso_text, lambda text: any_moment(text, None), text=True),
    "any moment with zone": Case(
        "Timestamp", pa.string(), iso_text, lambda text: any_moment(text, ZONE), text=True, zone=ZONE
    ),
    **{f"timestamp {unit}": ticking(unit, "UTC") for unit in ("s", "ms", "us", "ns")},
    "timestamp elsewhere": ticking("us", "Europe/Berlin"),
    **{f"naive {unit}": ticking(unit, None, ZONE) for unit in ("s", "ms", "us", "ns")},
    "date": Case("Date", pa.date32(), st.dates(), lambda value: value),
    "text to date": Case("Date", pa.string(), st.dates().map(str) | odd, text_date, text=True),
    "decimal": Case("Decimal(10, 2)", pa.decimal128(38, 3), decimals, exact),
    "int to decimal": Case("Decimal(10, 2)", pa.int64(), ints, exact),
    "text to decimal": Case("Decimal(10, 2)", pa.string(), decimals.map(str) | odd.filter(str.strip), exact),
    "list": Case("List<Fractional>", pa.list_(pa.float64()), st.lists(st.none() | floats, max_size=4), each(number)),
    "set": Case(
        "Set<Integral>", pa.large_list(pa.float64()), st.lists(st.none() | floats, max_size=5), each(whole, unique=True)
    ),
    "vector": Case("Vector(2)", pa.list_(pa.float64()), st.lists(st.none() | floats, max_size=3), pair),
    "fixed vector": Case(
        "Vector(2)", pa.list_(pa.float64(), 2), st.lists(st.none() | floats, min_size=2, max_size=2), pair
    ),
    "decimal seconds": Case(
        "Timestamp", pa.decimal128(38, 3), decimals, lambda value: bounded(round(value * 1_000_000))
    ),
    "vector of int": Case("Vector(2)", pa.list_(pa.int64()), st.lists(ints, max_size=3), pair),
}


def values(column: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return list(column.to_pylist())


def build(cells: list[Any], arrow: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(arrow):
        return (
            pa.array(cells, pa.int64()).cast(pa.timestamp(arrow.unit)).cast(arrow)
            if arrow.tz is None
            else (pa.array(cells, pa.int64()).cast(arrow))
        )
    return pa.array(cells, arrow)


@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_every_cell_is_read_as_one_at_a_time(name: str, data: st.DataObject) -> None:
    case = CASES[name]
    cells = data.draw(st.lists(st.none() | case.cells, min_size=1, max_size=20), label="cells")
    if case.text:
        cells = [cell or None for cell in cells]
    pieces = data.draw(st.integers(0, len(cells)), label="cut")
    column = build(cells, case.arrow) if case.arrow is not None else cells_to_arrow(cells)
    table = pa.table(
        {
            "id": pa.array(["k"] * len(cells)),
            "t": pa.array(["2020-01-01T00:00:00Z"] * len(cells)),
            "x": pa.chunked_array([column[:pieces], column[pieces:]]),
        }
    )
    found = run(table, a_group(("x", case.kind)), text=case.text, zone=case.zone)
    expected = [None if cell is None else case.read(cell) for cell in cells]
    good = [place for place, cell in enumerate(expected) if cell is not BAD]
    assert found.positions.tolist() == good
    assert values(found.table.column("x")) == [expected[place] for place in good]
    assert found.table.schema.equals(a_group(("x", case.kind)).schema.arrow)
    assert found.rejects.column("row").to_pylist() == [p for p, cell in enumerate(expected) if cell is BAD]
    assert set(found.rejects.column("field").to_pylist()) <= {"x"}
    for record in found.rejects.column("record").to_pylist():
        assert json.loads(record)["id"] == "k"


@settings(deadline=None, max_examples=15)
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.sampled_from(["a", "", "b" * 3000]),
            st.none() | st.sampled_from([0, NOW // 10**6, NOW // 10**6 + 1, 10**12]),
            st.none() | st.sampled_from([1.0, 2.5, float("nan"), float("inf")]),
        ),
        max_size=12,
    )
)
@example(rows=[])
def test_the_first_thing_wrong_with_a_row_is_told(rows: list[tuple[Any, Any, Any]]) -> None:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    table = pa.table(
        {
            "x": pa.array(columns[2], pa.float64()),
            "id": pa.array(columns[0], pa.string()),
            "t": pa.array(columns[1], pa.int64()),
        }
    )
    found = run(table, a_group(("x", "Integral"), ("y", "String")))
    told: list[tuple[int, str]] = []
    for place, (key, event, x) in enumerate(rows):
        if key is None or len(key) > 2000:
            told.append((place, "id"))
        elif event is None or event * 10**6 > NOW:
            told.append((place, "t"))
        elif x in (2.5, float("inf")):
            told.append((place, "x"))
    read = found.rejects.select(["row", "field"]).to_pylist()
    assert [(each["row"], each["field"]) for each in read if each["row"] is not None] == told
    assert found.positions.tolist() == [p for p in range(len(rows)) if p not in {place for place, _ in told}]
    assert found.table.column("y").null_count == found.table.num_rows == len(found.positions)


# -- mixed values, nested text, structs ----------------------------------------------------------------------------


def test_columns_of_mixed_values_are_read_one_by_one() -> None:
    cells = [1, 2.0, 2.5, "x", True, None, 2**70, float("inf")]
    table = pa.table({"id": ["k"] * 8, "t": [0] * 8, "x": cells_to_arrow(cells)})
    found = run(table, a_group(("x", "Integral")))
    assert found.table.column("x").to_pylist() == [1, 2, None]
    assert found.positions.tolist() == [0, 1, 5]
    assert json.loads(found.rejects.column("record")[1].as_py())["x"] == "x"


def test_moments_of_mixed_kinds_are_never_guessed() -> None:
    aware, naive = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1)
    table = pa.table({"id": ["k"] * 3, "t": cells_to_arrow([aware, naive, 7])})
    found = run(table, a_group())
    assert found.positions.tolist() == [0, 2]
    assert values(found.table.column("t")) == [1577836800000000, 7000000]


def test_lists_and_structs_in_text_are_json() -> None:
    table = pa.table(
        {
            "id": ["a", "b", "c"],
            "t": ["2020-01-01T00:00:00Z"] * 3,
            "l": ["[1, null]", "[1", '["x"]'],
            "s": ['{"a": 1}', None, None],
        }
    )
    found = run(table, a_group(("l", "List<Integral>"), ("s", "Struct<a: Integral, b: String>")), text=True)
    assert found.table.select(["l", "s"]).to_pylist() == [{"l": [1, None], "s": {"a": 1, "b": None}}]
    assert found.rejects.column("row").to_pylist() == [1, 2]


def test_struct_fields_are_read_like_columns() -> None:
    kind = pa.struct([("b", pa.string()), ("a", pa.float64())])
    table = pa.table(
        {
            "id": ["k"] * 4,
            "t": [0] * 4,
            "x": pa.array([{"a": 1.0, "b": "u"}, {"a": 1.5}, None, {"a": float("nan")}], kind),
        }
    )
    found = run(table, a_group(("x", "Struct<a: Integral, b: String>")))
    assert found.table.column("x").to_pylist() == [{"a": 1, "b": "u"}, None, {"a": None, "b": None}]
    assert found.rejects.column("reason").to_pylist() == ["field 'a' is not a whole number of 64 bits"]


def test_too_long_text_and_invalid_bytes_are_refused() -> None:
    broken = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(np.array([0, 1, 2, 3], np.int32).tobytes()), pa.py_buffer(b"a\xffb")]
    )
    found = run(pa.table({"id": ["k"] * 3, "t": [0] * 3, "x": broken}), a_group(("x", "String")))
    assert found.positions.tolist() == [0, 2]
    assert found.rejects.column("reason").to_pylist() == ["not valid UTF-8"]
    long = pa.table({"id": ["k"] * 2, "t": [0] * 2, "x": ["é" * (MAX_TEXT // 2), "é" * (MAX_TEXT // 2) + "x"]})
    assert run(long, a_group(("x", "String"))).positions.tolist() == [0]


def test_pandas_ints_with_gaps_and_nan() -> None:
    frame = pd.DataFrame(
        {"id": [1, 2], "t": pd.to_datetime([0, 1], utc=True), "x": [3, None], "y": [float("nan"), 1.5]}
    )
    table = pa.Table.from_pandas(frame, preserve_index=False)
    found = run(table, a_group(("x", "Integral"), ("y", "Fractional"), key="Integral"))
    assert found.table.select(["id", "x", "y"]).to_pylist() == [
        {"id": 1, "x": 3, "y": None},
        {"id": 2, "x": None, "y": 1.5},
    ]


def test_event_time_declared_as_seconds_reads_text_as_seconds() -> None:
    table = pa.table({"id": ["a", "b", "c"], "t": ["20200101", "1577836800.123", "2020-01-01T00:00:00Z"]})
    found = run(table, a_group(event="Fractional"), text=True)
    assert values(found.table.column("t")) == [20200101000000, 1577836800123000]
    assert found.rejects.column("field").to_pylist() == ["t"]


def test_group_zone_counts_where_none_is_given() -> None:
    table = pa.table({"id": ["a"], "t": pa.array([0], pa.timestamp("us"))})
    assert values(run(table, a_group(zone=ZONE)).table.column("t")) == [5 * 3600 * 10**6]
    assert values(run(table, a_group(zone=ZONE), zone="UTC").table.column("t")) == [0]


# -- whole sources that do not fit ---------------------------------------------------------------------------------

FINE: dict[str, Any] = {"id": ["a"], "t": [0]}
NAIVE = pa.array([0], pa.timestamp("us"))


@pytest.mark.parametrize(
    ("columns", "kind", "culprit", "said"),
    [
        ({"id": ["a"]}, "Integral", "t", "no column 't'"),
        ({"t": [0]}, "Integral", "id", "no column 'id'"),
        ({**FINE, "xx": [1]}, "Integral", "xx", "not a feature"),
        ({**FINE, "x": ["1"]}, "Integral", "x", "string in the source but Integral"),
        ({**FINE, "x": [True]}, "Integral", "x", "bool in the source"),
        ({**FINE, "x": [1]}, "Boolean", "x", "int64 in the source"),
        ({**FINE, "x": [1]}, "String", "x", "int64 in the source"),
        ({**FINE, "x": [1.5]}, "Decimal(5, 2)", "x", "double in the source"),
        ({**FINE, "x": [b"x"]}, "String", "x", "binary in the source"),
        ({**FINE, "x": [["x"]]}, "List<Integral>", "x", "string in the source"),
        ({**FINE, "x": [1]}, "Vector(2)", "x", "int64 in the source"),
        ({**FINE, "x": [{"z": 1}]}, "Struct<a: Integral>", "x", "field 'z'"),
        ({**FINE, "x": NAIVE}, "Timestamp", "x", "without a time zone"),
        ({"id": ["a"], "t": NAIVE}, "Integral", "t", "without a time zone"),
        ({"id": ["a"], "t": pa.array([0], pa.date32())}, "Integral", "t", "without a time zone"),
        ({"id": ["a"], "t": [True]}, "Integral", "t", "bool in the source"),
        ({"id": [1.0], "t": [0]}, "Integral", "id", "double in the source but String"),
    ],
)
def test_a_source_that_can_never_fit_raises(columns: dict[str, Any], kind: str, culprit: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(said)) as caught:
        run(pa.table(columns), a_group(("x", kind)))
    assert repr(culprit) in caught.value.subject
    assert caught.value.hint


def test_a_column_twice_raises() -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array([0]), pa.array([1])], names=["id", "t", "t"])
    with pytest.raises(InvalidInput, match="'t' is in the source twice"):
        run(table, a_group())


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'price'"):
        run(pa.table({**FINE, "prize": [1]}), a_group(("price", "Integral")))
