"""Offline tables for tests: a group with every kind of column, random rows for it, and an S3 server to keep them in."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from servers import MissingPart, free_port

from featurestore.groups import FeatureGroup, define_group
from featurestore.offline import Snapshot, offline_schema
from foundation.files import Files, open_files
from foundation.schema import Schema

START = datetime(2024, 2, 28, 22, 0, tzinfo=UTC)
COLUMNS = [
    ("id", "Integral"),
    ("site", "String"),
    ("at", "Timestamp"),
    ("x", "Fractional"),
    ("narrow", "Fractional32"),
    ("flag", "Boolean"),
    ("day", "Date"),
    ("price", "Decimal(38, 5)"),
    ("words", "Set<String>"),
    ("point", "Vector(2)"),
    ("pair", "Struct<a: Integral, b: List<String>>"),
]


def group_of(name: str = "things", columns: list[tuple[str, str]] | None = None, **options: object) -> FeatureGroup:
    """A group keyed by (id, site) unless told otherwise; its folder is its own."""
    given = {"record_id": ["id", "site"], "event_time": "at", "now": time.time_ns() // 1000, **options}
    return define_group(name, schema=Schema.of(columns or COLUMNS), **given)


def rows_of(group: FeatureGroup, count: int, seed: int = 0, first: int = 1, keys: int = 9) -> pa.Table:
    """Unsorted rows with nulls, tombstones, expiries; ranks are unique from ``first`` on, some positive."""
    chance = random.Random(seed)
    schema = offline_schema(group)
    return pa.Table.from_pylist([_row(chance, schema, first + place, keys) for place in range(count)], schema=schema)


def _row(chance: random.Random, schema: pa.Schema, sequence: int, keys: int) -> dict[str, object]:
    deleted = chance.random() < 0.1
    row: dict[str, object] = {
        "id": chance.randrange(keys) - 3,
        "site": chance.choice(["", "a", "ab", "é", "\U0001f600", "z" * 40]),
        "at": START + timedelta(microseconds=chance.randrange(4) * 1_800_000_001),
        "api_invocation_time": START + timedelta(hours=9, microseconds=sequence),
        "write_time": START + timedelta(hours=10, microseconds=sequence),
        "is_deleted": deleted,
        "tilth_rank": chance.choice((-1, 1)) * sequence,
        "tilth_known_at": chance.choice((None, START)),
        "tilth_expires_at": chance.choice((None, START + timedelta(days=1))),
        "tilth_hard": deleted and chance.random() < 0.5,
        "tilth_offline_only": chance.random() < 0.1,
    }
    values: dict[str, object] = {
        "x": chance.random(),
        "narrow": 0.25 * sequence,
        "flag": chance.random() < 0.5,
        "day": date(1969, 12, 30) + timedelta(days=chance.randrange(5)),
        "price": Decimal(sequence) / 8,
        "words": ["a", None, "c"][: chance.randrange(4)],
        "point": [1.5, float(sequence)],
        "pair": {"a": sequence, "b": chance.choice((None, [], ["q", None]))},
    }
    for name in schema.names:
        if name not in row:
            row[name] = None if deleted or chance.random() < 0.2 else values.get(name)
    return row


def order_of(group: FeatureGroup):
    """Sort key of a row as a mapping: text by its UTF-8 bytes."""

    def key(row: dict[str, object]) -> tuple[object, ...]:
        names = (*group.record_id, group.event_time, "tilth_rank")
        return tuple(value.encode() if isinstance(value := row[name], str) else value for name in names)

    return key


def read_run(snapshot: Snapshot, place: int) -> pa.Table:
    """One run as its file has it."""
    run = snapshot.runs[place]
    return pq.read_table(f"{snapshot.folder}/{run.path}", filesystem=snapshot.files.filesystem)


def effective(snapshot: Snapshot) -> list[dict[str, object]]:
    """All rows of a snapshot as they count, in order."""
    rows: list[dict[str, object]] = []
    for place, run in enumerate(snapshot.runs):
        floor = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=run.committed_at)
        for row in read_run(snapshot, place).to_pylist():
            row["write_time"] = max(row["write_time"], floor.astimezone(row["write_time"].tzinfo))
            rows.append({name: row.get(name) for name in offline_schema(snapshot.group).names})
    return sorted(rows, key=order_of(snapshot.group))


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """``host:port`` of a moto S3 server."""
    if importlib.util.find_spec("moto"):
        command = [sys.executable, "-m", "moto.server"]
    elif found := os.environ.get("TILTH_TEST_MOTO_SERVER"):
        command = [found]
    else:
        raise MissingPart(
            "no S3 server: install moto[server,s3], or name another environment's moto_server in TILTH_TEST_MOTO_SERVER"
        )
    port = free_port()
    silent = subprocess.DEVNULL
    process = subprocess.Popen([*command, "-H", "127.0.0.1", "-p", str(port)], stdout=silent, stderr=silent)
    try:
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            if time.monotonic() > deadline or process.poll() is not None:
                raise AssertionError("the S3 server does not start")
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def s3_files(host: str) -> Files:
    """A place of its own in a bucket of its own."""
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    known = {"access_key": "key", "secret_key": "secret", "region": "us-east-1"}
    pafs.S3FileSystem(**known, endpoint_override=host, scheme="http", allow_bucket_creation=True).create_dir(bucket)
    return open_files(f"s3://key:secret@{bucket}/some/place?endpoint=http://{host}&region=us-east-1")


def local_files(folder: Path) -> Files:
    """A folder as files."""
    return open_files(folder.absolute().as_uri())
