"""Is what the online store serves what the offline store says? Cell by cell, and how to mend it.

Both stores are functions of the same log, so the check is exact: same record, same tie-break, same values. A key that
differs while writers are busy is looked at again after everything logged up to then has reached both stores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from featurestore.apply import LOG_APP, OnlineLost, offline_table
from featurestore.loading.loads import rows_from
from featurestore.offline import Change, OfflineStore, Snapshot
from featurestore.online import OnlineStore
from featurestore.online.codec import decode_values, stored_of
from featurestore.pit.scans import latest_rows, rows_of
from featurestore.records import DELETED, HARD, OFFLINE, ONLINE, Row, Stored, fold
from featurestore.values import ValueCodec
from featurestore.writes import WriteLog

__all__ = ["Difference", "Verifier", "VerifyReport"]

_SHOWN = 100
_ROUNDS = 5
_PAGE = 5_000
_HASH_SPACE = 1 << 64


@dataclass(frozen=True)
class Difference:
    """One disagreement.

    Attributes:
        key: the record's key.
        what: ``missing online``, ``missing offline``, ``other record``, ``deleted``, ``expiry`` or a feature name.
        online, offline: the two sides, for reading by a person.
    """

    key: Any
    what: str
    online: Any
    offline: Any


@dataclass(frozen=True)
class VerifyReport:
    """What a check found.

    Attributes:
        group: group name.
        checked: keys compared.
        cells: values compared.
        different: keys that really differ; 0 is agreement.
        differences: the first 100 of them.
        retried: keys that differed at first and agreed once the log had been applied.
        single_store: keys whose served record was meant for the online store alone.
        repaired: keys set right.
        version: offline table version of the first pass.
        position: log position that version holds.
        now: instant of the check.
        seconds: wall time.
    """

    group: str
    checked: int
    cells: int
    different: int
    differences: tuple[Difference, ...]
    retried: int
    single_store: int
    repaired: int
    version: int
    position: int
    now: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the stores agree (after repair, if one was asked for)."""
        return self.different == self.repaired


