"""A saved training set, computed again by its id after more data arrived, is the same to the last bit."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pyarrow as pa

import featurestore

start = datetime(2026, 1, 1, tzinfo=UTC)
schema = pa.schema([("shop", pa.int64()), ("at", pa.timestamp("us", tz="UTC")), ("sales", pa.float64())])
random = np.random.default_rng(7)


def sales(count: int, day: int) -> pl.DataFrame:
    """Some rows of a day."""
    moments = [start + timedelta(days=day, seconds=int(second)) for second in random.integers(0, 86_400, count)]
    return pl.DataFrame({"shop": random.integers(0, 50, count), "at": moments, "sales": random.random(count)})


with featurestore.open("workspace") as store:
    store.create_group("shops", record_id="shop", event_time="at", schema=schema)
    store.ingest("shops", sales(20_000, day=0))

    spine = sales(1_000, day=1).select("shop", ts="at")
    saved = (
        store.dataset(spine, event_time="ts").join("shops", on="shop").split({"train": 0.8, "test": 0.2}).save("demand")
    )
    print(saved.id, saved.content_hash, dict(saved.parts))

    # Late rows for the day before, a compaction, a vacuum: the past the dataset was built from is still there.
    store.ingest("shops", sales(20_000, day=0))
    store.compact("shops")
    store.vacuum("shops")

    again = store.datasets.recreate(saved.id)
    print("recreated", again.content_hash)
    assert again.content_hash == saved.content_hash

    fresh = store.dataset(spine, event_time="ts").join("shops", on="shop").to_arrow()
    assert fresh.column("sales").to_pylist() != store.datasets.load(saved.id).column("sales").to_pylist()
