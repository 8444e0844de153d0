"""Puts one record and flushes it; prints marks that a trace can be cut at. Usage: flush_script.py WORKSPACE"""

import os
import sys

import pyarrow as pa

import featurestore

store = featurestore.open(sys.argv[1])
schema = pa.schema([("id", pa.int64()), ("ts", pa.timestamp("us", tz="UTC"))])
store.create_group("events", record_id="id", event_time="ts", schema=schema)
store.put_record("events", {"id": 1, "ts": "2024-01-01T00:00:00Z"})
os.write(1, b"BEFORE FLUSH\n")
store.flush()
os.write(1, b"AFTER FLUSH\n")
store.close()
