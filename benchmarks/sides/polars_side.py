"""polars: ``join_asof``, the bare read, and Parquet to Parquet."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from benchmarks.sides.protocol import Clock, serve

_HELD: dict[str, pl.DataFrame] = {}


def spine(path: str) -> dict[str, Any]:
    _HELD["spine"] = pl.read_parquet(path)
    return {"rows": _HELD["spine"].height, "version": pl.__version__}


def join(path: str, features: list[str], is_sorted: bool, out: str | None = None) -> dict[str, Any]:
    """``join_asof`` by entity. A file sorted by (entity, time) is sorted within each entity, so it needs no sort."""
    with Clock() as clock:
        records = pl.scan_parquet(path).select("entity", "event_timestamp", *features)
        rows = _HELD["spine"].lazy()
        if is_sorted:
            rows = rows.sort("entity", "event_timestamp")
        else:
            records, rows = records.sort("event_timestamp"), rows.sort("event_timestamp")
        joined = rows.join_asof(records, on="event_timestamp", by="entity", check_sortedness=False).collect()
        result = joined.to_arrow()
    if out:
        feather.write_feather(result, out, compression="uncompressed")
    return {"seconds": clock.seconds, "rows": len(result)}


def read(paths: list[str], columns: list[str]) -> dict[str, Any]:
    """The bare read of columns, to Arrow."""
    with Clock() as clock:
        result = pl.read_parquet(paths, columns=columns).to_arrow()
    return {"seconds": clock.seconds, "rows": len(result)}


def read_arrow(paths: list[str], columns: list[str]) -> dict[str, Any]:
    """The same by pyarrow."""
    with Clock() as clock:
        result = pa.concat_tables([pq.read_table(path, columns=columns) for path in paths])
    return {"seconds": clock.seconds, "rows": len(result)}


def files(folder: str) -> dict[str, Any]:
    """Files of the latest version of the one Delta table below a folder."""
    (table,) = (log.parent for log in Path(folder).rglob("_delta_log"))
    return {"paths": sorted(deltalake.DeltaTable(table).file_uris())}


def rewrite(path: str, out: str, streaming: bool) -> dict[str, Any]:
    """Read Parquet and write it again, with the same compression."""
    Path(out).unlink(missing_ok=True)
    with Clock() as clock:
        if streaming:
            pl.scan_parquet(path).sink_parquet(out, compression="snappy")
        else:
            pl.read_parquet(path).write_parquet(out, compression="snappy")
    size = os.path.getsize(out)
    Path(out).unlink()
    return {"seconds": clock.seconds, "bytes": size}


if __name__ == "__main__":
    serve({"spine": spine, "join": join, "read": read, "read_arrow": read_arrow, "files": files, "rewrite": rewrite})
