"""Appliers: log -> online and log -> offline, each carrying the position it has reached.

A row leaves the log only when every store it is meant for holds it durably: the offline commit is fsynced before the
log is trimmed.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from featurestore.groups import FeatureGroup
from featurestore.offline import SYSTEM_FIELDS, Change, OfflineStore, offline_schema
from featurestore.online import OnlineStore
from featurestore.records import DELETED, HARD, OFFLINE, ONLINE, Row
from featurestore.values import ValueCodec
from featurestore.writes import WriteLog
from foundation.errors import Conflict, Unavailable
from foundation.locks import FileLock

__all__ = ["LOG_APP", "Appliers", "OnlineLost", "offline_table"]

LOG_APP = "tilth/log"
"""Application id under which the offline table records its position in the log."""
_FLUSH_ROWS = 100_000
_APPLY_ROWS = 5_000


class OnlineLost(Unavailable):
    """The online store is behind what it had applied before: it lost its memory and must be rebuilt."""


class Appliers:
    """Moves logged rows into the stores of one workspace.

    Args:
        log: the durable log.
        online: the online store; when it is fused with the log its rows are there already.
        offline: the offline store.
        locks: folder for lock files. Rows reach a store that is not fused in log order, one process at a time.
    """

    def __init__(self, log: WriteLog, online: OnlineStore, offline: OfflineStore, locks: Path) -> None:
        self._log = log
        self._online = online
        self._offline = offline
        self._locks = locks
        self._held: dict[int, FileLock] = {}

    def catch_up(self, group: FeatureGroup, through: int | None = None) -> None:
        """Apply logged rows online, at least up to a sequence (default: the log's end as it is now).

        Raises:
            OnlineLost: the store is behind what it had applied before.
            Unavailable: the online store does not answer; the rows stay in the log.
        """
        if self._online.abilities.fused or not group.online:
            return
        with self._lock(group).held():
            position = self._check(group)
            end = self._log.head(group) if through is None else through
            while position < end and (pairs := self._log.read(group, position, _APPLY_ROWS)):
                position = pairs[-1][0]
                self._online.apply(group, [row for _, row in pairs], position)
            if position < end:
                self._online.apply(group, [], end)

    def settle_load(self, group: FeatureGroup) -> None:
        """Remember that a load is online, so that a store which loses it is noticed."""
        if not self._online.abilities.fused and group.online:
            self.catch_up(group)
            self._log.mark(group, self._online.position(group))

    def check_online(self, group: FeatureGroup) -> None:
        """Refuse to go on with an online store that lost what it had applied.

        Raises:
            OnlineLost: the store is behind what it had applied before.
        """
        if not self._online.abilities.fused and group.online:
            self._check(group)

    def _check(self, group: FeatureGroup) -> int:
        """The online store's position, when it can be trusted."""
        position = self._online.position(group)
        if position < self._log.marked(group):
            raise OnlineLost(
                f"the online store has lost records of group {group.name!r}",
                subject=f"feature group {group.name!r}",
                hint=f"run `tilth rebuild {group.name}`: the offline store and the log have everything",
            )
        return position

    def flush(self, group: FeatureGroup, codec: ValueCodec, *, online: bool = True) -> int:
        """Bring the stores up to the log's end as it is now, then trim the log; return rows committed offline.

        Safe with other flushers: the position committed with the rows decides who was first.

        Args:
            group: the group.
            codec: of the group.
            online: False to leave the online store alone, for readers who only need the offline one.
        """
        if not self._log.read(group, 0, 1):
            return 0
        flushed = self._flush_offline(group, codec) if group.offline else 0
        if online:
            self.catch_up(group)
            self._trim(group)
        return flushed

    def _flush_offline(self, group: FeatureGroup, codec: ValueCodec) -> int:
        flushed = 0
        # Rows that arrive from here on are for the next flush: under busy writers this one must end too.
        end = self._log.head(group)
        position = self._offline.position(group, LOG_APP)
        while position < end and (pairs := self._log.read(group, position, _FLUSH_ROWS)):
            last = pairs[-1][0]
            rows = [row for _, row in pairs if row.flags & OFFLINE]
            added = []
            if rows:
                added = [self._offline.write_run(group, offline_table(codec, rows), "log")]
            try:
                self._offline.commit(group, Change(added, app=(LOG_APP, last)), expected=position)
            except Conflict:
                # Someone else flushed these rows; their commit, not our orphan file, counts.
                moved = self._offline.position(group, LOG_APP)
                if moved <= position:
                    raise
                position = moved
                continue
            position = last
            flushed += len(rows)
        return flushed

    def _trim(self, group: FeatureGroup) -> None:
        through = self._log.head(group)
        if group.offline:
            through = min(through, self._offline.position(group, LOG_APP))
        if group.online and not self._online.abilities.fused:
            through = min(through, self._online.position(group))
        if through:
            self._log.trim(group, through)

    def _lock(self, group: FeatureGroup) -> FileLock:
        if group.number not in self._held:
            self._held[group.number] = FileLock(self._locks / f"apply-{group.number}.lock")
        return self._held[group.number]


def offline_table(codec: ValueCodec, rows: list[Row]) -> pa.Table:
    """Rows as a table of ``offline_schema``."""
    columns = codec.to_arrow([row.values for row in rows])
    flags = [row.flags for row in rows]
    system: tuple[list[object], ...] = (
        [row.invocation_time for row in rows],
        [row.write_time for row in rows],
        [bool(flag & DELETED) for flag in flags],
        [row.rank for row in rows],
        [row.known_at for row in rows],
        [row.expires_at or None for row in rows],
        [bool(flag & HARD) for flag in flags],
        [not flag & ONLINE for flag in flags],
    )
    arrays = [pa.array(cells, field.type) for cells, field in zip(system, SYSTEM_FIELDS, strict=True)]
    return pa.Table.from_arrays([*columns, *arrays], schema=offline_schema(codec.group))
