"""Export in SageMaker's offline layout: every row, in the folder of its hour, in the declared form."""

import re
from datetime import UTC, datetime, timedelta

import offline_tables as tables
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from offline_tables import group_of, rows_of

from featurestore.offline import Change, export
from featurestore.offline.delta import DeltaStore
from featurestore.offline.export import export_sagemaker, hour_ranges
from foundation.clock import instant_of
from foundation.errors import InvalidInput
from foundation.schema import Schema

PATH = re.compile(
    r"things-(\d+)/data/year=(\d{4})/month=(\d\d)/day=(\d\d)/hour=(\d\d)/(\d{8}T\d{6}Z)_[A-Za-z0-9]{16}\.parquet"
)


def exported(folder, declared="Timestamp", **options):
    """A store with two commits of a group, exported: (report, snapshot rows, {path: rows})."""
    columns = [(name, declared if name == "at" else kind) for name, kind in tables.COLUMNS]
    group = group_of(columns=columns)
    store = DeltaStore(tables.local_files(folder / "place"))
    store.create(group)
    store.commit(group, Change([store.write_run(group, rows_of(group, 60), "log")]))
    late = instant_of(tables.START) + 10**12
    run = store.publish(group, store.write_run(group, rows_of(group, 60, 1, first=100), "load"), late)
    store.commit(group, Change([run]))
    snapshot = store.snapshot(group)
    report = export_sagemaker(snapshot, folder / "out", **options)
    found = {str(path.relative_to(folder / "out")): path for path in (folder / "out").rglob("*.parquet")}
    return report, snapshot, {name: pq.read_table(path, partitioning=None) for name, path in found.items()}


def test_every_row_lies_in_the_folder_of_its_hour(tmp_path):
    report, snapshot, found = exported(tmp_path)
    assert (report.rows, report.files, report.version) == (120, len(found), snapshot.version)
    assert report.bytes == sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.parquet"))
    for name, table in found.items():
        match = PATH.fullmatch(name)
        assert match, name
        assert int(match[1]) == snapshot.group.created_at // 1_000_000
        hour = datetime(*map(int, match.groups()[1:5]), tzinfo=UTC)
        events = table.column("at").to_pylist()
        assert all(hour <= event < hour + timedelta(hours=1) for event in events)
        assert match[6] == max(events).strftime("%Y%m%dT%H%M%SZ")
    assert len(found) > 1


def test_rows_keep_their_values_and_load_times(tmp_path):
    _, snapshot, found = exported(tmp_path)
    names = [*snapshot.group.names, "api_invocation_time", "write_time", "is_deleted"]
    assert all(table.column_names == names for table in found.values())
    got = [row for table in found.values() for row in table.to_pylist()]
    wanted = [{name: row[name] for name in names} for row in tables.effective(snapshot)]
    assert sorted(map(repr, got)) == sorted(map(repr, wanted))
    assert sum(row["is_deleted"] for row in got) > 0


@pytest.mark.parametrize(
    ("declared", "form"),
    [
        (
            "String",
            lambda at: at.strftime("%Y-%m-%dT%H:%M:%S") + (f".{at.microsecond:06d}Z" if at.microsecond else "Z"),
        ),
        ("Fractional", lambda at: instant_of(at) / 1e6),
        ("Integral", lambda at: instant_of(at) // 10**6),
    ],
)
def test_event_time_comes_back_in_its_declared_form(tmp_path, declared, form):
    _, snapshot, found = exported(tmp_path, declared)
    got = sorted(value for table in found.values() for value in table.column("at").to_pylist())
    assert got == sorted(form(row["at"]) for row in tables.effective(snapshot))


def test_milliseconds_are_written_as_such():
    assert export._iso(1_500_000) == "1970-01-01T00:00:01.500Z"
    assert export._iso(-1) == "1969-12-31T23:59:59.999999Z"


def test_memory_for_few_rows_gives_more_passes_and_the_same_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_BATCH", 7)
    report, snapshot, found = exported(tmp_path, memory=1)
    assert report.rows == sum(table.num_rows for table in found.values()) == 120
    ranks = [row for table in found.values() for row in table.select(["id", "site", "at", "write_time"]).to_pylist()]
    wanted = [{name: row[name] for name in ("id", "site", "at", "write_time")} for row in tables.effective(snapshot)]
    assert sorted(map(repr, ranks)) == sorted(map(repr, wanted))


def test_columns_added_later_are_null_in_older_rows(tmp_path):
    group = group_of()
    store = DeltaStore(tables.local_files(tmp_path / "place"))
    store.create(group)
    store.commit(group, Change([store.write_run(group, rows_of(group, 10), "log")]))
    grown = group.with_features(Schema.of([("extra", "Integral")]), now=1)
    store.evolve(grown)
    export_sagemaker(store.snapshot(grown), tmp_path / "out")
    frame = pl.read_parquet(tmp_path / "out" / "**" / "*.parquet")
    assert frame["extra"].null_count() == 10


def test_an_unknown_destination_is_refused(tmp_path):
    group = group_of()
    store = DeltaStore(tables.local_files(tmp_path))
    store.create(group)
    with pytest.raises(InvalidInput, match="unknown scheme"):
        export_sagemaker(store.snapshot(group), "ftp://somewhere/else")
    assert export_sagemaker(store.snapshot(group), (tmp_path / "out").as_uri()).rows == 0


@given(st.dictionaries(st.integers(-5, 60), st.integers(1, 9), max_size=30), st.integers(1, 20))
def test_hours_are_packed_within_the_limit(counts, limit):
    ranges = list(hour_ranges(counts, limit))
    covered = [hour for first, last in ranges for hour in sorted(counts) if first <= hour <= last]
    assert covered == sorted(counts)
    for first, last in ranges:
        inside = [hour for hour in counts if first <= hour <= last]
        assert len(inside) == 1 or sum(counts[hour] for hour in inside) <= limit
