"""Bulk loads: once, whole, in the right place among other writes; quarantine, gates, declared knowledge."""

import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pytest

import featurestore
from featurestore.loading.loads import Loader
from foundation.checks import Expectation, Suite
from foundation.errors import InvalidInput

START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = pa.schema([("id", pa.int64()), ("ts", pa.timestamp("us", tz="UTC")), ("x", pa.float64())])


def at(hours):
    return START + timedelta(hours=hours)


def rows(*cells):
    return pa.Table.from_pylist([{"id": key, "ts": at(hours), "x": x} for key, hours, x in cells], schema=SCHEMA)


@pytest.fixture
def store(tmp_path):
    with featurestore.open(tmp_path / "ws") as opened:
        opened.create_group("g", record_id="id", event_time="ts", schema=SCHEMA)
        yield opened


def test_a_load_is_in_both_stores_when_it_returns(store):
    report = store.ingest("g", rows((1, 0, 1.0), (1, 2, 2.0), (2, 1, 3.0)))
    assert (report.rows, report.rejected, report.repeated) == (3, 0, False)
    assert store.get_record("g", 1, ["x"]) == {"x": 2.0}
    assert store.history("g", 1).num_rows == 2
    assert store.verify("g").ok


def test_the_same_content_is_loaded_once_unless_told_again(store):
    first = store.ingest("g", rows((1, 0, 1.0)))
    second = store.ingest("g", rows((1, 0, 1.0)))
    assert (second.load, second.rows, second.repeated) == (first.load, 0, True)
    third = store.ingest("g", rows((1, 0, 1.0)), again=True)
    assert (third.rows, third.repeated) == (1, False)
    assert store.history("g", 1).num_rows == 2


def test_rows_of_one_load_at_one_instant_follow_the_groups_rule(store):
    store.create_group("r", record_id="id", event_time="ts", schema=SCHEMA, on_equal="replace")
    for name, kept in (("g", 1.0), ("r", 2.0)):
        store.ingest(name, rows((1, 0, 1.0), (1, 0, 2.0)))
        assert store.get_record(name, 1, ["x"]) == {"x": kept}
        assert store.verify(name).ok


def test_late_rows_reach_history_and_leave_the_newest_online(store):
    store.put_record("g", {"id": 1, "ts": at(5), "x": 5.0})
    store.ingest("g", rows((1, 2, 2.0)))
    assert store.get_record("g", 1, ["x"]) == {"x": 5.0}
    assert store.get_record("g", 1, ["x"], at=at(3)) == {"x": 2.0}


def test_refused_rows_are_kept_with_their_reason(store):
    table = pa.Table.from_pylist(
        [
            {"id": 1, "ts": at(0), "x": 1.0},
            {"id": None, "ts": at(0), "x": 2.0},
            {"id": 3, "ts": at(0), "x": float("inf")},
        ],
        schema=SCHEMA,
    )
    report = store.ingest("g", table)
    assert (report.rows, report.rejected) == (1, 2)
    kept = store.quarantined("g").to_pylist()
    assert sorted(row["row"] for row in kept) == [1, 2]
    assert {row["field"] for row in kept} == {"id", "x"}
    assert json.loads(next(row["record"] for row in kept if row["row"] == 1))["x"] == 2.0
    assert sum(report.reasons.values()) == 2


def test_on_error_reject_writes_nothing(store):
    table = pa.Table.from_pylist([{"id": 1, "ts": at(0), "x": 1.0}, {"id": None, "ts": at(0), "x": 2.0}], schema=SCHEMA)
    with pytest.raises(InvalidInput, match="row 1"):
        store.ingest("g", table, on_error="reject")
    assert store.get_record("g", 1) is None
    assert store.history("g", 1).num_rows == 0
    assert store.quarantined("g").num_rows == 0


def test_a_gate_sets_rows_aside_or_refuses_the_load(store):
    between = Expectation("expect_column_values_to_be_between", {"column": "x", "min_value": 0, "max_value": 10})
    report = store.ingest("g", rows((1, 0, 5.0), (2, 0, 50.0)), gate=Suite("gate", (between,)))
    assert (report.rows, report.rejected) == (1, 1)
    assert store.get_record("g", 2) is None
    with pytest.raises(InvalidInput, match="between"):
        store.ingest("g", rows((3, 0, 5.0), (4, 0, 50.0)), gate=Suite("gate", (between,), action="reject"))
    assert store.get_record("g", 3) is None


@pytest.mark.parametrize(
    ("known_at", "moment", "cells"),
    [
        (timedelta(minutes=10), at(0) + timedelta(minutes=10), None),
        ("seen", at(3), pa.array([at(3)], pa.timestamp("us", tz="UTC"))),
        ("seen", at(3), pa.array(["2024-01-01T03:00:00.000000+0000"])),
        ("seen", at(3), pa.array([at(3).timestamp()])),
    ],
)
def test_known_at_is_declared_by_a_delay_or_a_column(store, known_at, moment, cells):
    table = rows((1, 0, 1.0))
    if cells is not None:
        table = table.append_column("seen", cells)
    store.ingest("g", table, known_at=known_at)
    just_before = moment - timedelta(microseconds=1)
    spine = pl.DataFrame({"id": [1, 1], "ts": [just_before, moment]})
    got = store.dataset(spine, event_time="ts", known_by="row").join("g").to_arrow()
    assert got.column("x").to_pylist() == [None, 1.0]


