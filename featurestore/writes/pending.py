"""Bulk loads under way: enough, on disk, for any process to finish publishing one that was cut off."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import msgspec

from featurestore.groups import FeatureGroup
from foundation.lmdb import Environment

__all__ = ["PendingLoad", "PendingLoads"]

_GROUP = struct.Struct(">I")


@dataclass(frozen=True)
class PendingLoad:
    """A load whose rows may be in the offline table and not yet online.

    Attributes:
        load: load id.
        runs: its files' paths in the table folder, in row order.
        started_at: instant it was written down.
    """

    load: str
    runs: tuple[str, ...]
    started_at: int


class PendingLoads:
    """Written before the offline commit, removed after the last row is online."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._loads = environment.databases["loads"]

    def plan(self, group: FeatureGroup, pending: PendingLoad) -> None:
        """Remember a load, durably."""
        data = msgspec.msgpack.encode([pending.load, pending.runs, pending.started_at])
        with self._environment.write() as transaction:
            transaction.put(_place(group, pending.load), data, db=self._loads)

    def finish(self, group: FeatureGroup, load: str) -> None:
        """Forget a load."""
        with self._environment.write() as transaction:
            transaction.delete(_place(group, load), db=self._loads)

    def of(self, group: FeatureGroup) -> list[PendingLoad]:
        """Every load remembered for a group."""
        prefix = _GROUP.pack(group.number)
        found: list[PendingLoad] = []
        with self._environment.begin(db=self._loads) as transaction, transaction.cursor() as cursor:
            more = cursor.set_range(prefix)
            while more and cursor.key()[:4] == prefix:
                load, runs, started_at = msgspec.msgpack.decode(cursor.value())
                found.append(PendingLoad(load, tuple(runs), started_at))
                more = cursor.next()
        return found

    def drop(self, group: FeatureGroup) -> None:
        """Forget every load of a group."""
        for pending in self.of(group):
            self.finish(group, pending.load)


def _place(group: FeatureGroup, load: str) -> bytes:
    return _GROUP.pack(group.number) + load.encode()
