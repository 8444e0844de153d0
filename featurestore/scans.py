"""Whole keys from the runs: every row of one, and the row each must have online."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pyarrow as pa

from featurestore.offline import Snapshot, offline_schema
from featurestore.offline.runs import effective_rows, open_run

__all__ = ["latest_rows", "rows_of"]


def _frames(snapshot: Snapshot) -> Iterator[pl.DataFrame]:
    schema = offline_schema(snapshot.group)
    for run in snapshot.runs:
        with open_run(snapshot.files, f"{snapshot.folder}/{run.path}") as file:
            for place in range(file.num_row_groups):
                yield effective_rows(file.read_row_group(place), schema, run.committed_at)


def rows_of(snapshot: Snapshot, key: tuple[object, ...], *, as_of: int | None = None) -> pa.Table:
    """Every row of a key in (event time, rank) order."""
    group = snapshot.group
    schema = offline_schema(group)
    same = [pl.col(name) == pl.lit(part) for name, part in zip(group.record_id, key, strict=True)]
    found = [frame.filter(*same) for frame in _frames(snapshot)]
    if not found:
        return schema.empty_table()
    rows = pl.concat(found).sort(group.event_time, "tilth_rank")
    if as_of is not None:
        rows = rows.filter(pl.col("write_time").cast(pl.Int64) <= as_of)
    return rows.to_arrow().cast(schema)


def latest_rows(snapshot: Snapshot) -> Iterator[pa.Table]:
    """The row each key must have online, and its barrier."""
    group = snapshot.group
    frames = list(_frames(snapshot))
    if not frames:
        return
    keys = list(group.record_id)
    rows = pl.concat(frames).filter(~pl.col("tilth_offline_only"))
    hard = pl.col("tilth_hard").fill_null(False)
    barrier = pl.when(hard).then(pl.col("tilth_rank").abs()).max().over(keys).fill_null(0).alias("barrier")
    rows = rows.with_columns(barrier).filter(pl.col("tilth_rank").abs() >= pl.col("barrier"))
    rows = rows.sort([*keys, hard.not_(), group.event_time, "tilth_rank"])
    last = rows.unique(keys, keep="last", maintain_order=True)
    schema = offline_schema(group).append(pa.field("barrier", pa.int64()))
    yield last.to_arrow().cast(schema)
