"""A value that came late and was then corrected: three questions, three answers, and where each one came from."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa

import featurestore

noon = datetime(2026, 1, 5, 12, tzinfo=UTC)
schema = pa.schema([("station", pa.string()), ("observed", pa.timestamp("us", tz="UTC")), ("temp", pa.float64())])

with featurestore.open("workspace") as store:
    # "replace": of two writes for one event time the later one wins.
    store.create_group("weather", "station", "observed", schema, on_equal="replace")

    # Noon's value was published an hour late, and corrected an hour after that.
    first = {"station": "JFK", "observed": noon, "temp": 30.0}
    store.put_record("weather", first, known_at=noon + timedelta(hours=1))
    store.put_record("weather", {**first, "temp": 20.0}, known_at=noon + timedelta(hours=2))

    moments = [noon + timedelta(minutes=minutes) for minutes in (30, 90, 150)]
    spine = pl.DataFrame({"station": ["JFK"] * 3, "ts": moments})
    dataset = store.dataset(spine, event_time="ts").join("weather", on="station")

    by_event_time = dataset.to_arrow().column("temp").to_pylist()
    by_knowledge = dataset.known_by("row").to_arrow().column("temp").to_pylist()
    print("what was true:           ", by_event_time)
    print("what was known by then:  ", by_knowledge)
    assert by_event_time == [20.0, 20.0, 20.0]
    assert by_knowledge == [None, 30.0, 20.0]

    certificate = dataset.build().certificate
    print(f"cells known only after their row, without known_by: {certificate.known_after_row}")
    assert certificate.known_after_row == 2

    print(dataset.known_by("row").explain(1, "temp"))
