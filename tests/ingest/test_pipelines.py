"""Pipelines over folders of files: each part once, stopped and gone on with, bad rows and bad parts told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import shaping

import featurestore
from featurestore import FeatureStore
from foundation.checks import Suite
from foundation.errors import InvalidInput, NotFound, NotSupported
from foundation.progress import Cancelled
from ingest import FileSource, GroupSink, Ingest, MemorySource, Pipeline, SqlSource, TableSink

SCHEMA = pa.schema([("id", pa.string()), ("t", pa.timestamp("us", tz="UTC")), ("v", pa.int64())])
POSITIVE = Suite.from_dict(
    {
        "name": "positive",
        "expectations": [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "v", "min_value": 0}}],
    }
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    opened = featurestore.open(tmp_path / "place")
    opened.create_group("g", record_id="id", event_time="t", schema=SCHEMA)
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "data"
    place.mkdir()
    for day in (1, 2, 3):
        lines = "".join(f"00{key},2020-01-0{day}T00:00:00Z,{day * 10 + key}\n" for key in range(3))
        (place / f"day{day}.csv").write_text("id,t,v\n" + lines)
    return place


def pipeline(folder: Path, **options: Any) -> Pipeline:
    return Pipeline("days", FileSource.of(folder), GroupSink("g"), **options)


def value(store: FeatureStore, key: str) -> Any:
    record = store.get_record("g", key)
    return None if record is None else record["v"]


def test_a_folder_goes_into_a_group_once(store: FeatureStore, folder: Path) -> None:
    ingest = Ingest(store)
    first = ingest.run(pipeline(folder))
    assert [(part.rows, part.rejected, part.repeated) for part in first.parts] == [(3, 0, False)] * 3
    assert (value(store, "001"), value(store, "002")) == (31, 32)
    again = ingest.run(pipeline(folder))
    assert (again.rows, again.skipped) == (0, 3)
    (folder / "day4.csv").write_text("id,t,v\n001,2020-01-04T00:00:00Z,7\n")
    more = ingest.run(pipeline(folder))
    assert (more.rows, more.skipped) == (1, 3)
    assert value(store, "001") == 7


def test_a_function_runs_only_on_parts_not_yet_loaded(store: FeatureStore, folder: Path) -> None:
    ingest, shaped = Ingest(store), pipeline(folder, transform=shaping.doubled)
    assert ingest.run(shaped).rows == 9
    assert value(store, "002") == 64
    shaping.calls.clear()
    assert ingest.run(shaped).skipped == 3
    assert not any(shaping.calls)
    assert ingest.run(pipeline(folder)).skipped == 0


def test_rows_the_gate_or_the_types_refuse_are_in_quarantine(store: FeatureStore, folder: Path) -> None:
    (folder / "day2.csv").write_text(
        "id,t,v\n001,2020-01-02T00:00:00Z,-5\n002,yesterday,5\n003,2020-01-02T00:00:00Z,5\n"
    )
    report = Ingest(store).run(pipeline(folder, gate=POSITIVE))
    assert [(part.rows, part.rejected) for part in report.parts] == [(3, 0), (1, 2), (3, 0)]
    assert report.rejected == 2
    held = store.quarantined("g", load=report.parts[1].load).to_pylist()
    assert sorted((row["row"], row["field"]) for row in held) == [(0, "v"), (1, "t")]


def test_a_stopped_run_is_gone_on_with(store: FeatureStore, folder: Path) -> None:
    stop = threading.Event()

    class StopsAtThirdPart:
        started = 0

        def start(self, total: int | None, unit: str) -> None:
            self.started += 1

        def advance(self, count: int) -> None:
            if self.started == 2:
                stop.set()

        def done(self) -> None: ...

    with pytest.raises(Cancelled):
        Ingest(store).run(pipeline(folder), progress=StopsAtThirdPart(), stop=stop)
    assert value(store, "000") == 20
    report = Ingest(store).run(pipeline(folder))
    assert [part.repeated for part in report.parts] == [True, True, False]
    assert value(store, "000") == 30


def test_an_interrupt_inside_a_part_leaves_nothing_of_it(store: FeatureStore, folder: Path) -> None:
    class Interrupts:
        def start(self, total: int | None, unit: str) -> None: ...

        def advance(self, count: int) -> None:
            raise KeyboardInterrupt

        def done(self) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        Ingest(store).run(pipeline(folder), progress=Interrupts())
    assert value(store, "000") is None
    report = Ingest(store).run(pipeline(folder))
    assert report.skipped == 0
    assert report.rows == 9


def test_bad_parts_stop_the_run_or_are_passed_over(store: FeatureStore, folder: Path) -> None:
    (folder / "day2.csv").write_text("id,t,v\n001\n")
    with pytest.raises(InvalidInput, match=r"day2\.csv, line 2"):
        Ingest(store).run(pipeline(folder))
    report = Ingest(store).run(pipeline(folder), keep_going=True)
    assert [bool(part.error) for part in report.parts] == [False, True, False]
    assert "day2.csv" in report.failures[0].error
    assert [part.repeated for part in report.parts] == [True, False, False]


@pytest.mark.parametrize(
    ("transform", "said"), [(shaping.broken, "ZeroDivisionError"), (shaping.shapeless, "gives int")]
)
def test_a_failing_function_is_named(store: FeatureStore, folder: Path, transform: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        Ingest(store).run(pipeline(folder, transform=transform))
    assert transform.__name__ in caught.value.subject
    assert value(store, "000") is None


def test_queries_and_rows_in_memory_are_sources(store: FeatureStore, folder: Path) -> None:
    sql = (
        f"select id, t, cast(v as bigint) as v from read_csv('{folder}/*.csv', types={{'id': 'varchar'}}) where v > 30"
    )
    ingest = Ingest(store)
    assert ingest.run(Pipeline("q", SqlSource(sql), GroupSink("g", zone="UTC"))).rows == 2
    rows = [{"id": "009", "t": datetime(2020, 1, 1, tzinfo=UTC), "v": 1}]
    known = GroupSink("g", known_at=timedelta(hours=1))
    assert ingest.run(Pipeline("m", MemorySource(rows), known)).rows == 1
    assert value(store, "009") == 1


def test_preview_shows_the_first_rows_and_writes_nothing(store: FeatureStore, folder: Path) -> None:
    shown = Ingest(store).preview(pipeline(folder, transform=shaping.doubled), rows=2)
    assert shown.column("v").to_pylist() == [20, 22]
    assert value(store, "000") is None


# -- plain tables ---------------------------------------------------------------------------------------------------


def test_a_table_gets_each_part_once_and_keeps_refused_rows_beside(
    store: FeatureStore, folder: Path, tmp_path: Path
) -> None:
    def typed(table: pa.Table) -> pl.DataFrame:
        return pl.DataFrame(table).with_columns(
            pl.col("v").cast(pl.Int64) - 11, pl.col("t").str.to_datetime(time_zone="UTC")
        )

    target = tmp_path / "out" / "days"
    into = Pipeline("days", FileSource.of(folder), TableSink(str(target)), typed, POSITIVE)
    report = Ingest(store).run(into)
    assert (report.rows, report.rejected) == (8, 1)
    assert Ingest(store).run(into).skipped == 3
    assert sorted(pl.read_delta(str(target))["v"].to_list()) == [0, 1, 9, 10, 11, 19, 20, 21]
    beside = pl.read_delta(f"{target}-quarantine").to_dicts()
    assert [(row["row"], row["field"], json.loads(row["record"])["v"]) for row in beside] == [(0, "v", -1)]
    assert Ingest(store).run(into, again=True).rows == 8


def test_a_table_refuses_rows_that_do_not_fit_it(store: FeatureStore, tmp_path: Path) -> None:
    def run(*rows: dict[str, Any]) -> int:
        return Ingest(store).run(Pipeline("m", MemorySource(list(rows)), TableSink(str(tmp_path / "out")))).rows

    assert run({"a": 1, "b": "x"}) == 1
    for row, said in [
        ({"a": 1, "c": 2}, "'c' is not in"),
        ({"a": 1}, "do not fit"),
        ({"a": "x", "b": "x"}, "do not fit"),
    ]:
        with pytest.raises(InvalidInput, match=said):
            run(row)
    with pytest.raises(InvalidInput, match="without a time zone"):
        run({"a": datetime(2020, 1, 1), "b": "x"})
    assert pl.read_delta(str(tmp_path / "out")).height == 1
    assert [path.suffix for path in (tmp_path / "out").iterdir() if path.is_file()] == [".parquet"]


# -- declarations ---------------------------------------------------------------------------------------------------

TOML = """
name = "days"
transform = "shaping:doubled"
gate = "gate.json"
[source]
files = "data/*.csv"
[sink]
group = "g"
zone = "UTC"
known_after_seconds = 3600
"""


def test_a_declaration_in_a_file_runs_and_comes_back(store: FeatureStore, folder: Path) -> None:
    place = folder.parent
    (place / "days.toml").write_text(TOML)
    (place / "gate.json").write_text(json.dumps(POSITIVE.to_document()))
    report = Ingest(store).run(place / "days.toml")
    assert (report.pipeline, report.rows) == ("days", 9)
    read = Pipeline.from_file(place / "days.toml")
    assert read.sink == GroupSink("g", known_at=timedelta(hours=1), zone="UTC")
    assert read.transform is shaping.doubled
    (place / "days.json").write_text(json.dumps(read.to_document()))
    assert Pipeline.from_file(str(place / "days.json")) == read
    assert Ingest(store).run(read.to_document()).skipped == 3
    table = Pipeline("m", SqlSource("select 1 as a", "x.db"), TableSink("out"))
    assert Pipeline.from_dict(table.to_document()) == table


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"name": ""}, InvalidInput, "pipeline name"),
        ({"speed": 3}, InvalidInput, "'speed'"),
        ({"source": None}, InvalidInput, "no source"),
        ({"source": {"kafka": "x"}}, InvalidInput, "neither files nor sql"),
        ({"source": {"files": []}}, InvalidInput, "list of files"),
        ({"source": {"sql": 3}}, InvalidInput, "not a query"),
        ({"sink": {}}, InvalidInput, "neither group nor table"),
        ({"sink": {"group": "g", "zon": "UTC"}}, InvalidInput, "'zon'"),
        ({"sink": {"group": "g", "known_at": "k", "known_after_seconds": 1}}, InvalidInput, "excludes"),
        ({"sink": {"table": 3}}, InvalidInput, "not a table"),
        ({"transform": "shaping"}, InvalidInput, "names no function"),
        ({"transform": "shaping:nothing"}, NotFound, "nothing"),
        ({"transform": "shaping:calls"}, InvalidInput, "no function"),
        ({"gate": 5}, InvalidInput, "no suite"),
        ({"gate": "no.json"}, NotFound, "does not exist"),
    ],
)
def test_bad_declarations_are_refused(change: dict[str, Any], error: type[Exception], said: str) -> None:
    good = {"name": "p", "source": {"files": "x.csv"}, "sink": {"group": "g"}}
    with pytest.raises(error, match=said):
        Pipeline.from_dict({**good, **change})


def test_files_that_hold_no_declaration_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Pipeline.from_file(tmp_path / "none.toml")
    for name, text in [("a.toml", "x ="), ("b.json", "{"), ("c.json", "[]")]:
        (tmp_path / name).write_text(text)
        with pytest.raises(InvalidInput, match=name):
            Pipeline.from_file(tmp_path / name)


def test_what_has_no_name_cannot_be_written_down(folder: Path) -> None:
    with pytest.raises(NotSupported):
        Pipeline("m", MemorySource([]), GroupSink("g")).to_document()
    with pytest.raises(NotSupported):
        pipeline(folder, transform=lambda table: table).to_document()
    with pytest.raises(NotFound):
        list(FileSource.of(folder / "*.parquet").parts())
