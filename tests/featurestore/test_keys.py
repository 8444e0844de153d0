"""Canonical keys: equal keys give equal bytes, different keys never do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.keys import KEY_KINDS, KEY_LIMIT, decode_key, encode_key
from foundation.clock import EPOCH, instant_of
from foundation.errors import InvalidInput
from foundation.schema import Column, ColumnType

INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = {
    "Integral": INT64,
    "String": st.text(max_size=12),
    "Boolean": st.booleans(),
    "Timestamp": st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=9))])),
    "Date": st.dates(),
}


def _columns(*kinds: str) -> tuple[Column, ...]:
    return tuple(Column(f"c{place}", ColumnType.parse(kind)) for place, kind in enumerate(kinds))


@st.composite
def _keys(draw: st.DrawFn, count: int = 2) -> tuple[tuple[Column, ...], list[tuple[object, ...]]]:
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3))
    return _columns(*kinds), [tuple(draw(VALUES[kind]) for kind in kinds) for _ in range(count)]


def _plain(values: tuple[object, ...]) -> tuple[object, ...]:
    """What ``decode_key`` promises to give back."""
    return tuple(
        instant_of(value)
        if isinstance(value, datetime)
        else (value - EPOCH.date()).days
        if isinstance(value, date)
        else value
        for value in values
    )


def test_the_kinds_tested_are_the_kinds_allowed() -> None:
    assert set(VALUES) == KEY_KINDS


@given(_keys())
def test_keys_are_equal_exactly_when_their_bytes_are(drawn) -> None:
    columns, (one, other) = drawn
    assert (encode_key(columns, one) == encode_key(columns, other)) == (_plain(one) == _plain(other))


@given(_keys(count=1))
def test_a_key_reads_back(drawn) -> None:
    columns, (values,) = drawn
    again = decode_key(encode_key(columns, values))
    assert again == _plain(values)
    assert [type(part) for part in again] == [type(part) for part in _plain(values)]


@given(INT64, INT64)
def test_integers_sort_as_numbers(one: int, other: int) -> None:
    column = _columns("Integral")
    assert (encode_key(column, (one,)) < encode_key(column, (other,))) == (one < other)


def test_parts_cannot_run_into_each_other() -> None:
    columns = _columns("String", "String")
    keys = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", ""), ("as\0\0\0\1b", "c"), ("a\0", "bc")]
    assert len({encode_key(columns, key) for key in keys}) == len(keys)


def test_equal_values_of_other_types_are_not_equal_keys() -> None:
    made = {
        encode_key(_columns(kind), (value,))
        for kind, value in [
            ("Integral", 1),
            ("String", "1"),
            ("Boolean", True),
            ("Timestamp", EPOCH + timedelta(microseconds=1)),
        ]
    }
    assert len(made) == 4


def test_numpy_integers_are_integers() -> None:
    columns = _columns("Integral")
    for kind in (np.int64, np.uint8, np.int32):
        assert encode_key(columns, (kind(7),)) == encode_key(columns, (7,))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("Integral", None),
        ("Integral", "7"),
        ("Integral", 7.0),
        ("Integral", True),
        ("Integral", np.True_),
        ("Integral", 2**63),
        ("Integral", -(2**63) - 1),
        ("Integral", np.uint64(2**63)),
        ("String", 7),
        ("String", b"x"),
        ("String", None),
        ("Boolean", 1),
        ("Boolean", "true"),
        ("Timestamp", datetime(2026, 1, 1)),
        ("Timestamp", date(2026, 1, 1)),
        ("Timestamp", 0),
        ("Date", datetime(2026, 1, 1, tzinfo=UTC)),
        ("Date", "2026-01-01"),
    ],
)
def test_a_value_that_does_not_fit_names_the_column(kind: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        encode_key(_columns("Integral", kind), (1, value))
    assert caught.value.subject == "column 'c1'"
    assert (str(value) if isinstance(value, np.integer) else repr(value)) in caught.value.message
    assert kind in caught.value.hint


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(InvalidInput, match="column 'c0'"):
        encode_key(_columns("String"), ("\ud800",))


@pytest.mark.parametrize("values", [(), (1,), (1, "a", 2)])
def test_the_number_of_parts_must_fit(values: tuple[object, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"a key needs 2 value\(s\) \(c0, c1\)"):
        encode_key(_columns("Integral", "String"), values)


def test_a_key_has_a_length_limit() -> None:
    columns = _columns("String")
    assert len(encode_key(columns, ("x" * (KEY_LIMIT - 5),))) == KEY_LIMIT
    with pytest.raises(InvalidInput, match="2049 bytes"):
        encode_key(columns, ("x" * (KEY_LIMIT - 4),))
    with pytest.raises(InvalidInput, match="bytes"):
        encode_key(columns, ("é" * KEY_LIMIT,))
