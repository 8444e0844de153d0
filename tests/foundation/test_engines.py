"""Sources of every kind: the same rows out of each, batches that start again, damage named."""

from __future__ import annotations

import gzip
import json
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.content import TableHash, hash_table
from foundation.engines import memory, scan
from foundation.engines.memory import MIXED, Kept, cells_to_arrow, rebatch
from foundation.errors import InvalidInput, NotFound, NotSupported

ROWS = [
    {"id": "001", "n": 1, "x": 1.5, "ok": True},
    {"id": "002", "n": None, "x": None, "ok": None},
    {"id": 'é,"q"\n', "n": -3, "x": 2.0, "ok": False},
]
TABLE = pa.Table.from_pylist(ROWS)


def rows_of(source: Any, **options: Any) -> list[dict[str, Any]]:
    return [row for batch in scan(source, **options).batches() for row in batch.to_pylist()]


def write_csv(folder: Path) -> Path:
    TABLE.to_pandas().to_csv(folder / "a.csv", index=False)
    return folder / "a.csv"


def write_json_lines(folder: Path) -> Path:
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    return folder / "a.jsonl"


def write_json(folder: Path) -> Path:
    (folder / "a.json").write_text(json.dumps(ROWS))
    return folder / "a.json"


def write_parquet(folder: Path) -> Path:
    pq.write_table(TABLE, folder / "a.parquet", row_group_size=1)
    return folder / "a.parquet"


def write_feather(folder: Path) -> Path:
    feather.write_feather(TABLE, folder / "a.feather")
    return folder / "a.feather"


def write_stream(folder: Path) -> Path:
    with pa.ipc.new_stream(str(folder / "a.arrow"), TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=2)
    return folder / "a.arrow"


def write_delta(folder: Path) -> Path:
    pl.from_arrow(TABLE).write_delta(folder / "delta")
    return folder / "delta"


def write_sqlite(folder: Path) -> str:
    with closing(sqlite3.connect(folder / "a.db")) as connection:
        connection.execute("create table t (id text, n integer, x real, ok boolean)")
        connection.executemany("insert into t values (:id, :n, :x, :ok)", ROWS)
        connection.commit()
    return f"sqlite://{folder}/a.db?table=t"


SOURCES: dict[str, Callable[[Path], Any]] = {
    "json lines": write_json_lines,
    "json": write_json,
    "parquet": write_parquet,
    "feather": write_feather,
    "arrow stream": write_stream,
    "delta": write_delta,
    "table": lambda _: TABLE,
    "batch": lambda _: TABLE.to_batches()[0],
    "reader": lambda _: TABLE.to_reader(max_chunksize=1),
    "polars": lambda _: pl.from_arrow(TABLE),
    "lazy": lambda _: pl.from_arrow(TABLE).lazy(),
    "dicts": lambda _: ROWS,
    "path text": lambda folder: str(write_parquet(folder)),
    "file url": lambda folder: write_parquet(folder).as_uri(),
    "glob": lambda folder: str(write_parquet(folder).parent / "*.parquet"),
    "folder": lambda folder: write_parquet(folder).parent,
    "query": lambda folder: f"select * from '{write_parquet(folder)}'",
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_same_rows_as_often_as_asked(name: str, tmp_path: Path) -> None:
    found = scan(SOURCES[name](tmp_path))
    for _ in range(2):
        assert [row for batch in found.batches(2) for row in batch.to_pylist()] == ROWS
    assert all(batch.num_rows <= 2 for batch in found.batches(2))
    assert found.schema.names == ["id", "n", "x", "ok"]
    assert found.rows in (None, 3)
    assert not found.text


def test_pandas_frames_keep_named_indexes_only() -> None:
    frame = TABLE.to_pandas()
    assert scan(frame).schema.names == ["id", "n", "x", "ok"]
    assert scan(frame.set_index("id")).schema.names == ["id", "n", "x", "ok"]
    assert [row["x"] for row in rows_of(frame)] == [1.5, None, 2.0]
    mixed = pd.DataFrame({"a": [1, "x", None]}, dtype=object)
    assert scan(mixed).schema.field("a").type == MIXED


def test_duckdb_relations_and_queries_over_a_source(tmp_path: Path) -> None:
    with closing(duckdb.connect(":memory:")) as connection:
        assert rows_of(connection.from_arrow(TABLE)) == ROWS
    assert rows_of(TABLE, sql="select id, n * 2 as n from source where n > 0") == [{"id": "001", "n": 2}]
    assert rows_of(write_sqlite(tmp_path), sql="select count(*) as n from t") == [{"n": 3}]
    assert rows_of(tmp_path / "a.db", sql="select max(x) as x from t") == [{"x": 2.0}]


def test_sqlite_files_without_a_query(tmp_path: Path) -> None:
    expected = [{**row, "ok": None if row["ok"] is None else int(row["ok"])} for row in ROWS]
    assert rows_of(write_sqlite(tmp_path)) == expected
    assert rows_of(tmp_path / "a.db") == expected


def test_csv_is_text_and_the_empty_field_is_null(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\ufeffid,n,note\n001,1e3,"a\nb"\n"",,x\n')
    found = scan(path)
    assert found.text
    assert found.schema.types == [pa.string()] * 3
    assert rows_of(path) == [
        {"id": "001", "n": "1e3", "note": "a\nb"},
        {"id": None, "n": None, "note": "x"},
    ]
    (tmp_path / "b.tsv").write_text("id\tn\n001\ta,b\n")
    assert rows_of(tmp_path / "b.tsv") == [{"id": "001", "n": "a,b"}]
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"id,n\n007,1\n"))
    assert rows_of(tmp_path / "c.csv.gz") == [{"id": "007", "n": "1"}]


