"""Arrow columns in NumPy, and key columns compared row by row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from featurestore.pit.arrays import cells, differs, null_mask, plain, rising, taken, width_of


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([True, False, None, True]), [1, 0, 0, 1]),
        (pa.array([1, -2, 3, 4]), [1, -2, 3, 4]),
        (pa.array([1, 2, 3, 4], pa.timestamp("us", "UTC")), [1, 2, 3, 4]),
        (pa.array([1, 2, 3, -4], pa.date32()), [1, 2, 3, -4]),
    ],
)
def test_cells_of_slices(array, expected):
    assert plain(array).dtype == np.int64
    assert plain(array).tolist() == expected
    assert cells(array.slice(1, 2)).tolist() == expected[1:3]


def test_what_has_no_fixed_width():
    assert width_of(pa.string()) is None
    assert width_of(pa.list_(pa.int64())) is None
    assert width_of(pa.decimal128(38, 2)) == np.dtype("V16")


def test_null_masks():
    assert null_mask(pa.array([1, None, 3])).tolist() == [False, True, False]
    assert null_mask(pa.array(["a", "b"])).tolist() == [False, False]


TEXT = pa.array(["a", "a", "b", "\u00e9", "\U0001f600"])


def test_text_and_numbers_are_compared_alike():
    assert differs(TEXT).tolist() == [False, True, True, True]
    assert differs(np.array([1, 1, 2])).tolist() == [False, True]
    assert taken(TEXT, np.array([2, 0])).to_pylist() == ["b", "a"]
    assert taken(np.array([5, 6]), np.array([1])).tolist() == [6]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ([TEXT.slice(1)], True),
        ([TEXT], False),
        ([np.array([1, 2, 2]), np.array([9, 1, 3])], True),
        ([np.array([1, 2, 2]), np.array([9, 3, 3])], False),
        ([np.array([1, 1]), pa.array(["b", "a"])], False),
        ([pa.array(["a"])], True),
        ([np.array([], np.int64)], True),
    ],
)
def test_distinct_keys_rise_column_after_column(columns, expected):
    assert rising(columns) is expected
