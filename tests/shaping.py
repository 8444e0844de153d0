"""Functions pipelines of these tests name."""

from __future__ import annotations

import polars as pl
import pyarrow as pa

calls: list[int] = []


def doubled(table: pa.Table) -> pl.DataFrame:
    calls.append(table.num_rows)
    return pl.DataFrame(table).with_columns(pl.col("v").cast(pl.Int64) * 2)


def broken(table: pa.Table) -> pa.Table:
    if table.num_rows:
        raise ZeroDivisionError("no")
    return table


def shapeless(table: pa.Table) -> int:
    return table.num_rows