class Verifier:
    """Compares, repairs and rebuilds the stores of one group.

    Args:
        log, online, offline: the stores.
        codec: of the group.
        settle: brings the stores up to the log's end; called with False where the online one is to be left alone.
        now: the present instant.
    """

    def __init__(
        self,
        log: WriteLog,
        online: OnlineStore,
        offline: OfflineStore,
        codec: ValueCodec,
        *,
        settle: Callable[[bool], object],
        now: Callable[[], int],
    ) -> None:
        self._log = log
        self._online = online
        self._offline = offline
        self._codec = codec
        self._group = codec.group
        self._settle = settle
        self._now = now

    def verify(self, *, sample: float | None = None, repair: bool = False) -> VerifyReport:
        """Compare every key, or a share of them chosen by hash (so the same keys every time)."""
        started = time.perf_counter()
        if repair:
            self._rebuild_if_lost()
        self._settle_both()
        now = self._now()
        snapshot = self._offline.snapshot(self._group)
        checked, cells, single, suspects = self._first_pass(snapshot, sample)
        first = len(suspects)
        differences = self._settle_suspects(suspects)
        repaired = self._repair([key for key, _ in differences]) if repair else 0
        return VerifyReport(
            group=self._group.name,
            checked=checked,
            cells=cells,
            different=len(differences),
            differences=tuple(difference for _, difference in differences[:_SHOWN]),
            retried=first - len(differences),
            single_store=single,
            repaired=repaired,
            version=snapshot.version,
            position=self._offline.position(self._group, LOG_APP),
            now=now,
            seconds=time.perf_counter() - started,
        )

    def _settle_both(self) -> None:
        """Both stores up to date; one that lost its memory stays as it is, and everything in it shows as different."""
        try:
            self._settle(True)
        except OnlineLost:
            self._settle(False)

    def _rebuild_if_lost(self) -> None:
        try:
            self._settle(True)
        except OnlineLost:
            self.rebuild_online()

    def _first_pass(self, snapshot: Snapshot, sample: float | None) -> tuple[int, int, int, list[bytes]]:
        """(keys, cells, single-store keys, keys that seem to differ)."""
        checked = cells = single = 0
        suspects: list[bytes] = []
        digests: list[np.ndarray] = []
        for rows in _latest(self._codec, snapshot):
            wanted = [row for row in _winners(rows) if _sampled(row.key, sample)]
            digests.append(_digests([row.key for row in wanted]))
            for start in range(0, len(wanted), _PAGE):
                page = wanted[start : start + _PAGE]
                held = self._online.get_many(self._group, [row.key for row in page])
                for row, stored in zip(page, held, strict=True):
                    checked += 1
                    if stored is not None and _is_single(stored):
                        single += 1
                        continue
                    cells += len(self._group.names)
                    if self._difference(row.key, stored_of(row), stored) is not None:
                        suspects.append(row.key)
        known = np.sort(np.concatenate(digests)) if digests else np.empty(0, "S16")
        for key, stored in self._online_only(known, sample):
            if _is_single(stored):
                single += 1
            elif not stored.flags & HARD:
                suspects.append(key)
        return checked, cells, single, suspects

    def _online_only(self, known: np.ndarray, sample: float | None) -> Iterator[tuple[bytes, Stored]]:
        """Online records whose key the offline pass did not meet."""
        after = b""
        while page := self._online.scan(self._group, after, _PAGE):
            after = page[-1][0]
            wanted = [(key, stored) for key, stored in page if _sampled(key, sample)]
            digests = _digests([key for key, _ in wanted])
            places = np.searchsorted(known, digests).clip(max=max(len(known) - 1, 0))
            met = known[places] == digests if len(known) else np.zeros(len(digests), np.bool_)
            yield from (pair for pair, there in zip(wanted, met, strict=True) if not there)

    def _settle_suspects(self, suspects: Sequence[bytes]) -> list[tuple[bytes, Difference]]:
        """Judge each suspect again, at one log position: what was online then against what the log had said by then."""
        remaining = list(dict.fromkeys(suspects))
        found: dict[bytes, Difference] = {}
        for turn in range(_ROUNDS):
            if not remaining:
                break
            time.sleep(0.02 * turn)
            found = {}
            for start in range(0, len(remaining), _PAGE):
                found |= self._judge(remaining[start : start + _PAGE])
            remaining = list(found)
        return list(found.items())

    def _judge(self, keys: Sequence[bytes]) -> dict[bytes, Difference]:
        # Everything up to this position was applied before the records are read; a later one shows in its own rank.
        # A store that lost its memory is held to what it had reached before.
        fused = self._online.abilities.fused
        reached = self._log.head(self._group) if fused else self._online.position(self._group)
        reached = max(reached, self._log.marked(self._group))
        held = self._online.get_many(self._group, keys)
        self._settle_both()
        snapshot = self._offline.snapshot(self._group)
        found = {}
        for key, stored in zip(keys, held, strict=True):
            if stored is not None and _is_single(stored):
                continue
            position = reached if stored is None else max(reached, abs(stored.rank), stored.barrier)
            difference = self._difference(key, self._expected(snapshot, key, position), stored)
            if difference is not None:
                found[key] = difference
        return found

    def _repair(self, keys: list[bytes]) -> int:
        """Set online records right; judged again, since a write may have come between looking and setting."""
        remaining = keys
        for _ in range(_ROUNDS):
            if not remaining:
                break
            self._settle_both()
            truth = self._offline.snapshot(self._group)
            for key in remaining:
                self._online.replace(self._group, key, self._expected(truth, key, self._log.head(self._group)))
            remaining = list(self._judge(remaining))
        return len(keys) - len(remaining)

    def _expected(self, snapshot: Snapshot, key: bytes, position: int) -> Stored | None:
        """What must be online for a key at a log position: its rows folded in the order they were logged."""
        shown = self._codec.shown_key(key)
        table = rows_of(snapshot, shown if isinstance(shown, tuple) else (shown,))
        rows = [row for row in rows_from(self._codec, table) if row.flags & ONLINE and abs(row.rank) <= position]
        return fold([stored_of(row) for row in sorted(rows, key=lambda row: abs(row.rank))])

    def _difference(self, key: bytes, expected: Stored | None, held: Stored | None) -> Difference | None:
        """The first disagreement between what must be and what is."""
        shown = self._codec.shown_key(key)
        hidden = expected is None or bool(expected.flags & HARD)
        if held is None or held.flags & HARD:
            return None if hidden else Difference(shown, "missing online", None, self._read(expected))
        if hidden:
            return Difference(shown, "missing offline", self._read(held), None)
        assert expected is not None
        if (expected.event_time, expected.rank) != (held.event_time, held.rank):
            return Difference(shown, "other record", self._read(held), self._read(expected))
        if (expected.flags & DELETED) != (held.flags & DELETED):
            return Difference(shown, "deleted", bool(held.flags & DELETED), bool(expected.flags & DELETED))
        if expected.expires_at != held.expires_at:
            return Difference(shown, "expiry", held.expires_at, expected.expires_at)
        if expected.payload == held.payload:
            return None
        online, offline = self._read(held), self._read(expected)
        for name in self._group.names:
            if online.get(name) != offline.get(name):
                return Difference(shown, name, online.get(name), offline.get(name))
        return None

    def _read(self, stored: Stored | None) -> dict[str, Any]:
        if stored is None or not stored.payload:
            return {}
        return self._codec.record(decode_values(stored.payload))

    def rebuild_online(self) -> int:
        """Forget the online records and make them again from the offline table and the log; return how many.

        Readers may miss records while it runs. Writes go on: what arrives meanwhile wins or loses as ever.
        """
        self._online.drop(self._group)
        while True:
            self._settle(False)
            position = self._offline.position(self._group, LOG_APP)
            count = 0
            for rows in _latest(self._codec, self._offline.snapshot(self._group)):
                self._online.apply(self._group, rows)
                count += len(rows)
            pairs = self._log.read(self._group, position, 1_000_000)
            reached = max(position, self._log.marked(self._group), pairs[-1][0] if pairs else 0)
            self._online.apply(self._group, [row for _, row in pairs], reached)
            if self._offline.position(self._group, LOG_APP) == position:
                return count

    def rebuild_offline(self) -> int:
        """Add to the offline table every online record it lacks; return how many. Nothing offline is taken away."""
        self._offline.create(self._group)
        self._settle_both()
        snapshot = self._offline.snapshot(self._group)
        added: list[Row] = []
        after = b""
        while page := self._online.scan(self._group, after, _PAGE):
            after = page[-1][0]
            added += [
                row for key, stored in page if not _is_single(stored) and (row := self._lacking(snapshot, key, stored))
            ]
        if added:
            run = self._offline.write_run(self._group, offline_table(self._codec, added), "rebuilt")
            app = "tilth/rebuild"
            expected = self._offline.position(self._group, app)
            self._offline.commit(self._group, Change([run], app=(app, expected + 1)), expected=expected)
        return len(added)

    def _lacking(self, snapshot: Snapshot, key: bytes, stored: Stored) -> Row | None:
        shown = self._codec.shown_key(key)
        parts = shown if isinstance(shown, tuple) else (shown,)
        table = rows_of(snapshot, parts)
        if stored.rank in table.column("tilth_rank").to_pylist():
            return None
        values = decode_values(stored.payload) if stored.payload else self._codec.tombstone(parts, stored.event_time)
        return Row(
            key,
            stored.event_time,
            stored.rank,
            stored.flags | ONLINE | OFFLINE,
            stored.expires_at,
            None,
            stored.write_time,
            stored.write_time,
            stored.version,
            values,
        )


