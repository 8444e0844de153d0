"""Splits: every row in exactly one part, the same one wherever and in whatever order the rows come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.datasets.spine import open_spine
from featurestore.datasets.splits import Split, make_split
from foundation.errors import InvalidInput

THREE = {"train": 0.8, "validation": 0.1, "test": 0.1}
START = datetime(2024, 1, 1, tzinfo=UTC)


def parts_of(table, split, event_time="ts", slice_rows=None):
    """The part of each row, in order."""
    spine = open_spine(table, event_time)
    made = split(spine).resolved(spine)
    found, first = [], 0
    for piece in spine.slices(slice_rows):
        times, valid = spine.moments(piece, event_time, first)
        found += made.labels(made.assign(piece, first, times, valid)).to_pylist()
        first += piece.num_rows
    return found


def people(count, seed=0):
    rng = np.random.default_rng(seed)
    names = [f"user-{n}" for n in rng.integers(0, 500, count)]
    return pa.table({"user": names, "n": rng.integers(-5, 5, count), "ts": rng.uniform(0, 1e9, count)})


def test_shares_are_kept_and_seeds_differ():
    table = people(20_000)
    parts = parts_of(table, lambda spine: make_split(spine, THREE))
    counts = {name: parts.count(name) / len(parts) for name in THREE}
    assert counts == pytest.approx(THREE, abs=0.01)
    other = parts_of(table, lambda spine: make_split(spine, THREE, seed=1))
    same = np.mean([a == b for a, b in zip(parts, other, strict=True)])
    assert same == pytest.approx(0.66, abs=0.02), "another seed is an independent split"


FULL = 2**64


def mixed(word):
    """SplitMix64's finaliser, on Python's integers."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % FULL
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % FULL
    return word ^ (word >> 31)


def word_of(value):
    if value is None:
        return 0x9E3779B97F4A7C15
    if isinstance(value, str):
        data = value.encode()
        return mixed((len(data) + sum((c + 1) * 0x100000001B3 ** (i + 1) for i, c in enumerate(data))) % FULL)
    return mixed(value % FULL)


@given(
    st.lists(st.tuples(st.none() | st.text(max_size=9), st.none() | st.integers(-(2**63), 2**63 - 1)), min_size=1),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_the_hash_is_the_one_described(rows, seed):
    """Saved datasets depend on it: it may never change."""
    texts, numbers = [text for text, _ in rows], [number for _, number in rows]
    table = pa.table({"s": pa.array(texts, pa.string()), "n": pa.array(numbers, pa.int64()), "ts": [0.0] * len(rows)})
    halves = {"a": 0.5, "b": 0.5}
    found = parts_of(table, lambda spine: make_split(spine, halves, by=["s", "n"], seed=seed))
    words = [mixed(mixed(seed ^ word_of(text)) ^ word_of(number)) for text, number in rows]
    assert found == ["a" if word / FULL < 0.5 else "b" for word in words]
    by_row = parts_of(table, lambda spine: make_split(spine, halves, seed=seed))
    assert by_row == ["a" if mixed(seed ^ mixed(row + 1)) / FULL < 0.5 else "b" for row in range(len(rows))]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(60)), st.sampled_from([None, 1, 7, 59]))
def test_by_columns_the_order_of_rows_does_not_matter(order, slice_rows):
    table = people(60)
    whole = parts_of(table, lambda spine: make_split(spine, THREE, by="user"))
    shuffled = parts_of(table.take(order), lambda spine: make_split(spine, THREE, by="user"), slice_rows=slice_rows)
    assert shuffled == [whole[place] for place in order]


def test_rows_that_agree_stay_together():
    table = people(5_000)
    parts = parts_of(table, lambda spine: make_split(spine, THREE, by="user"))
    homes = {}
    for user, part in zip(table["user"].to_pylist(), parts, strict=True):
        assert homes.setdefault(user, part) == part
    assert set(homes.values()) == set(THREE)


@pytest.mark.parametrize(
    "other",
    [pa.int8(), pa.int32(), pa.uint16(), pa.int64()],
    ids=str,
)
def test_the_width_of_a_column_does_not_matter(other):
    numbers = pa.array([*range(100), None], pa.int16())
    split = lambda spine: make_split(spine, THREE, by="k")  # noqa: E731
    times = [0.0] * 101
    narrow = parts_of(pa.table({"k": numbers, "ts": times}), split)
    assert narrow == parts_of(pa.table({"k": numbers.cast(other), "ts": times}), split)


