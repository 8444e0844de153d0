"""DuckDB: a plain ``ASOF LEFT JOIN`` of a Parquet file to a spine. Runs in its own environment."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow.feather as feather

from benchmarks.sides.protocol import Clock, serve

_CONNECTION = duckdb.connect()


def spine(path: str) -> dict[str, Any]:
    """Hold the spine as a table of DuckDB's own: over Arrow it may misjudge its size and plan nested loops."""
    _CONNECTION.execute(f"CREATE OR REPLACE TEMP TABLE spine AS SELECT * FROM read_parquet('{path}')")
    return {"version": duckdb.__version__}


def join(path: str, features: list[str], out: str | None = None) -> dict[str, Any]:
    wanted = ", ".join(f"r.{name}" for name in features)
    query = (
        f"SELECT s.entity, s.event_timestamp, s.row, {wanted} FROM spine s ASOF LEFT JOIN read_parquet('{path}') r "
        "ON s.entity = r.entity AND s.event_timestamp >= r.event_timestamp"
    )
    with Clock() as clock:
        result = _CONNECTION.sql(query).to_arrow_table()
    if out:
        feather.write_feather(result, out, compression="uncompressed")
    return {"seconds": clock.seconds, "rows": len(result)}


if __name__ == "__main__":
    serve({"spine": spine, "join": join})