def test_json_lines_that_disagree_keep_every_value(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1, "b": 12345678901234567890}\n\n{"a": "x", "c": [1, 2]}\n{"a": 1.5, "b": null}')
    found = next(scan(path).batches())
    assert found.schema.field("a").type == MIXED
    assert found.column("a").cast(pa.string()).to_pylist() == ["1", '"x"', "1.5"]
    assert found.column("c").to_pylist() == [None, [1, 2], None]


def test_folders_are_read_in_order_and_missing_columns_are_null(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    pq.write_table(pa.table({"a": [3], "b": ["x"]}), tmp_path / "deep" / "2.parquet")
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "1.parquet")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "_skipped.parquet").write_text("no parquet")
    found = scan(tmp_path)
    assert found.rows == 3
    assert found.schema.names == ["a", "b"]
    assert rows_of(tmp_path) == [{"a": 1, "b": None}, {"a": 2, "b": None}, {"a": 3, "b": "x"}]
    assert rows_of([tmp_path / "deep" / "2.parquet", tmp_path / "1.parquet"])[0] == {"a": 3, "b": "x"}


# -- identity -------------------------------------------------------------------------------------------------------


def test_identity_is_content_not_place(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first, second = write_csv(tmp_path / "one"), write_csv(tmp_path / "two")
    os.utime(second, (1, 1))
    assert scan(first).identity == scan(str(second)).identity == scan(tmp_path / "one").identity
    second.write_text(second.read_text().replace("001", "003"))
    assert scan(first).identity != scan(second).identity
    assert scan([first, second]).identity != scan([second, first]).identity
    assert scan(write_parquet(tmp_path)).identity != scan(TABLE).identity


def test_identity_of_values_ignores_layout() -> None:
    pieces = pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(1)])
    coded = TABLE.set_column(0, "id", TABLE.column("id").dictionary_encode())
    sources = [
        TABLE,
        pieces,
        coded,
        pl.from_arrow(TABLE),
        pl.from_arrow(TABLE).lazy(),
        TABLE.to_reader(max_chunksize=1),
    ]
    assert len({scan(source).identity for source in sources}) == 1
    renamed = TABLE.rename_columns(["id", "n", "x", "yes"])
    changed = TABLE.set_column(1, "n", pa.array([1, 0, -3]))
    assert len({hash_table(each) for each in (TABLE, renamed, changed, TABLE.slice(1))}) == 4


