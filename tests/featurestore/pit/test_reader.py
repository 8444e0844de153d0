"""Runs are read by row group; what is wrong with a file is said with its name."""

from __future__ import annotations

import dataclasses

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from histories import KEYS, store, table_of, values_of
from oracle import Rec

from featurestore.offline import Run
from featurestore.pit.reader import Facts, Reader, Unit, Wanted, overlapping_runs
from foundation.errors import NotFound, PlatformError

ALL = Wanted(*[True] * len(Wanted._fields))


def rows_for(count, **options):
    return [
        Rec((place // 3,), place, -1 - place, 100 + place, values=values_of(place), **options) for place in range(count)
    ]


def replaced(snapshot, change):
    """Rewrite the first run with its table changed, as another tool would."""
    path = snapshot.files.locate(f"t/{snapshot.runs[0].path}")
    pq.write_table(change(pq.read_table(path)), path, row_group_size=100)
    return snapshot


@pytest.mark.parametrize("statistics", [True, False])
def test_footers_prove_what_need_not_be_read(tmp_path, statistics):
    late = dataclasses.replace(rows_for(1)[0], known=7, expires=9, deleted=True, hard=True, offline_only=True)
    snapshot = store(tmp_path, "int", [(rows_for(6), 103, 3, False, statistics), ([late], 0, 3, False, statistics)])
    units = Reader(snapshot).units
    assert [(unit.number, unit.run, unit.group, unit.rows) for unit in units] == [
        (0, 0, 0, 3),
        (1, 0, 1, 3),
        (2, 1, 0, 1),
    ]
    if not statistics:
        assert all(unit.bounds is None and unit.facts.events is None and all(unit.facts[2:]) for unit in units)
        return
    assert [unit.bounds for unit in units] == [(0, 0), (1, 1), (0, 0)]
    assert [unit.facts.events for unit in units] == [(0, 2), (3, 5), (0, 0)]
    assert [unit.facts.writes for unit in units] == [(103, 103), (103, 105), (100, 100)]
    assert [any(unit.facts[2:]) for unit in units] == [False, False, True]
    assert all(units[2].facts[2:])


@pytest.mark.parametrize("statistics", [True, False])
def test_decoded_columns(tmp_path, statistics):
    rows = rows_for(4)
    rows[1] = dataclasses.replace(rows[1], known=7, deleted=True, expires=50)
    snapshot = store(tmp_path, "int", [(rows, 102, 100, False, statistics)])
    reader = Reader(snapshot)
    decoded = reader.decode(reader.units[0], ALL)
    assert decoded.starts.tolist() == [0, 3]
    assert [key.tolist() for key in decoded.keys] == [[0, 1]]
    assert decoded.events.tolist() == [0, 1, 2, 3]
    assert decoded.rank.tolist() == [-1, -2, -3, -4]
    assert decoded.deleted.tolist() == [False, True, False, False]
    assert decoded.expires[1] == 50
    assert decoded.writes.tolist() == [102, 102, 102, 103]
    assert decoded.known.tolist() == [102, 7, 102, 103]
    assert decoded.declared.tolist() == [False, True, False, False]
    assert decoded.hard is None
    bare = reader.decode(reader.units[0], Wanted())
    assert bare[3:] == (None,) * 8


def test_a_missing_column_is_null_and_a_narrow_one_is_cast(tmp_path):
    snapshot = store(tmp_path, "int", [(rows_for(3), 0, 100, False, True)])
    kinds = {"id": pa.int32(), "f": pa.float32(), "s": pa.large_string()}

    def change(table):
        fields = [field.with_type(kinds.get(field.name, field.type)) for field in table.schema]
        return table.cast(pa.schema(fields)).drop_columns(["b", "tilth_hard", "tilth_known_at", "is_deleted"])

    reader = Reader(replaced(snapshot, change))
    got = reader.read(reader.units[0], ["id", "f", "s", "b"])
    assert {name: array.type for name, array in got.items()} == {
        name: reader.schema.field(name).type for name in ("id", "f", "s", "b")
    }
    assert got["b"].null_count == 3
    assert got["s"].to_pylist() == [None, "v1", "v2"]
    assert reader.units[0].bounds is None
    facts = reader.units[0].facts
    assert not any([facts.hards, facts.declares, facts.deletes])


@pytest.mark.parametrize(
    ("kind", "order", "what"),
    [
        ("int", [3, 4, 5, 0, 1, 2], "keys do not rise"),
        ("int", [1, 0, 2, 3, 4, 5], "event times of one key do not rise"),
        ("text", [3, 4, 5, 0, 1, 2], "keys do not rise"),
        ("pair", [3, 4, 5, 0, 1, 2], "keys do not rise"),
    ],
)
def test_an_unsorted_file_is_named(tmp_path, kind, order, what):
    one, other = sorted(KEYS[kind][1][:2])
    rows = [Rec(one if place < 3 else other, place, -1 - place, 5, values=values_of(place)) for place in range(6)]
    snapshot = replaced(store(tmp_path, kind, [(rows, 0, 100, False, True)]), lambda table: table.take(pa.array(order)))
    reader = Reader(snapshot)
    with pytest.raises(PlatformError, match=rf"run-0\.parquet is not a sorted run: {what} in row group 0") as caught:
        reader.decode(reader.units[0], Wanted())
    assert caught.value.subject == "file t/run-0.parquet"


def test_ranks_out_of_order_are_noticed_when_they_are_read(tmp_path):
    rows = [Rec((1,), 5, rank, 5, values=values_of(1)) for rank in (-2, -1)]
    snapshot = replaced(store(tmp_path, "int", [(rows, 0, 9, False, True)]), lambda table: table.take(pa.array([1, 0])))
    reader = Reader(snapshot)
    with pytest.raises(PlatformError, match="ranks at one event time"):
        reader.decode(reader.units[0], Wanted(rank=True))


@pytest.mark.parametrize("name", ["id", "at", "tilth_rank"])
def test_a_null_where_none_may_be(tmp_path, name):
    def change(table):
        place = table.schema.get_field_index(name)
        return table.set_column(place, table.schema.field(place), pa.nulls(3, table.schema.field(place).type))

    reader = Reader(replaced(store(tmp_path, "int", [(rows_for(3), 0, 9, False, True)]), change))
    with pytest.raises(PlatformError, match=rf"run-0\.parquet is not a sorted run: a null in '{name}'"):
        reader.decode(reader.units[0], ALL)


def test_a_file_without_our_columns_is_named(tmp_path):
    snapshot = store(tmp_path, "int", [(rows_for(3), 0, 9, False, True)])
    with pytest.raises(PlatformError, match=r"run-0\.parquet lacks column 'tilth_rank'"):
        Reader(replaced(snapshot, lambda table: table.drop_columns(["tilth_rank"])))


def test_damaged_and_missing_files_are_named(tmp_path):
    snapshot = store(tmp_path, "int", [(rows_for(600), 0, 1000, False, True)])
    path = tmp_path / "t" / "run-0.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes(len(whole) // 2 - 100) + whole[len(whole) // 2 :])
    reader = Reader(snapshot)
    with pytest.raises(PlatformError, match=r"t/run-0\.parquet is damaged"):
        reader.read(reader.units[0], reader.schema.names)
    path.write_bytes(whole[:-20])
    with pytest.raises(PlatformError, match=r"t/run-0\.parquet is damaged"):
        Reader(snapshot)
    path.unlink()
    with pytest.raises(NotFound, match=r"t/run-0\.parquet is gone"):
        Reader(snapshot)


def test_files_other_writers_make_are_read(tmp_path):
    """polars writes strings, statistics and pages in its own way."""
    rows = [Rec((name * 40,), 1, -1 - place, 5, values=values_of(place)) for place, name in enumerate(["a", "ä", "😀"])]
    snapshot = store(tmp_path, "text", [(rows, 0, 9, False, True)])
    frame = pl.from_arrow(table_of(snapshot.group, rows)).sort("id")
    frame.write_parquet(snapshot.files.locate("t/other.parquet"), row_group_size=1)
    reader = Reader(dataclasses.replace(snapshot, runs=(Run("other.parquet", 3, 0),)))
    for unit, name in zip(reader.units, ["a", "ä", "😀"], strict=True):
        # bounds may be cut in the middle of a letter; then they are not used
        assert unit.bounds is None or unit.bounds[0] <= name * 40 <= unit.bounds[1]
        assert reader.decode(unit, ALL).keys[0].to_pylist() == [name * 40]
        assert reader.read(unit, ["id"])["id"].type == pa.string()


def test_more_runs_than_a_thread_keeps_open(tmp_path):
    rows = rows_for(40)
    snapshot = store(tmp_path, "int", [([row], 0, 9, False, True) for row in rows])
    reader = Reader(snapshot)
    for _ in range(2):
        assert [reader.decode(unit, Wanted()).events.tolist() for unit in reader.units] == [
            [place] for place in range(40)
        ]


def unit_of(run, low, high):
    facts = Facts(None, None, *[False] * 5)
    return Unit(0, run, 0, 1, None if low is None else (low, high), facts)


@pytest.mark.parametrize(
    ("units", "shared"),
    [
        ([], set()),
        ([(0, 1, 5), (0, 5, 9)], set()),
        ([(0, 1, 5), (1, 6, 9)], set()),
        ([(0, 1, 5), (1, 5, 9)], {0, 1}),
        ([(0, 1, 9), (1, 2, 3), (2, 4, 5), (3, 10, 11)], {0, 1, 2}),
        ([(0, 1, 9), (1, 2, 3), (2, 8, 12), (3, 11, 11)], {0, 1, 2, 3}),
        ([(0, "a", "b"), (1, "b", "c")], {0, 1}),
        ([(0, 1, 2), (1, None, None), (2, 8, 9)], {0, 1, 2}),
    ],
)
def test_runs_that_may_share_a_key(units, shared):
    assert overlapping_runs([unit_of(*unit) for unit in units]) == shared
