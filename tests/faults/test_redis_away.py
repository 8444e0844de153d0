"""Redis away, back, or back without its memory: nothing acknowledged is lost, and a loss never passes for "missing"."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pytest
import servers

import featurestore
from foundation.errors import Unavailable

START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = pa.schema([("id", pa.int64()), ("ts", pa.timestamp("us", tz="UTC")), ("x", pa.float64())])


def record(key, hours=0, x=1.0):
    return {"id": key, "ts": START + timedelta(hours=hours), "x": x}


@pytest.fixture
def redis():
    with servers.required_parts(), servers.server("--appendonly", "yes", "--appendfsync", "always") as one:
        yield one


@pytest.fixture
def place(tmp_path, redis):
    with featurestore.open(tmp_path / "ws", online=redis.url) as store:
        store.create_group("g", record_id="id", event_time="ts", schema=SCHEMA)
        store.put_records("g", [record(key) for key in range(10)])
    return tmp_path / "ws"


def test_writes_go_on_while_it_is_away_and_arrive_when_it_is_back(place, redis):
    with featurestore.open(place) as store:
        redis.kill()
        receipt = store.put_record("g", record(3, 5, x=5.0))
        assert not receipt.readable
        report = store.ingest("g", pa.Table.from_pylist([record(4, 6, x=6.0)], schema=SCHEMA))
        assert (report.rows, report.readable) == (1, False)
        with pytest.raises(Unavailable):
            store.get_record("g", 3)
        with pytest.raises(Unavailable):
            store.flush()
        spine = pl.DataFrame({"id": [3, 4], "ts": [START + timedelta(hours=9)] * 2})
        assert store.dataset(spine, event_time="ts").join("g").to_arrow().column("x").to_pylist() == [5.0, 6.0]
    with featurestore.open(place) as store:  # opens without it
        assert store.history("g", 3).num_rows == 2
        redis.start()
        store.flush()
        assert store.get_record("g", 3) == record(3, 5, x=5.0)
        assert store.get_record("g", 4) == record(4, 6, x=6.0)
        assert store.verify("g").ok


@pytest.mark.parametrize("mend", ["rebuild", "repair"])
def test_lost_memory_is_noticed_and_mended(place, redis, mend):
    with featurestore.open(place) as store:
        store.ingest("g", pa.Table.from_pylist([record(20)], schema=SCHEMA))
        store.flush()
        redis.ask("FLUSHALL")
        with pytest.raises(Unavailable, match="rebuild"):
            store.get_record("g", 3)
        receipt = store.put_record("g", record(3, 5, x=5.0))
        assert not receipt.readable
        with pytest.raises(Unavailable, match="rebuild"):
            store.flush()
        report = store.verify("g")
        assert (report.ok, report.different) == (False, 11)
        if mend == "rebuild":
            store.rebuild("g")
        else:
            assert store.verify("g", repair=True).ok
        assert store.verify("g").ok
        assert store.get_record("g", 3) == record(3, 5, x=5.0)
        assert store.get_record("g", 20) == record(20)
        store.put_record("g", record(21))
        assert store.get_record("g", 21) == record(21)


def test_a_loss_after_nothing_but_a_load_is_noticed_too(tmp_path, redis):
    with featurestore.open(tmp_path / "other", online=redis.url) as store:
        store.create_group("g", record_id="id", event_time="ts", schema=SCHEMA)
        store.ingest("g", pa.Table.from_pylist([record(1)], schema=SCHEMA))
        redis.ask("FLUSHALL")
        with pytest.raises(Unavailable, match="rebuild"):
            store.get_record("g", 1)
