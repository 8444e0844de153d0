"""Fingerprints: equal content, equal hash, however it lies in memory; and nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.datasets.fingerprint import ContentHash, Fingerprint, fingerprint_of

CELLS = st.lists(
    st.tuples(
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.floats(allow_nan=True),
        st.none() | st.text(max_size=4),
        st.none() | st.lists(st.none() | st.text(max_size=2), max_size=3),
        st.none() | st.fixed_dictionaries({"a": st.none() | st.booleans()}),
    ),
    max_size=20,
)
SCHEMA = pa.schema(
    [
        ("i", pa.int64()),
        ("f", pa.float64()),
        ("s", pa.string()),
        ("l", pa.list_(pa.string())),
        ("d", pa.struct([("a", pa.bool_())])),
    ]
)


def table_of(rows):
    columns = list(zip(*rows, strict=True)) or [[]] * len(SCHEMA)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


@settings(max_examples=60, deadline=None)
@given(CELLS, st.lists(st.integers(0, 20), max_size=4), st.integers(0, 3))
def test_chunks_slices_and_encodings_do_not_matter(rows, cuts, pad):
    table = table_of(rows)
    wanted = fingerprint_of(table)
    padded = pa.concat_tables([table_of(rows[:1] * pad), table]).combine_chunks().slice(min(pad, len(rows[:1]) * pad))
    places = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    pieces = [padded.slice(start, end - start) for start, end in itertools.pairwise(places)] or [table]
    assert fingerprint_of(pieces) == wanted
    assert fingerprint_of(pa.concat_tables(pieces)) == wanted
    large = table.set_column(2, "s", table["s"].dictionary_encode()).set_column(
        3, "l", table["l"].cast(pa.large_list(pa.large_string()))
    )
    assert fingerprint_of(large) == wanted


@settings(max_examples=100, deadline=None)
@given(CELLS.filter(len), st.data())
def test_any_changed_cell_changes_hash_and_names_the_column(rows, data):
    table = table_of(rows)
    row = data.draw(st.integers(0, len(rows) - 1))
    place = data.draw(st.integers(0, 4))
    other = data.draw(CELLS.filter(len))[0][place]
    changed = [list(cells) for cells in rows]
    changed[row][place] = other
    twin = table_of(changed)
    before, after = fingerprint_of(table), fingerprint_of(twin)
    bits = lambda each: None if each is None else np.float64(each).tobytes()  # noqa: E731
    same = bits(other) == bits(rows[row][place]) if place == 1 else other == rows[row][place]
    assert (before == after) == same
    assert before.differing_column(after) == (None if same else SCHEMA.names[place])


def test_look_alikes_differ():
    hashes = [
        fingerprint_of(pa.table({"x": cells})).content_hash
        for cells in (
            pa.array([None], pa.float64()),
            pa.array([float("nan")]),
            pa.array([0.0]),
            pa.array([-0.0]),
            pa.array([0]),
            pa.array([None], pa.string()),
            pa.array([""]),
            pa.array([[]], pa.list_(pa.string())),
            pa.array([None], pa.list_(pa.string())),
            pa.array([[""]]),
            pa.array(["", ""]),
            pa.array(["ab", "c"]),
            pa.array(["a", "bc"]),
            pa.array([["a"], ["b"]]),
            pa.array([["a", "b"], []]),
        )
    ]
    assert len(set(hashes)) == len(hashes)


def test_names_order_and_count_of_columns_and_rows_count():
    a, b = pa.array([1, 2]), pa.array([3, 4])
    base = fingerprint_of(pa.table({"a": a, "b": b}))
    for other, told in (
        (pa.table({"b": b, "a": a}), "a"),
        (pa.table({"a": a, "c": b}), "b"),
        (pa.table({"a": a}), "b"),
        (pa.table({"a": a, "b": b, "c": a}), "c"),
        (pa.table({"a": a.slice(1), "b": b.slice(1)}), "a"),
    ):
        found = fingerprint_of(other)
        assert found.content_hash != base.content_hash
        assert base.differing_column(found) == told


def test_metadata_does_not_count_and_documents_come_back():
    plain = pa.table({"a": [1]})
    noted = plain.replace_schema_metadata({b"x": b"y"})
    found = fingerprint_of(noted)
    assert found == fingerprint_of(plain)
    assert Fingerprint.from_document(found.to_document()) == found


def test_blocks_are_cut_alike_over_their_limit():
    """Past one block of 65,536 rows the size of the pieces still does not matter."""
    table = pa.table({"a": np.arange(200_000), "s": [f"{n % 977}" for n in range(200_000)]})
    wanted = fingerprint_of(table)
    for step in (65_536, 65_535, 70_001, 131_072):
        streamed = ContentHash(table.schema)
        for start in range(0, 200_000, step):
            streamed.update(table.slice(start, step))
        assert streamed.fingerprint() == wanted


@pytest.mark.parametrize("rows", [0, 1])
def test_tables_without_rows_have_a_hash_of_their_type(rows):
    ints = fingerprint_of(pa.table({"a": pa.array([None] * rows, pa.int64())}))
    text = fingerprint_of(pa.table({"a": pa.array([None] * rows, pa.string())}))
    assert ints.content_hash != text.content_hash
