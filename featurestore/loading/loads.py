"""Bulk loads: a whole source becomes sorted runs in one offline commit, then the newest record of each key goes online.

A load is named by the content of its source, and that name is committed with its rows: the same load again is a no-op.
Sequences are reserved in the log, so a load's rows take their place among concurrent writes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

import numpy as np
import polars as pl
import pyarrow as pa

from featurestore.groups import FeatureGroup, check_zone
from featurestore.instants import read_instants
from featurestore.loading.frames import coerce
from featurestore.loading.quarantine import Quarantine
from featurestore.offline import SYSTEM_FIELDS, Change, Run, Snapshot, offline_schema
from featurestore.offline.delta import DeltaStore
from featurestore.offline.runs import effective_rows, entity_starts, open_run, parse_name
from featurestore.online import OnlineStore
from featurestore.records import DELETED, LAST_INSTANT, OFFLINE, ONLINE, Row
from featurestore.values import ValueCodec
from featurestore.writes import Receipt, WriteLog
from featurestore.writes.pending import PendingLoad, PendingLoads
from foundation.ahead import ahead
from foundation.checks import Suite
from foundation.clock import Clock, micros_of_delta
from foundation.engines import Scan
from foundation.errors import InvalidInput, Unavailable
from foundation.locks import FileLock
from foundation.progress import Progress, Silent

__all__ = ["LoadOptions", "LoadReport", "Loader"]

_FORGET_AFTER = 24 * 3600 * 1_000_000
_PUBLISH_ROWS = 5_000
"""Rows made into Python objects at a time: more of them alive at once cost the garbage collector dearly."""
_PART_ROWS = 1_000
_MAX_DELAY = timedelta(days=365_250)


@dataclass(frozen=True)
class LoadOptions:
    """How a source is loaded.

    Attributes:
        gate: checks every batch must pass.
        on_error: ``"quarantine"`` keeps refused rows aside and loads the rest; ``"reject"`` refuses the whole load at
            the first refused row.
        known_at: a source column of moments, or a delay after the event time, saying when each row was known; None
            records the load's own time.
        zone: IANA zone for naive timestamps of this source.
        again: load even if the same content was loaded before.
        online, offline: which of the group's stores to write.
        ttl: life from event time, over the group's.
        progress: told about rows as they are done.
    """

    gate: Suite | None = None
    on_error: str = "quarantine"
    known_at: str | timedelta | None = None
    zone: str | None = None
    again: bool = False
    online: bool = True
    offline: bool = True
    ttl: timedelta | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ("quarantine", "reject"):
            raise InvalidInput(f"on_error {self.on_error!r} is unknown", hint='use "quarantine" or "reject"')
        check_zone("zone", self.zone)


@dataclass(frozen=True)
class LoadReport:
    """What a load did.

    Attributes:
        load: load id.
        rows: rows accepted and durable.
        rejected: rows in the quarantine.
        published: newest records handed to the online store.
        repeated: the same content had been loaded before, nothing was written.
        version: offline table version after the load.
        seconds: wall time.
        reasons: rejected rows by reason.
        readable: False when the online store was away; the rows are durable and go online with the next flush.
    """

    load: str
    rows: int
    rejected: int
    published: int
    repeated: bool
    version: int
    seconds: float
    reasons: dict[str, int] = field(default_factory=dict)
    readable: bool = True


class Loader:
    """Runs loads into one workspace's stores."""

    def __init__(
        self,
        log: WriteLog,
        online: OnlineStore,
        offline: DeltaStore,
        pending: PendingLoads,
        quarantine: Quarantine,
        *,
        clock: Clock,
        locks: Path,
        future_bound: timedelta,
        threads: int,
        settled: Callable[[FeatureGroup], None],
    ) -> None:
        self._log = log
        self._online = online
        self._offline = offline
        self._pending = pending
        self._quarantine = quarantine
        self._clock = clock
        self._locks = locks
        self._future = micros_of_delta(future_bound)
        self._threads = threads
        self._settled = settled

    def run(self, group: FeatureGroup, codec: ValueCodec, scan: Scan, options: LoadOptions) -> LoadReport:
        """Load a source; all of it is visible, or none.

        Raises:
            InvalidInput: the source does not fit the group, or a row was refused under ``on_error="reject"``.
            LimitExceeded: the disk is full; nothing became visible.
        """
        started = time.perf_counter()
        load = self._name(group, scan, options)
        with FileLock(self._locks / f"load-{load}.lock").held():
            if version := self._offline.position(group, _app(load)):
                self.recover(group, codec, own=load)
                return LoadReport(load, 0, 0, 0, True, version, time.perf_counter() - started)
            return self._load(group, codec, scan, options, load, started)

    def _load(
        self, group: FeatureGroup, codec: ValueCodec, scan: Scan, options: LoadOptions, load: str, started: float
    ) -> LoadReport:
        progress = options.progress or Silent()
        rejects: list[pa.Table] = []
        read = 0
        progress.start(scan.rows, "rows")
        with _Writing(self._threads, lambda rows: self._offline.write_run(group, rows, "load")) as writing:
            try:
                for batch in scan.batches():
                    rows, refused = self._accept(group, batch, scan, options, offset=read)
                    read += batch.num_rows
                    if refused.num_rows:
                        rejects.append(refused)
                    if rows.num_rows:
                        writing.add(self._ranked(group, rows))
                    progress.advance(batch.num_rows)
                runs = writing.finish()
                rejected = pa.concat_tables(rejects) if rejects else None
                if rejected is not None:
                    self._quarantine.add(group, load, rejected, at=self._clock.now())
                version = self._commit(group, load, runs)
            except BaseException:
                self._offline.discard(group, writing.written())
                raise
        try:
            published, readable = self._publish(group, codec, load), True
        except Unavailable:
            published, readable = 0, False
        progress.done()
        return LoadReport(
            load,
            sum(run.rows for run in runs),
            0 if rejected is None else rejected.num_rows,
            published,
            False,
            version,
            time.perf_counter() - started,
            _reasons(rejected),
            readable,
        )

    def run_online(
        self,
        group: FeatureGroup,
        codec: ValueCodec,
        scan: Scan,
        options: LoadOptions,
        step: Callable[[list[Row], tuple[str, int]], Receipt],
    ) -> LoadReport:
        """Load a source meant for the online store alone, through the log in numbered parts.

        A part that was taken before is passed over, so a load that was cut off goes on where it stopped.
        """
        started = time.perf_counter()
        load = self._name(group, scan, options)
        accepted = rejected = part = read = 0
        written = 0
        reasons: dict[str, int] = {}
        progress = options.progress or Silent()
        progress.start(scan.rows, "rows")
        for batch in scan.batches():
            table, refused = self._accept(group, batch, scan, options, offset=read)
            read += batch.num_rows
            if refused.num_rows:
                self._quarantine.add(group, f"{load}-{read}", refused, at=self._clock.now())
                rejected += refused.num_rows
                for reason, count in _reasons(refused).items():
                    reasons[reason] = reasons.get(reason, 0) + count
            for start in range(0, table.num_rows, _PART_ROWS):
                part += 1
                rows = [row._replace(flags=ONLINE) for row in rows_from(codec, table.slice(start, _PART_ROWS))]
                receipt = step(rows, (load, part))
                accepted += len(rows)
                written += receipt.count
            progress.advance(batch.num_rows)
        progress.done()
        return LoadReport(
            load, written, rejected, written, accepted > 0 and written == 0, 0, time.perf_counter() - started, reasons
        )

    def _name(self, group: FeatureGroup, scan: Scan, options: LoadOptions) -> str:
        """The load's id: source content, group, and every option that changes what its rows become.

        The gate is not part of it: the rows it let through before must not come in twice.
        """
        parts = (
            scan.identity,
            group.folder,
            str(options.known_at),
            str(options.zone),
            str(options.ttl),
            f"{options.online}{options.offline}",
            uuid4().hex if options.again else "",
        )
        return blake2b("\x00".join(parts).encode(), digest_size=12).hexdigest()

    def _accept(
        self, group: FeatureGroup, batch: pa.Table, scan: Scan, options: LoadOptions, *, offset: int
    ) -> tuple[pa.Table, pa.Table]:
        """Accepted rows as ``offline_schema`` (ranks still +1 or -1) and refused rows."""
        now = self._clock.now()
        known_name = options.known_at if isinstance(options.known_at, str) else None
        zone = options.zone or group.zone
        known_cells = _known_cells(batch, known_name, zone)
        if known_name is not None and known_name not in group.names:
            batch = batch.drop_columns([known_name])
        coerced = coerce(batch, group, text=scan.text, now=now, future_bound=self._future, zone=zone)
        table, positions, rejects = coerced.table, coerced.positions, coerced.rejects
        if options.gate is not None:
            table, positions, failed = _through(options.gate, table, positions)
            if failed.num_rows:
                rejects = pa.concat_tables([rejects, failed.cast(rejects.schema)])
        if rejects.num_rows and options.on_error == "reject":
            first = rejects.slice(0, 1).to_pylist()[0]
            raise InvalidInput(
                f"row {first['row'] + offset}: {first['reason']}",
                subject=f"column {first['field']!r}",
                hint=f"{rejects.num_rows} rows of this batch are refused; mend them, or quarantine them",
            )
        if offset and rejects.num_rows:
            place = rejects.schema.get_field_index("row")
            moved = pa.compute.add(rejects.column(place), pa.scalar(offset, pa.int64()))
            rejects = rejects.set_column(place, "row", moved)
        known = None if known_cells is None else known_cells.take(pa.array(positions))
        return self._system(group, table, options, known, now), rejects

    def _system(
        self, group: FeatureGroup, table: pa.Table, options: LoadOptions, known: pa.Array | None, now: int
    ) -> pa.Table:
        """Append SYSTEM_FIELDS; the rank is only a sign until sequences are reserved."""
        count = table.num_rows
        event = table.column(group.event_time).cast(pa.int64()).combine_chunks()
        ttl = options.ttl or group.ttl
        expires = pa.nulls(count, pa.int64()) if ttl is None else _later(event, ttl)
        if isinstance(options.known_at, timedelta):
            known = _later(event, options.known_at)
        moment = pa.scalar(now, pa.int64())
        cells = (
            _repeat(moment, count),
            _repeat(moment, count),
            _repeat(pa.scalar(False), count),
            _repeat(pa.scalar(1 if group.on_equal == "replace" else -1, pa.int64()), count),
            pa.nulls(count, pa.int64()) if known is None else known,
            expires,
            _repeat(pa.scalar(False), count),
            _repeat(pa.scalar(not options.online), count),
        )
        arrays = [cell.cast(field.type) for cell, field in zip(cells, SYSTEM_FIELDS, strict=True)]
        columns = [table.column(name) for name in group.names]
        return pa.Table.from_arrays([*columns, *arrays], schema=offline_schema(group))

    def _ranked(self, group: FeatureGroup, rows: pa.Table) -> pa.Table:
        """Rows with their ranks, from a block of sequences reserved for them."""
        first = self._log.reserve(group, rows.num_rows)
        sequences = np.arange(first, first + rows.num_rows, dtype=np.int64)
        signed = sequences if group.on_equal == "replace" else -sequences
        place = rows.schema.get_field_index("tilth_rank")
        return rows.set_column(place, rows.schema.field(place), pa.array(signed))

    def _commit(self, group: FeatureGroup, load: str, runs: list[Run]) -> int:
        """Make the load visible; its write time is the instant of this commit."""
        instant = self._clock.now()
        final = [self._offline.publish(group, run, instant) for run in runs]
        if group.online:
            self._pending.plan(group, PendingLoad(load, tuple(run.path for run in final), instant))
        try:
            version = self._offline.commit(group, Change(final, app=(_app(load), 1), note={"load": load}), expected=0)
        except BaseException:
            self._offline.discard(group, final)
            self._pending.finish(group, load)
            raise
        return version

    def _publish(self, group: FeatureGroup, codec: ValueCodec, load: str) -> int:
        published = 0
        for pending in self._pending.of(group):
            if pending.load == load:
                with ahead(newest_rows(self._offline.snapshot(group), codec, pending.runs)) as parts:
                    for rows in parts:
                        self._online.apply(group, rows)
                        published += len(rows)
                self._settled(group)
                self._pending.finish(group, load)
        return published

    def recover(self, group: FeatureGroup, codec: ValueCodec, *, own: str | None = None) -> None:
        """Finish loads that were cut off between the offline commit and the last online record.

        Args:
            group: whose loads.
            codec: of the group.
            own: a load whose lock the caller holds.
        """
        for pending in self._pending.of(group):
            if pending.load == own:
                self._finish(group, codec, pending)
                continue
            with FileLock(self._locks / f"load-{pending.load}.lock").attempt() as held:
                if held:
                    self._finish(group, codec, pending)

    def _finish(self, group: FeatureGroup, codec: ValueCodec, pending: PendingLoad) -> None:
        if self._offline.position(group, _app(pending.load)):
            self._publish(group, codec, pending.load)
        elif self._clock.now() - pending.started_at > _FORGET_AFTER:
            self._pending.finish(group, pending.load)


