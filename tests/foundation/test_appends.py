"""Named appends to a Delta table: once each, whole or not at all, told before they are visible."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from foundation import delta
from foundation.appends import AppendTable
from foundation.errors import Conflict, InvalidInput, LimitExceeded
from foundation.files.local import LocalFiles

SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.string())])


def rows(*values: int) -> pa.Table:
    return pa.table({"b": ["x"] * len(values), "a": pa.array(values, pa.int32())})


@pytest.fixture
def table(tmp_path: Path) -> AppendTable:
    return AppendTable(LocalFiles(tmp_path), "t", SCHEMA, title="t")


def held(table: AppendTable) -> list[int]:
    return [value for part in table.read(table.files()) for value in part.column("a").to_pylist()]


def test_parts_are_one_append_cast_to_the_columns(table: AppendTable, tmp_path: Path) -> None:
    assert not table.holds("one")
    assert table.files() == []
    assert table.append("one", [rows(1, 2), rows(3)], at=5_000_000) == 3
    assert table.holds("one")
    assert [(file.name, file.rows, file.modified_at) for file in table.files()] == [("one", 3, 5000)]
    assert pl.read_delta(str(tmp_path / "t")).to_dict(as_series=False) == {"a": [1, 2, 3], "b": ["x"] * 3}


def test_the_same_name_replaces_and_others_stay(table: AppendTable) -> None:
    table.append("one", [rows(1)], at=1_000)
    table.append("one-two", [rows(2)], at=2_000)
    table.append("one", [rows(3)], at=3_000)
    assert held(table) == [3, 2]


def test_an_existing_table_keeps_its_columns(table: AppendTable, tmp_path: Path) -> None:
    table.append("one", [rows(1)], at=1)
    other = AppendTable(LocalFiles(tmp_path), "t", pa.schema([("a", pa.string())]), title="t")
    with pytest.raises(InvalidInput, match="do not fit"):
        other.append("two", [pa.table({"a": ["1"]})], at=2)
    with pytest.raises(InvalidInput, match="'c' is not in"):
        other.append("two", [pa.table({"a": [1], "b": ["x"], "c": [1]})], at=2)
    assert held(other) == [1]
    assert len(list((tmp_path / "t").glob("*.parquet"))) == 1


def test_a_failure_before_the_commit_leaves_nothing(table: AppendTable, tmp_path: Path) -> None:
    seen: list[int] = []

    def refuse() -> None:
        seen.append(len(list((tmp_path / "t").glob("*.parquet"))))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table.append("one", [rows(1)], at=1, before=refuse)
    assert seen == [1]
    assert list((tmp_path / "t").glob("*.parquet")) == []
    assert not table.holds("one")
    assert table.append("one", [rows(1)], at=1) == 1


def test_an_interrupt_after_the_commit_keeps_the_file(table: AppendTable, monkeypatch: pytest.MonkeyPatch) -> None:
    real = delta.commit

    def commit_and_die(*args: object, **options: object) -> None:
        real(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr("foundation.appends.delta.commit", commit_and_die)
    with pytest.raises(KeyboardInterrupt):
        table.append("one", [rows(1)], at=1)
    assert table.holds("one")
    assert held(table) == [1]


def test_a_full_disk_is_named_and_leaves_nothing(
    table: AppendTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    table.append("one", [rows(1)], at=1)
    monkeypatch.setattr("foundation.appends.pq.ParquetWriter.write_table", full)
    with pytest.raises(LimitExceeded, match="disk is full"):
        table.append("two", [rows(2)], at=2)
    assert len(list((tmp_path / "t").glob("*.parquet"))) == 1


def test_somebody_else_under_the_same_name_is_a_conflict(table: AppendTable, tmp_path: Path) -> None:
    other = AppendTable(LocalFiles(tmp_path), "t", SCHEMA, title="t")
    with pytest.raises(Conflict, match="someone else"):
        table.append("one", [rows(1)], at=1, before=lambda: other.append("one", [rows(2)], at=1) and None)
    assert held(table) == [2]
