"""OfflineStore on Delta tables: a folder or s3://, the same class over other files.

One table per group, no partitions, every data file a sorted run. Durable order on a local disk: data file and its
directory before the commit (``write_run``, ``publish``), the log entry and its directory before ``commit`` returns.
Log entries are kept for ever, so old versions stay readable until ``vacuum`` deletes their files.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.fs as pafs

from featurestore.groups import FeatureGroup
from featurestore.offline import Change, Run, Snapshot, offline_schema
from featurestore.offline.footers import read_footer, stats_of
from featurestore.offline.retention import lives, spare
from featurestore.offline.runs import (
    is_run_name,
    move,
    parse_name,
    published_name,
    sort_rows,
)
from featurestore.offline.sink import RunSink
from foundation import delta
from foundation.clock import Clock, system_clock
from foundation.errors import Conflict, InvalidInput, NotFound, NotSupported, PlatformError, Unavailable
from foundation.files import Files

__all__ = ["DeltaStore"]

_CHECKPOINT_EVERY = 32
_TRIES = 20
_GRACE = 86_400_000_000
"""A file this young (microseconds) may belong to a write under way."""
_LOOK_BACK = 100
"""Log entries a process fsyncs before its first own one: another process may have died between commit and fsync."""


class DeltaStore:
    """See ``featurestore.offline.OfflineStore``. Safe from several threads and processes at once.

    Args:
        files: where the tables live.
        root: folder below the root of ``files``; a group's table is ``<root>/<group.folder>``.
        clock: gives the instants of removals and of vacuum's grace.
    """

    def __init__(self, files: Files, root: str = "offline", *, clock: Clock = system_clock) -> None:
        self.files = files
        self.root = root
        self.clock = clock
        self._durable: dict[str, int] = {}

    def folder(self, group: FeatureGroup) -> str:
        """The table's folder, relative to the root of ``files``."""
        return f"{self.root}/{group.folder}"

    def create(self, group: FeatureGroup) -> None:
        """Make an empty table; nothing happens when it is there."""
        folder = self.folder(group)
        delta.create(self._location(folder), offline_schema(group), name=group.name, options=self.files.storage_options)
        self._sync_log(folder, 0)

    def evolve(self, group: FeatureGroup) -> None:
        """Add the columns the table lacks.

        Raises:
            Conflict: other commits kept coming first.
        """
        for attempt in range(_TRIES):
            table = self._open(group)
            missing = set(offline_schema(group).names) - set(delta.columns_of(table))
            if not missing:
                return
            added = pa.schema([field for field in offline_schema(group) if field.name in missing])
            try:
                delta.add_columns(table, added)
            except Conflict:
                if attempt == _TRIES - 1:
                    raise
                continue
            self._sync_log(self.folder(group), max(delta.log_paths(self.files.filesystem, self.folder(group))))

    def snapshot(self, group: FeatureGroup, version: int | None = None) -> Snapshot:
        """Pin the latest or a given version; runs come ordered by file name.

        Raises:
            NotFound: no such version, or its files were vacuumed away.
            NotSupported: another tool changed the table so that its files cannot be read as they are.
        """
        table = self._open(group, version)
        folder = self.folder(group)
        runs = tuple(sorted((_run_of(file) for file in delta.files_of(table)), key=lambda run: run.path))
        gone = sorted({run.path for run in runs}.difference(self._listing(folder)))
        if gone:
            raise NotFound(
                f"version {table.version()} of group {group.name!r} needs files that are gone, {gone[0]!r} first",
                subject=f"version {table.version()}",
                hint="it was vacuumed; use a later version",
            )
        return Snapshot(group, table.version(), folder, runs, self.files)

    def position(self, group: FeatureGroup, app: str) -> int:
        """Version recorded for an application id, 0 for none."""
        return delta.position(self._open(group), app) or 0

    def write_run(self, group: FeatureGroup, rows: pa.Table, name: str) -> Run:
        """Sort rows and write a file; durable when it returns, not visible until ``commit``.

        Args:
            group: the group.
            rows: ``offline_schema(group)``, any order; may be empty.
            name: first word of the file name: ``log``, ``load``, ...

        Raises:
            InvalidInput: rows that do not fit the schema, a null key, event time or rank, or an illegal name.
            LimitExceeded: the disk is full; nothing is left behind.
        """
        sink = RunSink(self.files, self.folder(group), group, name)
        try:
            sink.write(sort_rows(group, rows))
            return sink.close()[0]
        except BaseException:
            sink.abort()
            raise

    def publish(self, group: FeatureGroup, run: Run, committed_at: int) -> Run:
        """Give a load's run the instant its commit will name, durably; call right before ``commit``.

        The instant goes into the file name, where every snapshot finds it again.
        """
        folder = self.folder(group)
        name = published_name(run.path, committed_at)
        move(self.files, f"{folder}/{run.path}", f"{folder}/{name}")
        return dataclasses.replace(run, path=name, committed_at=committed_at)

    def discard(self, group: FeatureGroup, runs: Iterable[Run]) -> None:
        """Delete files that were written but not committed; those the table holds stay, however the commit ended."""
        held = {file.path for file in delta.files_of(self._open(group))}
        for run in runs:
            if run.path not in held:
                self.files.delete(f"{self.folder(group)}/{run.path}")

    def commit(self, group: FeatureGroup, change: Change, *, expected: int = 0) -> int:
        """Commit durably and return the table version the commit made.

        ``expected`` counts only when ``change.app`` is given. A change without runs records the position alone.

        Raises:
            Conflict: the application id moved, or a removed run is gone; reload and decide again.
            NotFound: the table or an added file does not exist.
        """
        folder = self.folder(group)
        table = self._open(group)
        if change.app is not None:
            held = delta.position(table, change.app[0]) or 0
            if held != expected:
                raise Conflict(
                    f"position of {change.app[0]!r} in group {group.name!r} is {held}, expected {expected}",
                    subject=f"feature group {group.name!r}",
                    hint="another process committed; read the position and decide again",
                )
        added = [self._file_of(group, run) for run in change.added]
        removed = self._removed(group, table, change.removed)
        marker = uuid.uuid4().hex
        delta.commit(
            table,
            added=added,
            removed=removed,
            data_change=not change.rewrite,
            app=change.app,
            note={**(change.note or {}), "commit": marker},
            now=self.clock.now() // 1000,
        )
        version = self._made(folder, table.version() + 1, marker)
        self._sync_log(folder, version)
        if version % _CHECKPOINT_EVERY == 0:
            self._checkpoint(group)
        return version

    def runs_since(self, group: FeatureGroup, version: int) -> Iterator[tuple[int, Run]]:
        """(version, run) of every bulk-load run added after a table version, oldest first, merged away or not."""
        for entry in delta.entries(self.files.filesystem, self.folder(group), version + 1):
            for add in entry.added:
                committed_at = parse_name(add.path).committed_at if add.data_change else 0
                if committed_at:
                    yield entry.version, Run(add.path, add.rows, add.size, committed_at)

    def vacuum(self, group: FeatureGroup, *, keep_versions: Iterable[int], older_than: int) -> list[str]:
        """Delete files that only old versions need; return their paths relative to the table's folder.

        Versions in ``keep_versions``, the newest one and every one in force at or after ``older_than`` stay readable;
        the others answer NotFound from now on. Files no commit knows (of a write under way, or one that was cut off)
        are deleted when older than that and than a day.

        Raises:
            NotFound: a version to keep does not exist, or another tool cleaned the log.
        """
        folder = self.folder(group)
        newest = self._open(group).version()
        listing = self._listing(folder)
        present = {name: info.mtime_ns // 1000 for name, info in listing.items() if is_run_name(name)}
        known = lives(delta.entries(self.files.filesystem, folder))
        chosen = spare(
            known,
            present,
            newest=newest,
            keep_versions=set(keep_versions),
            older_than=older_than,
            orphans_before=self.clock.now() - _GRACE,
        )
        for path in chosen:
            self.files.delete(f"{folder}/{path}")
        return chosen

    def history(self, group: FeatureGroup) -> list[delta.LogEntry]:
        """Every commit of the table, oldest first."""
        self._open(group)
        return list(delta.entries(self.files.filesystem, self.folder(group)))

    def drop(self, group: FeatureGroup) -> None:
        """Remove the table and its files."""
        self.files.delete(self.folder(group))
        self._durable.pop(self.folder(group), None)

    def _open(self, group: FeatureGroup, version: int | None = None) -> delta.DeltaTable:
        folder = self.folder(group)
        location, options = self._location(folder), self.files.storage_options
        try:
            table = delta.load(location, version, options=options)
        except NotFound as error:
            raise NotFound(
                f"group {group.name!r} has no offline version {version}"
                if version is not None
                else f"group {group.name!r} has no offline table",
                subject=f"feature group {group.name!r}",
            ) from error
        except Unavailable:
            raise
        except PlatformError:
            if not delta.heal(self.files.filesystem, folder):
                raise
            table = delta.load(location, version, options=options)
        delta.refuse_foreign(table)
        return table

    def _location(self, folder: str) -> str:
        """The table's URL. delta-rs decodes it twice, so a ``%`` in a folder's own name leads elsewhere."""
        if "%25" in self.files.url:
            raise NotSupported(
                f"the folder of {self.files.url} has a '%' in its name",
                subject=f"folder {self.files.url}",
                hint="Delta tables cannot live there; use a path without '%'",
            )
        return f"{self.files.url}/{folder}"

    def _listing(self, folder: str) -> dict[str, pafs.FileInfo]:
        found = self.files.filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
        return {info.base_name: info for info in found if info.type == pafs.FileType.File}

    def _file_of(self, group: FeatureGroup, run: Run) -> delta.DataFile:
        footer = read_footer(self.files, f"{self.folder(group)}/{run.path}")
        modified = (run.committed_at or self.clock.now()) // 1000
        return delta.DataFile(run.path, run.size, footer.num_rows, modified, stats_of(footer, group))

    def _removed(self, group: FeatureGroup, table: delta.DeltaTable, runs: Iterable[Run]) -> list[delta.DataFile]:
        wanted = {run.path for run in runs}
        present = {file.path: file for file in delta.files_of(table) if file.path in wanted} if wanted else {}
        if gone := sorted(wanted.difference(present)):
            raise Conflict(
                f"run {gone[0]!r} of group {group.name!r} was removed by another commit",
                subject=f"feature group {group.name!r}",
                hint="take a new snapshot and decide again",
            )
        return [present[path] for path in sorted(present)]

    def _made(self, folder: str, first: int, marker: str) -> int:
        for entry in delta.entries(self.files.filesystem, folder, first):
            if entry.note.get("commit") == marker:
                return entry.version
        raise PlatformError(f"the commit to {folder} cannot be found in its log", subject=f"table {folder}")

    def _sync_log(self, folder: str, version: int) -> None:
        """Make log entries durable up to a version: a later entry is worth nothing without the ones before it."""
        first = self._durable.get(folder, version - 1 - _LOOK_BACK) + 1
        self.files.sync([delta.entry_path(folder, each) for each in range(max(0, first), version + 1)])
        self._durable[folder] = max(version, self._durable.get(folder, 0))

    def _checkpoint(self, group: FeatureGroup) -> None:
        folder = self.folder(group)
        if not delta.checkpoint(self._open(group)):
            return
        log = f"{folder}/{delta.LOG}"
        found = self.files.filesystem.get_file_info(pafs.FileSelector(log))
        derived = [info.path for info in found if ".checkpoint." in info.base_name]
        self.files.sync([*sorted(derived)[-1:], f"{log}/_last_checkpoint"])


def _run_of(file: delta.DataFile) -> Run:
    try:
        name = parse_name(file.path)
    except InvalidInput as error:
        raise NotSupported(
            f"the table holds {file.path!r}, which another tool wrote",
            subject=f"file {file.path!r}",
            hint="only this store may write to it; restore the last version it wrote",
        ) from error
    return Run(file.path, file.rows, file.size, name.committed_at)