def test_text_layout_does_not_matter():
    texts = pa.array([f"x{n}" if n % 7 else None for n in range(300)])
    split = lambda spine: make_split(spine, THREE, by="k")  # noqa: E731
    plain = parts_of(pa.table({"k": texts, "ts": [0.0] * 300}), split)
    for other in (texts.cast(pa.large_string()), texts.dictionary_encode(), texts.cast(pa.string_view())):
        assert parts_of(pa.table({"k": other, "ts": [0.0] * 300}), split, slice_rows=41) == plain


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.sampled_from([(0.5, 0.5), (0.8, 0.1, 0.1), (0.34, 0.33, 0.33), (0.999, 0.001)]),
    st.sampled_from([None, 1, 4]),
)
def test_by_time_parts_follow_each_other(seconds, shares, slice_rows):
    fractions = {f"p{place}": share for place, share in enumerate(shares)}
    table = pa.table({"ts": seconds})
    parts = parts_of(table, lambda spine: make_split(spine, fractions, by="ts"), slice_rows=slice_rows)
    places = [int(part[1:]) for part in parts]
    ordered = sorted(zip(seconds, places, strict=True))
    assert [place for _, place in ordered] == sorted(places), "a later row is never in an earlier part"
    assert len({(second, place) for second, place in ordered}) == len(set(seconds)), "equal times stay together"
    for place in range(len(shares) - 1):
        earlier = sum(each <= place for each in places)
        assert earlier <= sum(shares[: place + 1]) * len(seconds) + 1e-6


def test_by_time_shares_are_kept_when_times_differ():
    table = pa.table({"ts": np.random.default_rng(0).permutation(1000).astype(float)})
    parts = parts_of(table, lambda spine: make_split(spine, THREE, by="ts"))
    assert [parts.count(name) for name in THREE] == [800, 100, 100]


def test_cuts_end_before_their_moment():
    moments = [START + timedelta(hours=hour) for hour in range(4)]
    cuts = {"train": moments[1], "validation": "2024-01-01T02:00:00Z", "test": None}
    parts = parts_of(pa.table({"ts": moments}), lambda spine: make_split(spine, cuts=cuts))
    assert parts == ["train", "validation", "test", "test"]


def test_a_row_without_a_time_cannot_be_placed():
    table = pa.table({"ts": [1.0, None, 3.0]})
    with pytest.raises(InvalidInput, match="row 1 has no time"):
        parts_of(table, lambda spine: make_split(spine, THREE, by="ts"))
    with pytest.raises(InvalidInput, match="row 1 has no time"):
        parts_of(table, lambda spine: make_split(spine, cuts={"a": START, "b": None}))
    assert len(parts_of(table, lambda spine: make_split(spine, THREE))) == 3


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "fractions or cuts"),
        ({"fractions": THREE, "cuts": {"a": START, "b": None}}, "fractions or cuts"),
        ({"fractions": {"a": 0.5, "b": 0.4}}, "0.9, not 1"),
        ({"fractions": {"a": 1.5, "b": -0.5}}, "not shares"),
        ({"fractions": {"a": 1.0}}, "1 part"),
        ({"fractions": THREE, "by": "usr"}, "no column 'usr'"),
        ({"fractions": THREE, "by": "many"}, "cannot hash"),
        ({"cuts": {"a": START, "b": START}}, "do not end with None"),
        ({"cuts": {"a": START, "b": START, "c": None}}, "time order"),
        ({"cuts": {"a": datetime(2024, 1, 1), "b": None}}, "no time zone"),
        ({"cuts": {"a": START, "b": None}, "by": "user"}, "by time"),
        ({"fractions": {"a/b": 0.5, "b": 0.5}}, "'a/b'"),
    ],
)
def test_splits_that_make_no_sense_are_refused(options, told):
    spine = open_spine(pa.table({"user": ["a"], "many": [[1]], "ts": [1.0]}), "ts")
    with pytest.raises(InvalidInput) as caught:
        make_split(spine, **options)
    assert told in caught.value.message


def test_documents_come_back():
    spine = open_spine(people(10), "ts")
    for split in (make_split(spine, THREE, by="user", seed=9), make_split(spine, THREE, by="ts").resolved(spine)):
        assert Split.from_document(split.to_document()) == split