def _latest(codec: ValueCodec, snapshot: Snapshot) -> Iterator[list[Row]]:
    """The row each key must have online, in pieces; a barrier below it comes first as a hard delete of its own."""
    for table in latest_rows(snapshot):
        barriers = table.column("barrier").to_pylist()
        rows: list[Row] = []
        for row, barrier in zip(rows_from(codec, table.drop_columns(["barrier"])), barriers, strict=True):
            if barrier and not row.flags & HARD:
                rows.append(row._replace(rank=barrier, flags=DELETED | HARD | ONLINE | OFFLINE))
            rows.append(row)
        yield rows


def _winners(rows: list[Row]) -> list[Row]:
    """The last row of each key: barriers stand before theirs."""
    return [row for place, row in enumerate(rows) if place + 1 == len(rows) or rows[place + 1].key != row.key]


def _is_single(stored: Stored) -> bool:
    return not stored.flags & OFFLINE


def _sampled(key: bytes, sample: float | None) -> bool:
    if sample is None:
        return True
    return int.from_bytes(blake2b(key, digest_size=8).digest()) < sample * _HASH_SPACE


def _digests(keys: Sequence[bytes]) -> np.ndarray:
    """Keys as fixed 16-byte digests; text of NumPy drops trailing zeros, so the last byte is set."""
    return np.array([blake2b(key, digest_size=15).digest() + b"\x01" for key in keys], dtype="S16")
