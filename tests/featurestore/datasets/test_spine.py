"""Whatever a spine comes as becomes the same rows; what cannot be understood is refused by name."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.datasets.moments import instants_of
from featurestore.datasets.spine import open_spine
from featurestore.groups import define_group
from foundation.clock import instant_of
from foundation.errors import InvalidInput, NotFound
from foundation.schema import Schema

MOMENTS = [datetime(2024, 1, 1, 12, tzinfo=UTC), datetime(2024, 3, 31, 1, 30, tzinfo=UTC)]
TABLE = pa.table({"id": pa.array([7, 8]), "ts": pa.array(MOMENTS, pa.timestamp("us", "UTC")), "name": ["a", None]})
ROWS = [{"id": 7, "ts": MOMENTS[0], "name": "a"}, {"id": 8, "ts": MOMENTS[1], "name": None}]


def rows_of(spine):
    return [row for part in spine.slices() for row in part.to_pylist()]


def keys_of(spine, columns, on=None):
    names = [name for name, _ in columns]
    group = define_group(
        "g", record_id=names, event_time="at", schema=Schema.of([*columns, ("at", "Timestamp"), ("f", "Fractional")])
    )
    pairs = tuple(zip(names, on or names, strict=True))
    parts = [spine.keys(piece, group, pairs, 0) for piece in spine.slices()]
    return pa.concat_tables([keys for keys, _ in parts]).to_pylist(), np.concatenate([valid for _, valid in parts])


@pytest.mark.parametrize(
    "make",
    [
        lambda tmp: TABLE,
        lambda tmp: TABLE.to_reader(),
        lambda tmp: TABLE.to_batches()[0],
        lambda tmp: pl.DataFrame(pl.from_arrow(TABLE)),
        lambda tmp: pl.DataFrame(pl.from_arrow(TABLE)).lazy(),
        lambda tmp: TABLE.to_pandas(),
        lambda tmp: ROWS,
        lambda tmp: pq.write_table(TABLE, tmp / "s.parquet") or tmp / "s.parquet",
        lambda tmp: pq.write_table(TABLE, tmp / "s.parquet") or str(tmp / "s.parquet"),
        lambda tmp: pacsv.write_csv(TABLE, tmp / "s.csv") or tmp / "s.csv",
        lambda tmp: pq.write_table(TABLE, tmp / "s.parquet") or f"select * from '{tmp / 's.parquet'}' order by id",
    ],
    ids=["table", "reader", "batch", "polars", "lazy", "pandas", "list", "parquet", "text-path", "csv", "sql"],
)
def test_every_source_gives_the_same_rows(make, tmp_path):
    spine = open_spine(make(tmp_path), "ts")
    assert spine.rows == 2
    found = rows_of(spine)
    assert [row["id"] for row in found] == [7, 8]
    assert [row["name"] or None for row in found] == ["a", None]
    times, valid = spine.moments(next(spine.slices()), "ts", 0)
    assert times.tolist() == [instant_of(moment) for moment in MOMENTS]
    assert valid.all()
    assert rows_of(spine) == found, "a spine can be read again"


def test_globs_and_folders_are_read_in_file_order(tmp_path):
    for place in range(3):
        pq.write_table(TABLE.slice(place % 2, 1), tmp_path / f"{place}.parquet")
    for source in (tmp_path / "*.parquet", str(tmp_path)):
        assert [row["id"] for row in rows_of(open_spine(source, "ts"))] == [7, 8, 7]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
def test_slices_cut_exactly_and_keep_order(size, tmp_path):
    table = pa.table({"id": range(23), "ts": [float(n) for n in range(23)]})
    pq.write_table(table, tmp_path / "s.parquet", row_group_size=4)
    for source in (table, tmp_path / "s.parquet"):
        parts = list(open_spine(source, "ts").slices(size, ["id"]))
        assert [part.num_rows for part in parts] == [min(size, 23 - start) for start in range(0, 23, size)]
        assert pa.concat_tables(parts).to_pydict() == {"id": list(range(23))}


INSTANT = instant_of(datetime(2024, 7, 1, 10, 30, 15, 250_000, tzinfo=UTC))


@pytest.mark.parametrize(
    ("cells", "zone"),
    [
        (pa.array([INSTANT // 1000], pa.timestamp("ms", "UTC")), None),
        (pa.array([INSTANT * 1000 + 999], pa.timestamp("ns", "Asia/Tokyo")), None),
        (pa.array(["2024-07-01T10:30:15.250Z"]), None),
        (pa.array(["2024-07-01 12:30:15.25+02:00"], pa.large_string()), None),
        (pa.array(["2024-07-01T10:30:15.250Z"]).dictionary_encode(), None),
        (pa.array(["2024-07-01T06:30:15.250"]), "America/New_York"),
        (pa.array([INSTANT / 1e6]), None),
        (pa.array([datetime(2024, 7, 1, 12, 30, 15, 250_000)], pa.timestamp("us")), "Europe/Berlin"),
    ],
    ids=["ms", "ns", "text", "offset", "dictionary", "zone", "seconds", "naive"],
)
def test_moments_of_every_kind_are_one_instant(cells, zone):
    assert instants_of(pa.chunked_array([cells]), "ts", zone)[0].tolist() == [INSTANT]


@given(st.integers(-(10**15), 4 * 10**15))
def test_finer_than_a_microsecond_is_cut_off_downwards(nanos):
    cells = pa.chunked_array([pa.array([nanos], pa.timestamp("ns", "UTC"))])
    assert instants_of(cells, "ts", None)[0].tolist() == [nanos // 1000]


def test_whole_seconds_and_days():
    assert instants_of(pa.chunked_array([pa.array([90])]), "ts", None)[0].tolist() == [90_000_000]
    day = pa.chunked_array([pa.array([date(1970, 1, 2)])])
    assert instants_of(day, "ts", "UTC")[0].tolist() == [86_400_000_000]


def test_null_and_nan_moments_are_not_valid():
    for cells in (pa.array([None, 1.0, float("nan")]), pa.array([None, "2024-01-01T00:00:00Z", None])):
        instants, valid = instants_of(pa.chunked_array([cells]), "ts", None)
        assert valid.tolist() == [False, True, False]
        assert instants[0] == instants[2] == 0


@pytest.mark.parametrize(
    ("spine", "told", "fix"),
    [
        ({"ts": [datetime(2024, 1, 1)]}, "'ts'", 'timezone="UTC"'),
        ({"ts": ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00"]}, "row 1: 'ts' = '2024-01-01T00:00:00'", "timezone="),
        ({"ts": ["2024-01-01T00:00:00Z", None, "soon"]}, "row 2: 'ts' = 'soon'", "ISO 8601"),
        ({"ts": [1_700_000_000, 1_700_000_000_000]}, "row 1: 'ts' = 1700000000000", "not milliseconds"),
        ({"ts": [1.5, float("inf")]}, "row 1: 'ts' = inf", "epoch seconds"),
        ({"ts": [True]}, "'ts' is bool", "ISO 8601"),
        ({"ts": [date(2024, 1, 1)]}, "date32", "timezone="),
    ],
    ids=["naive", "naive-text", "text", "milliseconds", "infinite", "boolean", "date"],
)
def test_moments_that_are_none_are_named(spine, told, fix):
    def read():
        opened = open_spine(pa.table(spine), "ts")
        opened.moments(next(opened.slices()), "ts", 0)

    with pytest.raises(InvalidInput) as caught:
        read()
    assert told in caught.value.message
    assert fix in caught.value.hint


def test_row_numbers_count_over_slices():
    spine = open_spine(pa.table({"ts": ["2024-01-01T00:00:00Z"] * 5 + ["never"]}), "ts")
    *before, last = spine.slices(2)
    for place, piece in enumerate(before):
        assert spine.moments(piece, "ts", 2 * place)[1].all()
    with pytest.raises(InvalidInput, match="row 5"):
        spine.moments(last, "ts", 4)


def test_mixed_zones_in_python_rows_are_refused():
    rows = [{"ts": datetime(2024, 1, 1, tzinfo=UTC)}, {"ts": datetime(2024, 1, 1)}]
    with pytest.raises(InvalidInput, match="'ts' mixes"):
        open_spine(rows, "ts")


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        (TABLE, {"event_time": "tss"}, "no column 'tss'"),
        (TABLE, {"event_time": "ts", "columns": ["id", "nam"]}, "no column 'nam'"),
        (TABLE, {"event_time": "ts", "columns": ["id", "id"]}, "twice"),
        (TABLE, {"event_time": "ts", "zone": "Mars/Base"}, "time zone 'Mars/Base'"),
        (TABLE.slice(0, 0), {"event_time": "ts"}, "the spine is empty"),
        ([], {"event_time": "ts"}, "the spine is empty"),
        (pa.table([[1], [2], [1.0]], names=["id", "id", "ts"]), {"event_time": "ts"}, "'id'"),
        (pd.DataFrame([[1, 2.0]], columns=[1, "ts"]), {"event_time": "ts"}, "not text"),
        ([{"id": 1, "ts": 1.0}, {"id": "x", "ts": 2.0}], {"event_time": "ts"}, "'id' mixes"),
        (17, {"event_time": "ts"}, "int"),
    ],
    ids=["time", "column", "twice", "zone", "empty", "no-rows", "duplicate", "unnamed", "mixed", "number"],
)
def test_a_spine_that_cannot_be_is_refused(source, options, told):
    with pytest.raises(InvalidInput) as caught:
        open_spine(source, **options)
    assert told in caught.value.message


def test_missing_columns_are_listed():
    with pytest.raises(InvalidInput) as caught:
        open_spine(TABLE, "tss")
    assert "did you mean 'ts'" in caught.value.hint
    assert "id, ts, name" in caught.value.hint


def test_files_that_are_not_there_or_damaged(tmp_path):
    with pytest.raises(NotFound, match=r"gone\.parquet"):
        open_spine(tmp_path / "gone.parquet", "ts")
    with pytest.raises(NotFound, match=r"gone\.csv"):
        open_spine(tmp_path / "gone.csv", "ts")
    pq.write_table(TABLE, tmp_path / "s.parquet")
    data = (tmp_path / "s.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidInput, match=r"cut\.parquet is not a readable"):
        open_spine(tmp_path / "cut.parquet", "ts")
    (tmp_path / "empty.parquet").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"empty\.parquet"):
        open_spine(tmp_path / "empty.parquet", "ts")


@pytest.mark.parametrize(
    ("cells", "kind", "wanted"),
    [
        (pa.array([1, None], pa.int8()), "Integral", [1, None]),
        (pa.array([1, 2], pa.uint64()), "Integral", [1, 2]),
        (pa.array([1.0, None, float("nan"), -3.0]), "Integral", [1, None, None, -3]),
        (pa.array(["a", None]).dictionary_encode(), "String", ["a", None]),
        (pa.array(["a"], pa.large_string()), "String", ["a"]),
        (pa.array([True]), "Boolean", [True]),
        (pa.nulls(2), "Integral", [None, None]),
        (pa.array([date(2024, 1, 1)], pa.date64()), "Date", [date(2024, 1, 1)]),
        (
            pa.array([MOMENTS[0]], pa.timestamp("s", "Asia/Tokyo")),
            "Timestamp",
            [MOMENTS[0].astimezone(timezone(timedelta(0)))],
        ),
    ],
    ids=["int8", "uint64", "floats", "dictionary", "large", "boolean", "null", "date", "timestamp"],
)
def test_keys_take_the_group_s_type(cells, kind, wanted):
    spine = open_spine(pa.table({"k": cells, "ts": [1.0] * len(cells)}), "ts")
    keys, valid = keys_of(spine, [("k", kind)])
    assert [row["k"] for row in keys] == wanted
    assert valid.tolist() == [value is not None for value in wanted]


@pytest.mark.parametrize(
    ("cells", "kind", "told"),
    [
        (pa.array(["1"]), "Integral", "'k' is string but record_id 'k' is Integral"),
        (pa.array([1]), "String", "'k' is int64 but record_id 'k' is String"),
        (pa.array([1]), "Boolean", "Boolean"),
        (pa.array([1.5]), "Integral", "row 0: spine column 'k' = 1.5"),
        (pa.array([1e19]), "Integral", "row 0"),
        (pa.array([2**64 - 1], pa.uint64()), "Integral", "does not fit record_id 'k'"),
        (pa.array([date(2024, 1, 1)]), "Timestamp", "date32"),
        (pa.array([datetime(2024, 1, 1)]), "Timestamp", "no time zone"),
    ],
    ids=["text", "number", "boolean", "fraction", "huge", "unsigned", "date", "naive"],
)
def test_keys_of_another_type_are_refused(cells, kind, told):
    spine = open_spine(pa.table({"k": cells, "ts": [1.0]}), "ts")
    with pytest.raises(InvalidInput) as caught:
        keys_of(spine, [("k", kind)])
    assert told in caught.value.message


def test_composite_keys_keep_their_order():
    spine = open_spine(pa.table({"b": [1, 2], "a": ["x", None], "ts": [1.0, 2.0]}), "ts")
    keys, valid = keys_of(spine, [("left", "String"), ("right", "Integral")], on=["a", "b"])
    assert keys == [{"left": "x", "right": 1}, {"left": None, "right": 2}]
    assert valid.tolist() == [True, False]
