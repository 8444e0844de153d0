"""Load files: what does not fit is set aside with the reason, checks refuse rows, the same load again is a no-op."""

from pathlib import Path

import pyarrow as pa

import featurestore
from foundation.checks import Expectation, Suite

Path("day.csv").write_text(
    "sensor,at,value\n"
    "a,2026-01-05T00:00:00Z,1.5\n"
    "a,2026-01-05T01:00:00Z,oops\n"
    "b,2026-01-05T00:00:00Z,-7\n"
    "b,2026-01-05T01:00:00Z,2.5\n"
)
schema = pa.schema([("sensor", pa.string()), ("at", pa.timestamp("us", tz="UTC")), ("value", pa.float64())])
positive = Expectation("expect_column_values_to_be_between", {"column": "value", "min_value": 0})

with featurestore.open("workspace") as store:
    store.create_group("readings", record_id="sensor", event_time="at", schema=schema)

    report = store.ingest("readings", "day.csv", gate=Suite("sane", (positive,)))
    print(f"{report.rows} loaded, {report.rejected} refused: {report.reasons}")
    assert (report.rows, report.rejected) == (2, 2)

    for row in store.quarantined("readings").to_pylist():
        print(f"row {row['row']}, {row['field']}: {row['reason']}")

    assert store.ingest("readings", "day.csv", gate=Suite("sane", (positive,))).repeated
    assert store.verify("readings").ok