nested = st.fixed_dictionaries(
    {
        "i": st.none() | st.integers(-(2**63), 2**63 - 1),
        "f": st.none() | st.floats(),
        "s": st.none() | st.text(max_size=3),
        "b": st.none() | st.booleans(),
        "l": st.none() | st.lists(st.none() | st.text(max_size=2), max_size=3),
        "r": st.none() | st.fixed_dictionaries({"u": st.none() | st.integers(0, 3)}),
        "d": st.none() | st.decimals(min_value=-99, max_value=99, places=2),
    }
)
KINDS = pa.schema(
    [
        ("i", pa.int64()),
        ("f", pa.float64()),
        ("s", pa.string()),
        ("b", pa.bool_()),
        ("l", pa.list_(pa.string())),
        ("r", pa.struct([("u", pa.int64())])),
        ("d", pa.decimal128(6, 2)),
    ]
)


@given(rows=st.lists(nested, max_size=12), cuts=st.lists(st.integers(0, 12), max_size=4), change=st.integers(0, 83))
def test_hash_depends_on_values_and_on_nothing_else(rows: list[dict[str, Any]], cuts: list[int], change: int) -> None:
    table = pa.Table.from_pylist(rows, schema=KINDS)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    digest = TableHash(KINDS)
    for start, end in pairwise(edges):
        digest.update(table.slice(start, end - start))
    assert digest.hexdigest() == hash_table(table)
    large = table.set_column(2, "s", table.column("s").cast(pa.large_string()))
    assert hash_table(large) == hash_table(table)
    if rows:
        row, name = change % len(rows), KINDS.names[change % 7]
        other = [dict(each) for each in rows]
        other[row][name] = (
            None if other[row][name] is not None else {"s": "", "b": False, "l": [], "r": {"u": 0}}.get(name, 0)
        )
        assert hash_table(pa.Table.from_pylist(other, schema=KINDS)) != hash_table(table)


# -- batches --------------------------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(0, 9), max_size=8), rows=st.integers(1, 7), size=st.sampled_from([1, 40, 10**9]))
def test_rebatching_keeps_order_and_bounds(sizes: list[int], rows: int, size: int) -> None:
    whole = pa.table({"a": np.arange(sum(sizes))})
    edges = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    parts = [whole.slice(start, length) for start, length in zip(edges, sizes, strict=False)]
    found = list(rebatch(parts, rows, size))
    assert [value for part in found for value in part.column("a").to_pylist()] == list(range(sum(sizes)))
    assert all(1 <= part.num_rows <= rows and part.nbytes <= max(size, 8) for part in found)


def test_large_results_go_to_a_file_that_goes_with_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "_IN_MEMORY", 1000)
    monkeypatch.setattr(memory.tempfile, "tempdir", str(tmp_path))
    whole = pa.table({"a": np.arange(10_000)})
    kept = Kept(whole.schema)
    for batch in whole.to_batches(max_chunksize=700):
        kept.add(batch)
    kept.close()
    assert len(list(tmp_path.iterdir())) == 1
    for _ in range(2):
        assert pa.concat_tables(kept.batches(999)).equals(whole)
    assert kept.identity == hash_table(whole)
    del kept
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([1, None], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([2**53 + 1, 1.5], MIXED),
        ([True, 1], MIXED),
        ([1, np.int64(2)], pa.int64()),
        ([2**63], MIXED),
        (["a", b"b"], MIXED),
        ([datetime(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC)], MIXED),
        ([datetime(2020, 1, 1, tzinfo=UTC), 5], MIXED),
        ([[datetime(2020, 1, 1)], None], MIXED),
        ([Decimal("1.5"), None], pa.decimal128(2, 1)),
        ([{"a": 1}, {"a": "x"}], MIXED),
        ([None], pa.null()),
    ],
)
def test_python_values_are_never_turned_into_each_other(cells: list[Any], kind: pa.DataType) -> None:
    found = cells_to_arrow(cells)
    assert found.type == kind
    assert found.null_count == cells.count(None)


