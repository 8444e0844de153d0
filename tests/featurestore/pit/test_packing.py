"""A packed key sorts as the key does and is equal only for equal keys."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from featurestore.pit.packing import pack, sort_pairs

WIDE = st.integers(-(2**63), 2**63 - 1)
TEXT = st.one_of(st.text(max_size=6), st.text("ab0", max_size=8), st.integers(0, 999).map("user_{:09d}".format))


def columns_of(rows):
    """Key columns as the search holds them."""
    return [
        pa.array(column, pa.string()) if isinstance(column[0], str) else np.array(column, np.int64)
        for column in zip(*rows, strict=True)
    ]


@given(
    st.one_of(
        st.lists(st.tuples(WIDE), min_size=1),
        st.lists(st.tuples(TEXT), min_size=1),
        st.lists(st.tuples(st.integers(-4, 900), TEXT), min_size=1),
        st.lists(st.tuples(TEXT, st.sampled_from([0, 1]), TEXT), min_size=1),
        st.lists(st.tuples(WIDE, st.integers(0, 3)), min_size=1),
    )
)
@example([("a",), ("",), ("ab",), ("b",), ("é",), ("😀",)])
@example([("same",), ("same",)])
@example([(2**61, 0), (-(2**61), 0)])
def test_codes_rise_with_keys(rows):
    codes = pack(columns_of(rows))
    if codes is None:
        return
    by_key = [[part.encode() if isinstance(part, str) else part for part in row] for row in rows]
    for one, left in zip(codes, by_key, strict=True):
        for other, right in zip(codes, by_key, strict=True):
            assert (one < other) == (left < right)
            assert (one == other) == (left == right)


@pytest.mark.parametrize(
    "rows",
    [
        [("a",), ("a\0",)],
        [("x" * 30,), ("y",)],
        [(f"{place * 2**100 // 7:032x}",) for place in range(50)],
        [(-(2**62), 1), (2**62, 2)],
        [(0, 0), (2**40, 2**40)],
    ],
)
def test_what_does_not_fit_is_left_to_a_slower_sort(rows):
    assert pack(columns_of(rows)) is None


def test_common_text_costs_nothing():
    rows = [(f"a-rather-long-head_{place:04d}",) for place in range(0, 9999, 7)]
    codes = pack(columns_of(rows))
    assert codes is not None
    assert codes.max() < 2**16
    assert (np.diff(codes) > 0).all()


def test_a_slice_of_text():
    text = pa.array(["zz", "b", "a", "ab"]).slice(1, 3)
    codes = pack([text])
    assert codes is not None
    assert np.argsort(codes).tolist() == [1, 2, 0]


@given(st.lists(st.tuples(WIDE | st.integers(0, 5), WIDE | st.integers(0, 9)), max_size=40))
def test_pairs_sort_by_key(pairs):
    keys, times = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    order = sort_pairs(keys, times)
    assert sorted(order.tolist()) == list(range(len(pairs)))
    assert keys[order].tolist() == sorted(keys.tolist())


def test_times_ascend_inside_a_key_where_there_is_room():
    generator = np.random.default_rng(1)
    keys, times = generator.integers(0, 50, 1000), generator.integers(0, 2**40, 1000)
    assert sort_pairs(keys, times).tolist() == np.lexsort((times, keys)).tolist()
