"""Export of a group's history as Parquet in SageMaker's offline layout.

``<group>-<creation epoch seconds>/data/year=Y/month=M/day=D/hour=H/<latest event time>_<16 letters or digits>.parquet``
by the hour (UTC) of the event time; columns are the group's own, then ``api_invocation_time``, ``write_time`` and
``is_deleted``; the event time is given back in its declared form. Every row ever accepted is there, tombstones too.

Runs are sorted by key, so every hour is spread over all of them. A first pass reads event times alone and counts rows
per hour; hours are then packed into ranges that fit into memory, and each range is gathered in a pass of its own.
"""

from __future__ import annotations

import re
import secrets
import string
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.groups import FeatureGroup
from featurestore.offline import Snapshot, offline_schema
from featurestore.offline.runs import effective_rows, open_run, reordered
from foundation.files import Files, open_files

if TYPE_CHECKING:
    from foundation.progress import Progress

__all__ = ["ExportReport", "export_sagemaker", "hour_ranges"]

_HOUR = 3_600_000_000
_SECOND = 1_000_000
_MEMORY = 256 * 2**20
_BATCH = 2**16
_BUFFER = 2**20
_LETTERS = string.ascii_letters + string.digits
_APPENDED = ("api_invocation_time", "write_time", "is_deleted")


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        folder: URL of ``<group>-<creation epoch seconds>``.
        files, rows, bytes: written.
        version: the exported table version.
        seconds: wall time.
    """

    folder: str
    files: int
    rows: int
    bytes: int
    version: int
    seconds: float


def export_sagemaker(
    snapshot: Snapshot, destination: str | Path, *, memory: int = _MEMORY, progress: Progress | None = None
) -> ExportReport:
    """Write a snapshot's rows.

    Args:
        snapshot: what to export.
        destination: folder path or files URL; existing files stay (names are unique).
        memory: bytes of rows gathered at a time, roughly.
        progress: told about rows as they are written.

    Raises:
        InvalidInput: the destination's URL has an unknown scheme.
        NotFound: a file of the snapshot is gone.
    """
    started = time.perf_counter()
    files = _open(destination)
    group = snapshot.group
    folder = f"{group.name}-{group.created_at // _SECOND}"
    counts = _rows_per_hour(snapshot)
    total = sum(counts.values())
    if progress is not None:
        progress.start(total, "rows")
    limit = max(_BATCH, memory // (3 * 8 * len(offline_schema(group))))
    written: list[tuple[str, int]] = []
    for first, last in hour_ranges(counts, limit):
        for frame in _gather(snapshot, first, last, limit):
            for part in frame.partition_by("hour", maintain_order=True):
                written.append(_put(files, f"{folder}/data", group, part))
                if progress is not None:
                    progress.advance(part.height)
    if progress is not None:
        progress.done()
    url = f"{files.url}/{folder}"
    size = sum(size for _, size in written)
    return ExportReport(url, len(written), total, size, snapshot.version, time.perf_counter() - started)


def hour_ranges(counts: dict[int, int], limit: int) -> Iterator[tuple[int, int]]:
    """Pack hours, rising, into (first, last) ranges of at most ``limit`` rows; an hour with more stands alone.

    Args:
        counts: hour number since the epoch to row count.
        limit: rows, at least 1.
    """
    first: int | None = None
    last = held = 0
    for hour in sorted(counts):
        if first is not None and held + counts[hour] > limit:
            yield first, last
            first, held = None, 0
        first = hour if first is None else first
        last = hour
        held += counts[hour]
    if first is not None:
        yield first, last


def _open(destination: str | Path) -> Files:
    text = str(destination)
    is_url = re.match(r"[a-z][a-z0-9+.-]+://", text) is not None
    return open_files(text if is_url else Path(text).absolute().as_uri())


def _batches(snapshot: Snapshot, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
    schema = pa.schema([field for field in offline_schema(snapshot.group) if field.name in columns])
    for run in snapshot.runs:
        with open_run(snapshot.files, f"{snapshot.folder}/{run.path}", buffer=_BUFFER) as file:
            present = [name for name in schema.names if name in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=_BATCH, columns=present):
                yield effective_rows(pa.Table.from_batches([batch]), schema, run.committed_at)


def _rows_per_hour(snapshot: Snapshot) -> dict[int, int]:
    counts: dict[int, int] = {}
    name = snapshot.group.event_time
    for frame in _batches(snapshot, [name]):
        hours, found = np.unique(frame[name].to_physical().to_numpy() // _HOUR, return_counts=True)
        for hour, count in zip(hours.tolist(), found.tolist(), strict=True):
            counts[hour] = counts.get(hour, 0) + count
    return counts


def _gather(snapshot: Snapshot, first: int, last: int, limit: int) -> Iterator[pl.DataFrame]:
    """Rows of a range of hours with their ``hour``, by (event time, key), in pieces of about ``limit`` at most."""
    event = snapshot.group.event_time
    held: list[pl.DataFrame] = []
    rows = 0
    for frame in _batches(snapshot, [*snapshot.group.names, *_APPENDED]):
        hour = pl.col(event).to_physical().floordiv(_HOUR)
        inside = frame.with_columns(hour.alias("hour")).filter(pl.col("hour").is_between(first, last))
        if inside.height:
            held.append(inside)
            rows += inside.height
        if rows >= limit + _BATCH:
            yield reordered(pl.concat(held), [event])
            held, rows = [], 0
    if held:
        yield reordered(pl.concat(held), [event])


def _put(files: Files, data: str, group: FeatureGroup, rows: pl.DataFrame) -> tuple[str, int]:
    """Write one hour's rows durably: (path, bytes)."""
    hour = datetime.fromtimestamp(int(rows["hour"][0]) * 3600, UTC)
    latest = datetime.fromtimestamp(int(rows[group.event_time].to_physical().max()) // _SECOND, UTC)  # type: ignore[arg-type]
    suffix = "".join(secrets.choice(_LETTERS) for _ in range(16))
    folder = f"{data}/year={hour.year:04d}/month={hour.month:02d}/day={hour.day:02d}/hour={hour.hour:02d}"
    stamp = f"{latest.year:04d}{latest:%m%dT%H%M%SZ}"
    path = f"{folder}/{stamp}_{suffix}.parquet"
    if files.url.startswith("file:"):
        files.filesystem.create_dir(folder, recursive=True)
    table = _declared(rows, group)
    with files.filesystem.open_output_stream(path) as stream:
        pq.write_table(table, stream, compression="snappy")
        size = int(stream.tell())
    files.sync([path])
    return path, size


def _declared(rows: pl.DataFrame, group: FeatureGroup) -> pa.Table:
    """Rows as SageMaker writes them: the event time as ISO text, epoch seconds or timestamp, as it was declared."""
    schema = offline_schema(group)
    names = [*group.names, *_APPENDED]
    plain = rows.select(names).to_arrow(compat_level=pl.CompatLevel.oldest())
    table = plain.cast(pa.schema([schema.field(name) for name in names]))
    kind = group.feature(group.event_time).type
    if kind.kind == "Timestamp":
        return table
    micros = rows[group.event_time].to_physical().to_numpy()
    if kind.kind == "String":
        cells = pa.array([_iso(instant) for instant in micros.tolist()], pa.string())
    elif kind.kind == "Integral":
        cells = pa.array(micros // _SECOND, pa.int64())
    else:
        cells = pa.array(micros / _SECOND, kind.arrow)
    place = names.index(group.event_time)
    return table.set_column(place, pa.field(group.event_time, kind.arrow), cells)


def _iso(instant: int) -> str:
    """ISO 8601 in UTC: whole seconds, milliseconds where needed, microseconds only where they would be lost."""
    seconds, micros = divmod(instant, _SECOND)
    moment = datetime.fromtimestamp(seconds, UTC)
    text = f"{moment.year:04d}{moment:-%m-%dT%H:%M:%S}"
    if not micros:
        return f"{text}Z"
    return f"{text}.{micros // 1000:03d}Z" if micros % 1000 == 0 else f"{text}.{micros:06d}Z"
