"""Retrieval without a spine: each key's records in a range, as they were."""

from __future__ import annotations

from datetime import datetime

import pyarrow.parquet as pq
import pytest
from places import Place, at

from featurestore.datasets.retrieval import retrieve
from foundation.errors import InvalidInput, NotFound


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    one = Place(tmp_path_factory.mktemp("place"))
    one.create("w", "k", [("k", "String"), ("at", "Timestamp"), ("x", "Integral"), ("y", "List<Integral>")])
    one.write("w", [{"k": key, "at": at(n), "x": n, "y": [n]} for n in range(4) for key in ("b", "a")])
    one.write(
        "w",
        [
            {"k": "a", "at": at(2), "x": 22, "replaces": True, "write": at(50)},
            {"k": "b", "at": at(3), "deleted": True, "replaces": True},
            {"k": "c", "at": at(1), "x": 9, "expires": at(2)},
        ],
    )
    yield one
    one.close()


def test_one_record_per_key_and_instant_in_order(place):
    found = retrieve(place, "w", start=at(1), end=at(3), features=["x"])
    wanted = [("a", 1, 1), ("a", 2, 22), ("a", 3, 3), ("b", 1, 1), ("b", 2, 2), ("c", 1, 9)]
    table = found.to_arrow()
    assert table.column_names == ["k", "at", "x"]
    assert [(row["k"], row["at"], row["x"]) for row in table.to_pylist()] == [(k, at(t), x) for k, t, x in wanted]
    assert found.to_polars().height == 6
    assert found.batches().read_all().equals(table)


def test_as_of_and_deletes(place):
    before = retrieve(place, "w", start=at(2), as_of=at(49), features="x").to_arrow()
    assert 22 not in before["x"].to_pylist()
    passed = retrieve(place, "w", start=at(3), features=["x"], include_deleted=True).to_arrow()
    assert passed["x"].to_pylist() == [3, 3]


def test_all_features_and_files(place, tmp_path):
    found = retrieve(place, "w")
    assert found.schema.names == ["k", "at", "x", "y"]
    assert found.write_parquet(tmp_path / "r.parquet") == found.to_arrow().num_rows == 8
    assert pq.read_table(tmp_path / "r.parquet")["y"].to_pylist()[0] == [0]


def test_a_range_without_records_keeps_its_columns(place):
    found = retrieve(place, "w", start=at(500))
    assert found.to_arrow().schema == found.schema
    assert found.to_arrow().num_rows == 0
    assert found.batches().read_all().num_rows == 0


def test_what_makes_no_sense_is_refused(place):
    with pytest.raises(NotFound):
        retrieve(place, "v")
    with pytest.raises(InvalidInput, match="'xx'"):
        retrieve(place, "w", features=["xx"])
    with pytest.raises(InvalidInput, match="no time zone"):
        retrieve(place, "w", start=datetime(2024, 1, 1))
    with pytest.raises(InvalidInput, match="ends before"):
        retrieve(place, "w", start=at(2), end=at(1))
