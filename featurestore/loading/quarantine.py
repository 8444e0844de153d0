"""Quarantine: rows a load refused, kept with the reason in a Delta table per group, for people to look at.

A load's refused rows are durable before its accepted ones are visible. One commit cannot span two tables, so they are
named by the load: writing them again replaces them, and a load cut off between the two commits leaves no doubles.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from featurestore.groups import FeatureGroup
from foundation.appends import AppendTable
from foundation.errors import NotFound
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
        return self._table(group).append(load, [_stamped(load, rejected, at)], at=at)

    def loads(self, group: FeatureGroup) -> list[Refused]:
        """What is held for a group, newest load first."""
        frame = pl.from_arrow(self.read(group))
        assert isinstance(frame, pl.DataFrame)
        counted = frame.group_by("load", "field", "reason").agg(pl.len().alias("rows"), pl.col("at").max())
        ordered = counted.sort(["rows", "field", "reason"], descending=[True, False, False])
        found: dict[str, Refused] = {}
        for load, field, reason, rows, at in ordered.with_columns(pl.col("at").to_physical()).iter_rows():
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
        table = self._table(group)
        files = table.files()
        chosen = [file for file in files if load is None or file.path.startswith(f"{load}-")]
        if load is not None and not chosen:
            raise NotFound.of("quarantined load", load, sorted({file.name for file in files}))
        parts, rows = [SCHEMA.empty_table()], 0
        for part in table.read(chosen):
            parts.append(part)
            rows += part.num_rows
            if limit is not None and rows >= limit:
                break
        whole = pa.concat_tables(parts)
        return whole if limit is None else whole.slice(0, limit)

    def drop(self, group: FeatureGroup) -> None:
        """Forget everything refused for a group."""
        self._table(group).drop()

    def _table(self, group: FeatureGroup) -> AppendTable:
        return AppendTable(self._files, f"{self._root}/{group.folder}", SCHEMA, title=f"{group.name} quarantine")


def _stamped(load: str, rejected: pa.Table, at: int) -> pa.Table:
    count = rejected.num_rows
    columns = [
        pa.repeat(load, count),
        pa.repeat(at, count).cast(INSTANT),
        *(rejected.column(name) for name in ("row", "field", "reason", "record")),
    ]
    return pa.Table.from_arrays(columns, names=SCHEMA.names).cast(SCHEMA).sort_by("row")
