"""Writes into a workspace until it is killed; prints a line for everything that was acknowledged.

Usage: crash_worker.py WORKSPACE ONLINE_URL WORKER_ID SEED
"""

import random
import sys
from datetime import UTC, datetime, timedelta

import pyarrow as pa

import featurestore

START = datetime(2024, 1, 1, tzinfo=UTC)


def say(*words):
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def main():
    place, online, worker, seed = sys.argv[1:5]
    chance = random.Random(seed)
    store = featurestore.open(place, online=online)
    say("READY")
    count = 0
    while True:
        kind = chance.choices(("put", "one", "ingest", "flush", "delete", "compact"), (40, 20, 15, 15, 8, 2))[0]
        rows = []
        for _ in range(chance.randint(1, 40) if kind in ("put", "ingest") else 1):
            count += 1
            rows.append(
                {
                    "id": chance.randint(0, 60),
                    "ts": START + timedelta(seconds=chance.randint(0, 10_000), microseconds=int(worker)),
                    "uid": f"{worker}-{seed}-{count}",
                    "value": chance.random(),
                }
            )
        if kind == "put":
            store.put_records("events", rows)
        elif kind == "one":
            store.put_record("events", rows[0])
        elif kind == "ingest":
            store.ingest("events", pa.Table.from_pylist(rows))
        elif kind == "flush":
            store.flush()
            continue
        elif kind == "compact":
            store.compact("events")
            continue
        else:
            store.delete_record("events", rows[0]["id"], rows[0]["ts"])
            continue
        say("ACK", *(row["uid"] for row in rows))


main()
