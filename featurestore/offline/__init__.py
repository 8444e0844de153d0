"""Seam OfflineStore: every row ever accepted, as files sorted by (key, event time, rank) that other tools can read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from featurestore.groups import FeatureGroup
from foundation.schema import INSTANT

__all__ = ["SYSTEM_FIELDS", "Change", "OfflineStore", "Run", "Snapshot", "offline_schema"]

SYSTEM_FIELDS: tuple[pa.Field, ...] = (
    pa.field("api_invocation_time", INSTANT),
    pa.field("write_time", INSTANT),
    pa.field("is_deleted", pa.bool_()),
    pa.field("tilth_rank", pa.int64()),
    pa.field("tilth_known_at", INSTANT),
    pa.field("tilth_expires_at", INSTANT),
    pa.field("tilth_hard", pa.bool_()),
    pa.field("tilth_offline_only", pa.bool_()),
)
"""Appended to a group's own columns: AWS's three, then ours. ``tilth_known_at`` is null where it was not declared and
the write time counts; ``tilth_expires_at`` is null for never; ``tilth_hard`` marks hard deletes (deleted too)."""


def offline_schema(group: FeatureGroup) -> pa.Schema:
    """The offline table's Arrow schema: the group's columns, then SYSTEM_FIELDS."""
    schema = group.schema.arrow
    for field in SYSTEM_FIELDS:
        schema = schema.append(field)
    return schema


@dataclass(frozen=True)
class Run:
    """One immutable sorted file.

    Attributes:
        path: relative to the table's folder.
        rows: row count.
        size: bytes.
        committed_at: instant its commit named as its write time, 0 when the rows' own ``write_time`` is exact. For a
            bulk load a row's write time is the later of its own and this.
    """

    path: str
    rows: int
    size: int
    committed_at: int = 0


@dataclass(frozen=True)
class Snapshot:
    """A pinned version of a group's table.

    Attributes:
        group: the group.
        version: table version.
        folder: the table's folder, relative to the store's files root.
        runs: its files.
        files: the ``foundation.files.Files`` they are read through.
    """

    group: FeatureGroup
    version: int
    folder: str
    runs: tuple[Run, ...]
    files: Any


@dataclass(frozen=True)
class Change:
    """What one commit does.

    Attributes:
        added, removed: runs.
        app: (application id, version) recorded in the same commit; the commit fails if that id moved meanwhile.
        rewrite: True when no row changes (compaction).
        note: plain JSON kept in the commit's metadata.
    """

    added: Sequence[Run]
    removed: Sequence[Run] = ()
    app: tuple[str, int] | None = None
    rewrite: bool = False
    note: dict[str, Any] | None = None


class OfflineStore(Protocol):
    """A table per group."""

    def create(self, group: FeatureGroup) -> None:
        """Make an empty table; nothing happens when it is there."""

    def evolve(self, group: FeatureGroup) -> None:
        """Add the columns the table lacks."""

    def snapshot(self, group: FeatureGroup, version: int | None = None) -> Snapshot:
        """Pin the latest or a given version.

        Raises:
            NotFound: no such version, or its files were vacuumed away.
        """

    def position(self, group: FeatureGroup, app: str) -> int:
        """Version recorded for an application id, 0 for none."""

    def write_run(self, group: FeatureGroup, rows: pa.Table, name: str) -> Run:
        """Sort rows (``offline_schema``) by (key, event time, rank), write and fsync a file; visible after commit."""

    def commit(self, group: FeatureGroup, change: Change, *, expected: int) -> int:
        """Commit durably and return the table version.

        Args:
            group: the group.
            change: what to commit.
            expected: the version ``change.app``'s id must have now.

        Raises:
            Conflict: the application id moved since; reload and decide again.
        """

    def runs_since(self, group: FeatureGroup, version: int) -> Iterable[tuple[int, Run]]:
        """(version, run) of every bulk-load run added after a table version, oldest first."""

    def vacuum(self, group: FeatureGroup, *, keep_versions: Iterable[int], older_than: int) -> list[str]:
        """Delete files no kept version or no version younger than an instant needs; return their paths."""

    def drop(self, group: FeatureGroup) -> None:
        """Remove the table and its files."""