class _Writing:
    """Writes runs on a few threads while the next batch is read; at most as many batches are alive as threads."""

    def __init__(self, threads: int, write: Callable[[pa.Table], Run]) -> None:
        self._write = write
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tilth-load")
        self._room = threading.Semaphore(threads)
        self._runs: list[Future[Run]] = []

    def add(self, rows: pa.Table) -> None:
        """Write a batch soon; waits while all threads are busy. An earlier batch's failure is raised here."""
        self._room.acquire()
        for done in self._runs:
            if done.done():
                done.result()

        def work() -> Run:
            try:
                return self._write(rows)
            finally:
                self._room.release()

        self._runs.append(self._pool.submit(work))

    def finish(self) -> list[Run]:
        """Every run, in order, once all are written."""
        return [run.result() for run in self._runs]

    def written(self) -> list[Run]:
        """The runs that were written although others failed."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        return [run.result() for run in self._runs if not run.cancelled() and run.exception() is None]

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def newest_rows(snapshot: Snapshot, codec: ValueCodec, paths: tuple[str, ...]) -> Iterator[list[Row]]:
    """The newest row of each key within each row group of the named runs, as log rows ready for an online store."""
    schema = offline_schema(snapshot.group)
    for path in paths:
        committed_at = parse_name(path).committed_at
        with open_run(snapshot.files, f"{snapshot.folder}/{path}") as run:
            for place in range(run.num_row_groups):
                frame = effective_rows(run.read_row_group(place), schema, committed_at)
                starts = entity_starts(frame, snapshot.group.record_id)
                lasts = np.append(starts[1:], frame.height) - 1
                newest = frame[lasts]
                for start in range(0, newest.height, _PUBLISH_ROWS):
                    yield rows_from(codec, newest.slice(start, _PUBLISH_ROWS).to_arrow().cast(schema))


def rows_from(codec: ValueCodec, table: pa.Table) -> list[Row]:
    """Rows of ``offline_schema`` as log rows."""
    group = codec.group
    columns = codec.plain_columns(table)
    parts = [pl.Series(table.column(name)).to_list() for name in group.record_id]
    event = columns[group.names.index(group.event_time)]
    system = {f.name: _ints(table, f) for f in SYSTEM_FIELDS}
    values = list(zip(*columns, strict=True))
    keys = [codec.key(part) for part in (parts[0] if len(parts) == 1 else zip(*parts, strict=True))]
    flags = [
        (DELETED if deleted else 0) | (2 if hard else 0) | (0 if only else ONLINE) | OFFLINE
        for deleted, hard, only in zip(
            system["is_deleted"], system["tilth_hard"], system["tilth_offline_only"], strict=True
        )
    ]
    return [
        Row(key, at, rank, flag, expires or 0, known, written, called, group.version, cells)
        for key, at, rank, flag, expires, known, written, called, cells in zip(
            keys,
            event,
            system["tilth_rank"],
            flags,
            system["tilth_expires_at"],
            system["tilth_known_at"],
            system["write_time"],
            system["api_invocation_time"],
            values,
            strict=True,
        )
    ]


def _ints(table: pa.Table, field: pa.Field) -> list[int | None]:
    column = table.column(field.name)
    return pl.Series(column.cast(pa.int64()) if pa.types.is_timestamp(field.type) else column).to_list()


def _later(event: pa.Array, delay: timedelta) -> pa.Array:
    """Instants moved by a delay, at most to the end of the year 9999."""
    if abs(delay) > _MAX_DELAY:
        raise InvalidInput(f"{delay!r} is more than 1,000 years", subject="known_at", hint="give a shorter delay")
    moved = pa.compute.add(event, micros_of_delta(delay))
    return pa.compute.min_element_wise(moved, pa.scalar(LAST_INSTANT, pa.int64()))


def _repeat(value: pa.Scalar, count: int) -> pa.Array:
    return pa.repeat(value, count)


def _known_cells(batch: pa.Table, name: str | None, zone: str | None) -> pa.Array | None:
    """Declared known times of a batch as int64 microseconds, null where not declared."""
    if name is None:
        return None
    if name not in batch.column_names:
        raise InvalidInput(
            f"known_at column {name!r} is not in the source",
            subject=f"column {name!r}",
            hint=f"columns: {batch.column_names}",
        )
    cells = batch.column(name).combine_chunks()
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    known = read_instants(cells, zone=zone, numbers=True)
    for mask, reason in known.faults:
        if mask.any():
            row = int(np.flatnonzero(mask)[0])
            raise InvalidInput(
                f"known_at {name!r} of row {row} is {cells[row].as_py()!r}: {reason}",
                subject=f"column {name!r}",
                hint="give moments with a zone, or null where the time is not known",
            )
    return pa.array(known.micros, pa.int64(), mask=~known.valid)


def _through(gate: Suite, table: pa.Table, positions: np.ndarray) -> tuple[pa.Table, np.ndarray, pa.Table]:
    """Split a batch by the gate: passed rows, their positions, refused rows with reasons."""
    return gate.split(table, positions)


def _reasons(rejected: pa.Table | None) -> dict[str, int]:
    if rejected is None:
        return {}
    counts = rejected.column("reason").value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in counts}


def _app(load: str) -> str:
    return f"tilth/load/{load}"
