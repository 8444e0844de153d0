"""Quarantine: rows a load refused, kept with the reason in a Delta table per group, for people to look at.

A load's refused rows are durable before its accepted ones are visible. One commit cannot span two tables, so they are
named by the load: writing them again replaces them, and a load cut off between the two commits leaves no doubles.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.groups import FeatureGroup
from foundation import delta
from foundation.errors import Conflict, LimitExceeded, NotFound, PlatformError
from foundation.files import Files
from foundation.schema import INSTANT

__all__ = ["SCHEMA", "Quarantine", "Refused"]

SCHEMA = pa.schema(
    [
        pa.field("load", pa.string()),
        pa.field("at", INSTANT),
        pa.field("row", pa.int64()),
        pa.field("field", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("record", pa.string()),
    ]
)
"""Load id; when it was refused; number of the row in its source (from 0); field and reason; the row as JSON."""
_TRIES = 20
_LOOK_BACK = 100


@dataclass(frozen=True)
class Refused:
    """What one load left in the quarantine.

    Attributes:
        load: load id.
        at: instant (microseconds UTC).
        rows: how many rows.
        reasons: rows by (field, reason), most first.
    """

    load: str
    at: int
    rows: int
    reasons: dict[tuple[str, str], int]


class Quarantine:
    """Tables ``quarantine/<group.folder>`` below the workspace's files. Safe from several threads and processes.

    Args:
        files: where the tables live.
        root: folder below the root of ``files``.
    """

    def __init__(self, files: Files, root: str = "quarantine") -> None:
        self._files = files
        self._root = root

    def add(self, group: FeatureGroup, load: str, rejected: pa.Table, *, at: int) -> int:
        """Keep a load's refused rows, durably, in place of any it left before; return how many.

        Args:
            group: the group loaded into.
            load: load id; one load at a time may use it.
            rejected: ``frames.REJECTS``.
            at: instant of the refusal (microseconds UTC).

        Raises:
            LimitExceeded: the disk is full; nothing was written.
            Conflict: other loads kept coming first.
        """
        rows = _stamped(load, rejected, at)
        app = f"tilth/quarantine/{load}"
        for attempt in range(_TRIES):
            table = self._table(group, create=True)
            held = delta.position(table, app) or 0
            name = f"{load}-{held + 1}-{table.version()}.parquet"
            size = self._write(group, name, rows)
            file = delta.DataFile(name, size, rows.num_rows, at // 1000)
            old = [each for each in delta.files_of(table) if _load_of(each.path) == load]
            try:
                delta.commit(
                    table,
                    added=[file],
                    removed=old,
                    data_change=True,
                    app=(app, held + 1),
                    note={"load": load},
                    now=at // 1000,
                )
            except BaseException as error:
                if name not in {each.path for each in delta.files_of(self._table(group, create=False))}:
                    self._files.delete(f"{self._folder(group)}/{name}")
                if isinstance(error, Conflict) and attempt < _TRIES - 1:
                    continue
                raise
            self._sync_log(group, table.version() + 1)
            return int(rows.num_rows)
        raise AssertionError("unreachable")

    def loads(self, group: FeatureGroup) -> list[Refused]:
        """What is held for a group, newest load first."""
        frame = pl.from_arrow(self.read(group))
        assert isinstance(frame, pl.DataFrame)
        counted = frame.group_by("load", "field", "reason").agg(pl.len().alias("rows"), pl.col("at").max())
        found: dict[str, Refused] = {}
        for load, field, reason, rows, at in (
            counted.with_columns(pl.col("at").to_physical())
            .sort(["rows", "field", "reason"], descending=[True, False, False])
            .iter_rows()
        ):
            held = found.setdefault(load, Refused(load, at, 0, {}))
            reasons = {**held.reasons, (field, reason): rows}
            found[load] = Refused(load, max(held.at, at), held.rows + rows, reasons)
        return sorted(found.values(), key=lambda refused: -refused.at)

    def read(self, group: FeatureGroup, load: str | None = None, limit: int | None = None) -> pa.Table:
        """Refused rows (``SCHEMA``), newest load first, by row number within one.

        Args:
            group: the group loaded into.
            load: of this load only, its numbered parts (``<load>-...``) included.
            limit: at most so many rows.

        Raises:
            NotFound: the load named left nothing here.
        """
        try:
            files = delta.files_of(self._table(group, create=False))
        except NotFound:
            files = []
        chosen = [file for file in files if load is None or file.path.startswith(f"{load}-")]
        if load is not None and not chosen:
            raise NotFound.of("quarantined load", load, sorted({_load_of(file.path) for file in files}))
        parts, rows = [], 0
        for file in sorted(chosen, key=lambda file: (-file.modified_at, file.path)):
            if limit is not None and rows >= limit:
                break
            part = pq.read_table(f"{self._folder(group)}/{file.path}", filesystem=self._files.filesystem, schema=SCHEMA)
            parts.append(part)
            rows += part.num_rows
        whole = pa.concat_tables([SCHEMA.empty_table(), *parts])
        return whole if limit is None else whole.slice(0, limit)

    def drop(self, group: FeatureGroup) -> None:
        """Forget everything refused for a group."""
        self._files.delete(self._folder(group))

    def _folder(self, group: FeatureGroup) -> str:
        return f"{self._root}/{group.folder}"

    def _table(self, group: FeatureGroup, *, create: bool) -> delta.DeltaTable:
        folder = self._folder(group)
        location, options = f"{self._files.url}/{folder}", self._files.storage_options
        try:
            return delta.load(location, options=options)
        except NotFound:
            if not create:
                raise
        except PlatformError:
            if not delta.heal(self._files.filesystem, folder):
                raise
            return delta.load(location, options=options)
        self._files.filesystem.create_dir(folder, recursive=True)
        delta.create(location, SCHEMA, name=f"{group.name} quarantine", options=options)
        self._sync_log(group, 0)
        return delta.load(location, options=options)

    def _write(self, group: FeatureGroup, name: str, rows: pa.Table) -> int:
        path = f"{self._folder(group)}/{name}"
        with _undone(self._files, path):
            pq.write_table(rows, path, filesystem=self._files.filesystem, compression="zstd")
            self._files.sync([path])
        return int(self._files.filesystem.get_file_info(path).size)

    def _sync_log(self, group: FeatureGroup, version: int) -> None:
        """Make the commit durable, and those before it: another process may have died between commit and fsync."""
        paths = delta.log_paths(self._files.filesystem, self._folder(group))
        self._files.sync(path for each, path in paths.items() if each >= version - _LOOK_BACK)


def _load_of(path: str) -> str:
    """The load a file is named after: ``<load>-<version of the load>-<version of the table>.parquet``."""
    return path.rsplit("-", 2)[0]


def _stamped(load: str, rejected: pa.Table, at: int) -> pa.Table:
    count = rejected.num_rows
    columns = [
        pa.repeat(load, count),
        pa.repeat(at, count).cast(INSTANT),
        *(rejected.column(name) for name in ("row", "field", "reason", "record")),
    ]
    return pa.Table.from_arrays(columns, names=SCHEMA.names).cast(SCHEMA).sort_by("row")


@contextmanager
def _undone(files: Files, path: str) -> Iterator[None]:
    """Leave no part of a file behind when writing it fails."""
    try:
        yield
    except BaseException as error:
        files.delete(path)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LimitExceeded(
                "the disk is full", subject="quarantine", hint="free space; nothing of the load was written"
            ) from error
        raise