# -- bad input ------------------------------------------------------------------------------------------------------


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path).read_bytes()
    cases = {
        "cut.parquet": whole[:-7],
        "torn.parquet": whole[:4] + bytes(len(whole) - 700) + whole[-696:],
        "empty.parquet": b"",
        "text.parquet": b"hello",
        "bad.arrow": b"x" * 40,
        "bad.feather": b"ARROW1\0\0" + b"x" * 40,
        "few.csv": b"a,b\n1,2\n3\n",
        "many.csv": b"a,b\n1,2\n3,4,5\n",
        "bytes.csv": b"a,b\n1,\xff\n",
        "none.csv": b"",
        "unnamed.csv": b"a,\n1,2\n",
        "bad.jsonl": b'{"a": 1}\n\n{"a": \n',
        "list.jsonl": b'{"a": 1}\n[1]\n',
        "bad.json": b'[{"a": 1},',
        "numbers.json": b"[1, 2]",
        "bad.csv.gz": b"not gzip",
        "bad.db": b"x" * 200,
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InvalidInput, match=re.escape(name)) as caught:
            rows_of(tmp_path / name)
        assert name in caught.value.subject
    for name, line in {"few.csv": 3, "many.csv": 3, "bad.jsonl": 3, "list.jsonl": 2}.items():
        with pytest.raises(InvalidInput, match=f"line {line}: "):
            rows_of(tmp_path / name)


@pytest.mark.parametrize("seed", range(40))
def test_parquet_with_any_bytes_changed_never_escapes_as_another_error(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(write_parquet(tmp_path).read_bytes())
    for _ in range(int(rng.integers(1, 4))):
        data[rng.integers(4, len(data))] = rng.integers(0, 256)
    (tmp_path / "a.parquet").write_bytes(bytes(data))
    try:
        rows_of(tmp_path / "a.parquet")
    except InvalidInput as error:
        assert "a.parquet" in error.subject  # noqa: PT017 - damage may also go unseen


def test_what_is_missing_is_not_found(tmp_path: Path) -> None:
    for source in (tmp_path / "no.csv", str(tmp_path / "*.csv"), tmp_path, f"sqlite://{tmp_path}/no.db"):
        with pytest.raises(NotFound):
            scan(source)
    with pytest.raises(NotFound, match="did you mean 't'"):
        scan(write_sqlite(tmp_path).replace("table=t", "table=tt"))


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    write_json_lines(tmp_path)
    bad: list[tuple[Any, str]] = [
        (5, "int is not a source"),
        ([5], "row 0 is int"),
        ([{1: 2}], "not text"),
        (tmp_path, "several formats"),
        (Path(__file__), "no known format"),
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), "'a' is in the source twice"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "'a' is in the source twice"),
        (pd.DataFrame([[1]], columns=[0]), "not text"),
        (pl.LazyFrame({"a": [1]}).select("b"), "lazy frame fails"),
        (pl.DataFrame({"a": [object()]}, schema={"a": pl.Object}), "Python objects"),
        ("sqlite:a.db", "not a SQLite source"),
    ]
    for source, said in bad:
        with pytest.raises(InvalidInput, match=said):
            scan(source)
    (tmp_path / "dup.csv").write_text("a,a\n1,2\n")
    with pytest.raises(InvalidInput, match="'a' is in the source twice"):
        scan(tmp_path / "dup.csv")


def test_an_empty_source_is_a_source_without_rows(tmp_path: Path) -> None:
    hint = pa.schema([("a", pa.int64())])
    assert scan([], schema_hint=hint).schema == hint
    assert list(scan([], schema_hint=hint).batches()) == []
    (tmp_path / "a.csv").write_text("a,b\n")
    assert list(scan(tmp_path / "a.csv").batches()) == []
    pq.write_table(hint.empty_table(), tmp_path / "a.parquet")
    assert list(scan(tmp_path / "a.parquet").batches()) == []


def test_an_engine_nobody_has_is_not_supported() -> None:
    from foundation.engines import open_engine

    with pytest.raises(NotSupported, match="spark"):
        open_engine("spark")
