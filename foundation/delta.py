"""Delta tables, thinly. The only importer of deltalake.

Facts this file rests on, observed with deltalake 1.6.6 and held by tests:

* A commit made with a table object that is older than another commit of the same application id is refused; commits of
  other ids and plain appends are rebased silently. A repeated version from a fresh object is *not* refused, so callers
  compare ``position`` first and commit with that very object.
* The object is not refreshed by its own commit.
* Nothing is fsynced on a local path; the caller does that with ``Files.sync``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from foundation.errors import Conflict, NotFound, NotSupported, PlatformError, Unavailable

__all__ = [
    "LOG",
    "Added",
    "DataFile",
    "DeltaTable",
    "LogEntry",
    "add_columns",
    "checkpoint",
    "columns_of",
    "commit",
    "create",
    "entries",
    "entry_path",
    "files_of",
    "heal",
    "load",
    "log_paths",
    "position",
    "refuse_foreign",
]

LOG = "_delta_log"
_ENTRY = re.compile(r"(\d{20})\.json")
_QUIET = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
_FOR_EVER = "interval 36500 days"
_CONFIGURATION = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": _FOR_EVER,
    "delta.deletedFileRetentionDuration": _FOR_EVER,
}
"""Old versions stay readable, also when another tool checkpoints or vacuums the table."""
_REFUSED_FEATURES = frozenset({"deletionVectors", "columnMapping"})


@dataclass(frozen=True)
class DataFile:
    """A file of a version, or one to add.

    Attributes:
        path: relative to the table.
        size: bytes.
        rows: row count.
        modified_at: milliseconds since the epoch.
        stats: Delta's statistics (``minValues``, ``maxValues``, ``nullCount``), for files to add.
    """

    path: str
    size: int
    rows: int
    modified_at: int = 0
    stats: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Added:
    """An ``add`` of a log entry: path relative to the table, bytes, rows, whether it brought data."""

    path: str
    size: int
    rows: int
    data_change: bool


@dataclass(frozen=True)
class LogEntry:
    """One commit, read from its log file.

    Attributes:
        version: table version it made.
        at: instant (microseconds UTC, millisecond grain) by the committer's clock.
        operation: Delta's word for it, e.g. ``WRITE``.
        added: files it added.
        removed: paths it removed.
        note: our metadata, ``{}`` when another tool committed.
    """

    version: int
    at: int
    operation: str
    added: tuple[Added, ...]
    removed: tuple[str, ...]
    note: Mapping[str, Any]


def create(location: str, schema: pa.Schema, *, name: str, options: Mapping[str, str]) -> None:
    """Make an empty table whose versions never expire; nothing happens when there is one."""
    DeltaTable.create(
        location,
        schema=schema,
        mode="ignore",
        name=name,
        configuration=dict(_CONFIGURATION),
        storage_options=dict(options) or None,
    )


def load(location: str, version: int | None = None, *, options: Mapping[str, str]) -> DeltaTable:
    """Open the latest or a given version.

    Raises:
        NotFound: no table, or no such version.
        PlatformError: the log cannot be read.
    """
    try:
        table = DeltaTable(location, storage_options=dict(options) or None)
        if version is not None and version != table.version():
            # asked for a version far ahead, delta-rs would list all those in between
            if not 0 <= version < table.version():
                raise _no_version(location, version)
            table.load_as_version(version)
        return table
    except TableNotFoundError as error:
        raise NotFound(f"there is no table at {location}", subject=f"table {location}") from error
    except DeltaError as error:
        if version is not None:
            raise _no_version(location, version) from error
        raise PlatformError(f"table {location} cannot be read: {error}", subject=f"table {location}") from error
    except OSError as error:
        raise Unavailable(f"table {location} cannot be reached: {error}", subject=f"table {location}") from error


def _no_version(location: str, version: int) -> NotFound:
    return NotFound(f"table {location} has no version {version}", subject=f"version {version}")


def refuse_foreign(table: DeltaTable) -> None:
    """Refuse a table on which plain file reads would give wrong rows.

    Raises:
        NotSupported: deletion vectors, column mapping or partitions, which only another tool can have put there.
    """
    protocol, metadata = table.protocol(), table.metadata()
    found = _REFUSED_FEATURES.intersection(protocol.reader_features or ())
    if metadata.configuration.get("delta.columnMapping.mode", "none") != "none":
        found |= {"columnMapping"}
    if metadata.configuration.get("delta.enableDeletionVectors") == "true":
        found |= {"deletionVectors"}
    if metadata.partition_columns:
        found |= {"partitions"}
    if found:
        raise NotSupported(
            f"table {table.table_uri} uses {', '.join(sorted(found))}",
            subject=f"table {table.table_uri}",
            hint="another tool changed it; only this store may write to it",
        )


def position(table: DeltaTable, app: str) -> int | None:
    """The version recorded for an application id, None for none."""
    found: int | None = table.transaction_version(app)
    return found


def columns_of(table: DeltaTable) -> list[str]:
    """Column names in table order."""
    return [column.name for column in table.schema().fields]


def files_of(table: DeltaTable) -> list[DataFile]:
    """The files of the loaded version; rows is -1 where the log does not say."""
    # Not pa.table(): that imports pandas where it is installed.
    actions = pa.RecordBatchReader.from_stream(table.get_add_actions()).read_all()
    if not actions.num_rows:
        return []
    wanted = actions.select(["path", "size_bytes", "num_records", "modification_time"])
    return [
        DataFile(path, size, -1 if rows is None else rows, modified)
        for path, size, rows, modified in zip(*(column.to_pylist() for column in wanted.columns), strict=True)
    ]


def commit(
    table: DeltaTable,
    *,
    added: Iterable[DataFile],
    removed: Iterable[DataFile],
    data_change: bool,
    app: tuple[str, int] | None,
    note: Mapping[str, Any],
    now: int,
) -> None:
    """Commit files in one transaction against the loaded version.

    Args:
        table: as loaded; its version is the fence.
        added: files that exist, with statistics.
        removed: files of the loaded version.
        data_change: False for a rewrite of the same rows.
        app: (application id, version) to record.
        note: plain JSON kept in the commit.
        now: milliseconds since the epoch.

    Raises:
        Conflict: the application id moved, or a removed file is gone, since the table was loaded.
    """
    actions: list[AddAction | RemoveAction] = [
        AddAction(file.path, file.size, {}, file.modified_at, data_change, _stats(file)) for file in added
    ]
    actions += [RemoveAction(file.path, data_change, now, size=file.size, partition_values={}) for file in removed]
    properties = CommitProperties(
        custom_metadata={"tilth": dict(note)}, app_transactions=[Transaction(*app)] if app else None
    )
    try:
        table.create_write_transaction(
            actions, "append", table.schema(), commit_properties=properties, post_commithook_properties=_QUIET
        )
    except CommitFailedError as error:
        raise Conflict(
            f"table {table.table_uri} changed during the commit: {error}",
            subject=f"table {table.table_uri}",
            hint="load the table and decide again",
        ) from error


def _stats(file: DataFile) -> str:
    return json.dumps({"numRecords": file.rows, **file.stats})


def add_columns(table: DeltaTable, schema: pa.Schema) -> None:
    """Add nullable columns.

    Raises:
        Conflict: another commit came first.
    """
    try:
        table.alter.add_columns(list(DeltaSchema.from_arrow(schema).fields), post_commithook_properties=_QUIET)
    except CommitFailedError as error:
        raise Conflict(f"table {table.table_uri} changed: {error}", hint="load the table and try again") from error


def checkpoint(table: DeltaTable) -> bool:
    """Write a checkpoint of the loaded version, so that later loads replay less; False when that failed."""
    try:
        table.create_checkpoint()
    except (DeltaError, OSError):
        return False
    return True


def entry_path(folder: str, version: int) -> str:
    """Path of a version's log file below the table's folder."""
    return f"{folder}/{LOG}/{version:020d}.json"


def log_paths(filesystem: pafs.FileSystem, folder: str) -> dict[int, str]:
    """Version to path of every log entry, rising."""
    found = filesystem.get_file_info(pafs.FileSelector(f"{folder}/{LOG}", allow_not_found=True))
    named = ((_ENTRY.fullmatch(info.base_name), info.path) for info in found)
    return dict(sorted((int(match[1]), path) for match, path in named if match))


def entries(filesystem: pafs.FileSystem, folder: str, first: int = 0, last: int | None = None) -> Iterator[LogEntry]:
    """Commits from version ``first`` to ``last`` (both included), in order.

    Raises:
        NotFound: a log entry in between is missing.
    """
    paths = log_paths(filesystem, folder)
    newest = max(paths, default=-1) if last is None else last
    for version in range(first, newest + 1):
        if version not in paths:
            raise NotFound(
                f"log entry {version} of table {folder} is missing",
                subject=f"version {version}",
                hint="another tool cleaned the log",
            )
        with filesystem.open_input_file(paths[version]) as file:
            yield _entry(version, file.read())


def _entry(version: int, text: bytes) -> LogEntry:
    info: dict[str, Any] = {}
    added: list[Added] = []
    removed: list[str] = []
    for line in text.splitlines():
        action = json.loads(line)
        if "commitInfo" in action:
            info = action["commitInfo"]
        elif "add" in action:
            add = action["add"]
            rows = json.loads(add.get("stats") or "{}").get("numRecords", -1)
            added.append(Added(add["path"], add["size"], rows, add["dataChange"]))
        elif "remove" in action:
            removed.append(action["remove"]["path"])
    at, word = info.get("timestamp", 0) * 1000, info.get("operation", "")
    return LogEntry(version, at, word, tuple(added), tuple(removed), info.get("tilth", {}))


def heal(filesystem: pafs.FileSystem, folder: str) -> list[str]:
    """Remove what a power loss can leave half-written in the log; return the paths removed.

    Checkpoints only repeat the entries, and an entry is confirmed to its writer after the fsync, so a torn newest entry
    was never confirmed.
    """
    found = filesystem.get_file_info(pafs.FileSelector(f"{folder}/{LOG}", allow_not_found=True))
    torn = [info.path for info in found if ".checkpoint." in info.base_name and not _is_parquet(filesystem, info)]
    torn += [info.path for info in found if torn and info.base_name == "_last_checkpoint"]
    newest = max((info for info in found if _ENTRY.fullmatch(info.base_name)), key=lambda i: i.path, default=None)
    if newest is not None and not _is_whole(filesystem, newest.path):
        torn.append(newest.path)
    for path in torn:
        filesystem.delete_file(path)
    return torn


def _is_parquet(filesystem: pafs.FileSystem, info: pafs.FileInfo) -> bool:
    with filesystem.open_input_file(info.path) as file:
        return bool(info.size >= 12 and file.read_at(4, info.size - 4) == b"PAR1")


def _is_whole(filesystem: pafs.FileSystem, path: str) -> bool:
    with filesystem.open_input_file(path) as file:
        lines = file.read().splitlines()
    try:
        return all(isinstance(json.loads(line), dict) for line in lines)
    except ValueError:
        return False