def test_a_known_at_that_is_no_moment_is_named(store):
    table = rows((1, 0, 1.0)).append_column("seen", pa.array(["soon"]))
    with pytest.raises(InvalidInput, match="seen"):
        store.ingest("g", table, known_at="seen")
    with pytest.raises(InvalidInput, match="nowhere"):
        store.ingest("g", rows((1, 0, 1.0)), known_at="nowhere")
    assert store.history("g", 1).num_rows == 0


def test_a_load_cut_off_before_it_was_online_is_finished_by_the_next_flush(store, monkeypatch):
    def die(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "_publish", die)
        with pytest.raises(KeyboardInterrupt):
            store.ingest("g", rows((1, 0, 1.0), (2, 0, 2.0)))
    assert store.get_record("g", 1) is None
    store.flush()
    assert store.get_record("g", 1, ["x"]) == {"x": 1.0}
    assert store.history("g", 1).num_rows == 1
    assert store.verify("g").ok
    assert store.ingest("g", rows((1, 0, 1.0), (2, 0, 2.0))).repeated


def test_a_load_that_fails_while_reading_leaves_nothing(store):
    def batches():
        yield rows((1, 0, 1.0)).to_batches()[0]
        raise OSError("the source went away")

    reader = pa.RecordBatchReader.from_batches(SCHEMA, batches())
    with pytest.raises(Exception, match="went away"):
        store.ingest("g", reader)
    assert store.history("g", 1).num_rows == 0
    assert store.get_record("g", 1) is None


def test_naive_timestamps_need_a_zone(store):
    table = pa.table({"id": [1], "ts": pa.array([datetime(2024, 7, 1, 12)], pa.timestamp("us")), "x": [1.0]})
    with pytest.raises(InvalidInput, match="ts"):
        store.ingest("g", table)
    with pytest.raises(InvalidInput, match="Nope"):
        store.ingest("g", table, zone="Nope/Zone")
    store.ingest("g", table, zone="America/New_York")
    assert store.get_record("g", 1)["ts"] == datetime(2024, 7, 1, 16, tzinfo=UTC)


@pytest.mark.parametrize("targets", [["online"], ["offline"]])
def test_a_load_may_be_meant_for_one_store(store, targets):
    report = store.ingest("g", rows((1, 0, 1.0), (2, 0, 2.0)), target_stores=targets)
    assert report.rows == 2
    assert (store.get_record("g", 1) is not None) == (targets == ["online"])
    assert store.history("g", 1).num_rows == (0 if targets == ["online"] else 1)
    checked = store.verify("g")
    assert checked.ok
    assert checked.single_store == (2 if targets == ["online"] else 0)
    assert store.ingest("g", rows((1, 0, 1.0), (2, 0, 2.0)), target_stores=targets).rows == 0


def test_a_csv_keeps_leading_zeros_of_text_keys(tmp_path, store):
    schema = pa.schema([("code", pa.string()), ("ts", pa.timestamp("us", tz="UTC")), ("x", pa.float64())])
    store.create_group("codes", record_id="code", event_time="ts", schema=schema)
    path = tmp_path / "codes.csv"
    path.write_text("code,ts,x\n007,2024-01-01T00:00:00Z,1.5\n008,not a time,2\n")
    report = store.ingest("codes", path)
    assert (report.rows, report.rejected) == (1, 1)
    assert store.get_record("codes", "007", ["x"]) == {"x": 1.5}


@pytest.mark.parametrize("ttl", [timedelta(days=365_000), timedelta(days=365_250)])
def test_an_expiry_beyond_the_calendar_is_its_last_moment(store, ttl):
    late = datetime(9500, 1, 1, tzinfo=UTC)
    store.create_group("h", record_id="id", event_time="ts", schema=SCHEMA, ttl=ttl)
    store.ingest("h", rows((1, 0, 1.0)), ttl=ttl)
    store._parts.loader._future = store._parts.future_bound = 1 << 62
    store.put_record("h", {"id": 2, "ts": late, "x": 1.0})
    store.ingest("h", pa.Table.from_pylist([{"id": 3, "ts": late, "x": 1.0}], schema=SCHEMA))
    assert store.flush() == 1
    last = datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert [store.lookup("h", key).expires_at for key in (2, 3)] == [last, last]
    assert store.verify("h").ok


@pytest.mark.parametrize("ttl", [timedelta.max, timedelta(0), timedelta(days=-1), 5, "1d"])
def test_a_life_span_that_makes_no_sense_is_refused_everywhere(store, ttl):
    with pytest.raises(InvalidInput, match="ttl"):
        store.create_group("h", record_id="id", event_time="ts", schema=SCHEMA, ttl=ttl)
    with pytest.raises(InvalidInput, match="ttl"):
        store.update_group("g", ttl=ttl)
    with pytest.raises(InvalidInput, match="ttl"):
        store.put_record("g", {"id": 1, "ts": at(0)}, ttl=ttl)
    with pytest.raises(InvalidInput, match="ttl"):
        store.ingest("g", rows((1, 0, 1.0)), ttl=ttl)
    assert [group.name for group in store.list_groups().groups] == ["g"]
    assert store.get_record("g", 1) is None
