"""Values in their three forms: what is put comes back, online and from history, for every type; the rest is refused."""

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.groups import define_group
from featurestore.online.codec import decode_values, encode_values
from featurestore.values import ValueCodec, parse_instant
from foundation.errors import InvalidInput
from foundation.schema import Schema

START = datetime(2024, 1, 1, tzinfo=UTC)
LATEST = 1 << 62


def n_tenths(number):
    """A decimal of up to 38 digits, ten of them after the point."""
    return Decimal((0 if number >= 0 else 1, tuple(map(int, str(abs(number)))), -10))


NARROW = st.floats(width=32, allow_nan=False, allow_infinity=False)
TYPES = {
    "whole": ("Integral", st.integers(-(2**63), 2**63 - 1)),
    "number": ("Fractional", st.floats(allow_nan=False, allow_infinity=False)),
    "narrow": ("Fractional32", NARROW),
    "text": ("String", st.text()),
    "flag": ("Boolean", st.booleans()),
    "moment": ("Timestamp", st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))),
    "day": ("Date", st.dates()),
    "money": ("Decimal(12, 3)", st.decimals(-(10**8), 10**8, places=3)),
    "fortune": ("Decimal(38, 10)", st.integers(-(10**38) + 1, 10**38 - 1).map(n_tenths)),
    "items": ("List<Integral>", st.lists(st.integers(-100, 100))),
    "words": ("Set<String>", st.lists(st.text(max_size=3), unique=True)),
    "days": ("List<Date>", st.lists(st.dates())),
    "prices": ("List<Decimal(6, 2)>", st.lists(st.decimals(-999, 999, places=2))),
    "point": (
        "Vector(3)",
        st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3),
    ),
    "place": (
        "Struct<a: Integral, b: List<Timestamp>>",
        st.fixed_dictionaries({"a": st.integers(0, 9), "b": st.lists(st.just(START), max_size=2)}),
    ),
}
GROUP = define_group(
    "g",
    record_id="id",
    event_time="ts",
    schema=Schema.of([("id", "Integral"), ("ts", "Timestamp"), *((name, kind) for name, (kind, _) in TYPES.items())]),
    number=1,
)
CODEC = ValueCodec(GROUP)
RECORDS = st.fixed_dictionaries({name: st.one_of(st.none(), cells) for name, (_, cells) in TYPES.items()})


@given(RECORDS)
def test_what_is_put_comes_back_online_and_from_history(cells):
    record = {"id": 1, "ts": START} | cells
    _, _, plain = CODEC.row(record, latest=LATEST)
    assert CODEC.record(decode_values(encode_values(list(plain)))) == record
    table = pa.Table.from_arrays(CODEC.to_arrow([plain]), schema=GROUP.schema.arrow)
    assert table.to_pylist()[0] == record
    assert [column[0] for column in CODEC.plain_columns(table)] == plain


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("whole", 1.0),
        ("whole", True),
        ("whole", "1"),
        ("whole", 2**63),
        ("number", "1"),
        ("number", math.inf),
        ("number", 10**400),
        ("number", True),
        ("narrow", 1e300),
        ("text", 1),
        ("text", "\ud800"),
        ("text", "x" * 400_000),
        ("flag", 1),
        ("moment", datetime(2024, 1, 1)),
        ("moment", "yesterday"),
        ("day", START),
        ("day", "2024-13-01"),
        ("money", Decimal("1.0005")),
        ("money", Decimal("1e20")),
        ("money", 1.5),
        ("items", 5),
        ("items", ["a"]),
        ("point", [1.0, 2.0]),
        ("point", [1.0, 2.0, math.nan]),
        ("place", {"c": 1}),
        ("place", 5),
        ("surprise", 1),
    ],
)
def test_values_that_do_not_fit_are_refused_by_name(name, value):
    with pytest.raises(InvalidInput, match=name):
        CODEC.row({"id": 1, "ts": START, name: value}, latest=LATEST)


def test_nan_is_null_and_numpy_scalars_are_taken():
    record = {"id": np.int64(1), "ts": START, "number": math.nan, "whole": np.int32(7), "flag": np.bool_(True)}
    _, _, plain = CODEC.row(record, latest=LATEST)
    back = CODEC.record(plain)
    assert (back["id"], back["number"], back["whole"], back["flag"]) == (1, None, 7, True)


def test_a_set_keeps_each_element_once():
    _, _, plain = CODEC.row({"id": 1, "ts": START, "words": ["b", "a", "b"]}, latest=LATEST)
    assert CODEC.record(plain)["words"] == ["b", "a"]


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2024-01-01T00:00:00Z", START),
        ("2024-01-01T02:00:00+02:00", START),
        ("2024-01-01T00:00:00.123456Z", START + timedelta(microseconds=123456)),
        (START.astimezone(timezone(timedelta(hours=5))), START),
        (1704067200, START),
        (1704067200.125, START + timedelta(milliseconds=125)),
        (np.float64(1704067200.5), START + timedelta(milliseconds=500)),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (-1.5, datetime(1969, 12, 31, 23, 59, 58, 500000, tzinfo=UTC)),
    ],
)
def test_moments_are_read_exactly(value, moment):
    assert parse_instant(value, "ts", zone=None) == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )


@pytest.mark.parametrize(
    "value",
    [
        "2024-01-01",
        "2024-01-01T00:00:00",
        datetime(2024, 1, 1),
        "soon",
        True,
        math.nan,
        1e18,
        "0001-01-01T00:00:00+01:00",  # the year 0 in UTC
        "9999-12-31T23:59:59-01:00",  # the year 10000 in UTC
    ],
)
def test_moments_without_a_zone_or_sense_are_refused(value):
    with pytest.raises(InvalidInput, match="ts"):
        parse_instant(value, "ts", zone=None)


def test_a_zone_reads_naive_moments():
    assert parse_instant("2024-07-01T12:00:00", "ts", zone="America/New_York") == parse_instant(
        "2024-07-01T16:00:00Z", "ts", zone=None
    )


def test_a_future_event_time_is_refused_beyond_the_bound():
    with pytest.raises(InvalidInput, match="future"):
        CODEC.row({"id": 1, "ts": START}, latest=0)


def test_rows_of_an_earlier_schema_version_read_as_null_at_the_end():
    wider = ValueCodec(GROUP.with_features(Schema.of([("added", "Integral")]), now=1))
    _, _, plain = CODEC.row({"id": 1, "ts": START}, latest=LATEST)
    assert wider.record(list(plain))["added"] is None
    assert wider.to_arrow([plain])[-1].to_pylist() == [None]


def test_dates_are_no_moments():
    with pytest.raises(InvalidInput, match="ts"):
        CODEC.row({"id": 1, "ts": date(2024, 1, 1)}, latest=LATEST)
