"""Ours, through the public names only."""

from __future__ import annotations

import shutil
import time
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

import featurestore
from benchmarks.sides.protocol import Clock, serve

_HELD: dict[str, Any] = {}


def opened(path: str, online: str | None = None) -> dict[str, Any]:
    if "store" in _HELD:
        _HELD.pop("store").close()
    _HELD["store"] = featurestore.open(path) if online is None else featurestore.open(path, online=online)
    return {}


def close(remove: str | None = None) -> dict[str, Any]:
    """Close the store; delete a workspace."""
    _HELD.pop("store").close()
    if remove is not None:
        shutil.rmtree(remove)
    return {}


def spine(path: str) -> dict[str, Any]:
    _HELD["spine"] = pq.read_table(path)
    return {"rows": len(_HELD["spine"])}


def create(name: str, path: str, online: bool, offline: bool = True, drop: list[str] | None = None) -> dict[str, Any]:
    """A group shaped as a Parquet file, without some of its columns."""
    schema = pq.read_schema(path).remove_metadata()
    schema = pa.schema([field for field in schema if field.name not in (drop or [])])
    _HELD["store"].create_group(
        name, record_id="entity", event_time="event_timestamp", schema=schema, online=online, offline=offline
    )
    return {}


def ingest(name: str, path: str, known_at: str | None = None) -> dict[str, Any]:
    with Clock() as clock:
        report = _HELD["store"].ingest(name, path, known_at=known_at)
    return {
        "seconds": clock.seconds,
        "rows": report.rows,
        "rejected": report.rejected,
        "repeated": report.repeated,
        "published": report.published,
    }


def ingest_frame(name: str, path: str) -> dict[str, Any]:
    """Ingest a table that is in memory already."""
    table = pq.read_table(path)
    with Clock() as clock:
        report = _HELD["store"].ingest(name, table)
    return {"seconds": clock.seconds, "rows": report.rows}


def compact(name: str) -> dict[str, Any]:
    with Clock() as clock:
        _HELD["store"].compact(name)
    return {"seconds": clock.seconds}


def join(
    groups: list[str], features: list[str], known: bool = False, prefix: bool = False, out: str | None = None
) -> dict[str, Any]:
    """A time-travel join of the spine, as Arrow."""
    with Clock() as clock:
        dataset = _HELD["store"].dataset(_HELD["spine"], event_time="event_timestamp")
        for name in groups:
            dataset = dataset.join(name, on="entity", features=features, prefix=f"{name}__" if prefix else None)
        if known:
            dataset = dataset.known_by("row")
        result = dataset.to_arrow()
    if out:
        feather.write_feather(result, out, compression="uncompressed")
    return {"seconds": clock.seconds, "rows": len(result)}


def get(name: str, keys: list[int]) -> dict[str, Any]:
    """One record at a time; seconds of each call."""
    read, now = _HELD["store"].get_record, time.perf_counter_ns
    times = []
    for key in keys:
        start = now()
        read(name, key)
        times.append(now() - start)
    return {"seconds": median(times) / 1e9, "times": [each / 1e9 for each in times]}


def get_batches(name: str, batches: list[list[int]]) -> dict[str, Any]:
    """Many records a call; seconds of each call."""
    read, now = _HELD["store"].get_records, time.perf_counter_ns
    times = []
    for keys in batches:
        start = now()
        read([(name, keys)])
        times.append(now() - start)
    return {"seconds": median(times) / 1e9, "times": [each / 1e9 for each in times]}


def bare(url: str, keys: list[str]) -> dict[str, Any]:
    """redis-py's own GET of stored records, one at a time; keys in hexadecimal."""
    import redis

    if _HELD.get("url") != url:
        _HELD["url"], _HELD["client"] = url, redis.Redis.from_url(url)
    read, now = _HELD["client"].get, time.perf_counter_ns
    names = [bytes.fromhex(key) for key in keys]
    times, size = [], 0
    for name in names:
        start = now()
        value = read(name)
        times.append(now() - start)
        size += len(value)
    return {"seconds": median(times) / 1e9, "times": [each / 1e9 for each in times], "bytes": size / len(names)}


def peek(name: str, keys: list[int]) -> dict[str, Any]:
    """What it answers, to compare."""
    found = [_HELD["store"].get_record(name, key) for key in keys]
    return {"answer": [{k: v for k, v in each.items() if k != "event_timestamp"} if each else None for each in found]}


if __name__ == "__main__":
    verbs = (opened, close, spine, create, ingest, ingest_frame, compact, join, get, get_batches, bare, peek)
    serve({verb.__name__: verb for verb in verbs})
