"""Put records, read them back, build a training set: the whole path in one page."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa

import featurestore

schema = pa.schema([("user", pa.int64()), ("at", pa.timestamp("us", tz="UTC")), ("balance", pa.float64())])
monday = datetime(2026, 1, 5, tzinfo=UTC)

with featurestore.open("workspace") as store:
    store.create_group("accounts", record_id="user", event_time="at", schema=schema)

    for day, balance in enumerate([100.0, 80.0, 250.0]):
        store.put_record("accounts", {"user": 7, "at": monday + timedelta(days=day), "balance": balance})

    # Online: the latest.
    record = store.get_record("accounts", 7)
    assert record is not None
    print("online:", record["balance"])

    # Training: what was true at each row's own moment.
    spine = pl.DataFrame({"user": [7, 7, 8], "ts": [monday, monday + timedelta(hours=30), monday]})
    table = store.dataset(spine, event_time="ts").join("accounts", on="user", features=["balance"]).to_arrow()
    print("training:", table.column("balance").to_pylist())

    assert record["balance"] == 250.0
    assert table.column("balance").to_pylist() == [100.0, 80.0, None]
