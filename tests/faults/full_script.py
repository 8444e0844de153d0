"""Fills a small disk with records, then frees it. Usage: full_script.py MOUNTED_FOLDER"""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa

import featurestore
from foundation.errors import LimitExceeded

SCHEMA = pa.schema([("id", pa.int64()), ("ts", pa.timestamp("us", tz="UTC")), ("s", pa.string())])


def record(key):
    return {"id": key, "ts": "2024-01-01T00:00:00Z", "s": "x" * 1000}


def refused(act):
    try:
        act()
    except LimitExceeded:
        return True
    return False


mount = sys.argv[1]
store = featurestore.open(Path(mount) / "place")
store.create_group("g", record_id="id", event_time="ts", schema=SCHEMA)
acknowledged = 0


def put_next():
    store.put_records("g", [record(acknowledged + extra) for extra in range(100)])


while not refused(put_next):
    acknowledged += 100
    assert acknowledged < 100_000, "the disk never filled"
assert acknowledged, "nothing was written at all"
assert store.get_record("g", acknowledged - 1) is not None
assert store.get_record("g", acknowledged) is None, "half a batch is visible"
assert refused(store.flush)
assert refused(lambda: store.ingest("g", [record(10**6 + extra) for extra in range(5000)]))
assert store.get_record("g", 10**6) is None
subprocess.run(["mount", "-o", "remount,size=64m", mount], check=True)
store.flush()
report = store.verify("g")
assert report.ok, report.differences
assert report.checked == acknowledged, (report.checked, acknowledged)
store.close()
print("HELD", acknowledged)
