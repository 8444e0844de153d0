"""OnlineStore in LMDB: one key-value pair per record, readable by any number of processes while one writes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b

from featurestore.groups import FeatureGroup
from featurestore.online import Abilities
from featurestore.online.codec import pack, pack_row, stored_of, unpack
from featurestore.records import HARD, ONLINE, Row, Stored, merge
from foundation.lmdb import KEY_BYTES, Environment, Transaction

__all__ = ["DATABASES", "GENERATION", "EmbeddedStore"]

DATABASES = ("records", "state")
GENERATION = b"generation"
"""Where the log mirrors the catalogue generation, in ``state``."""
_GROUP = struct.Struct(">I")
_LONG = b"\xff"  # no canonical key starts with it
_LENGTH = struct.Struct(">H")
_COUNTER = struct.Struct(">q")
_BATCH = 1000


class EmbeddedStore:
    """See ``featurestore.online.OnlineStore``; also merges inside the log's transaction (``fused``)."""

    abilities = Abilities(fused=True)

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._records = environment.databases["records"]
        self._state = environment.databases["state"]

    def merge_into(self, transaction: Transaction, group: FeatureGroup, rows: Sequence[Row]) -> None:
        """Merge rows, in log order, inside a write transaction the caller commits."""
        for row in rows:
            if not row.flags & ONLINE:
                continue
            place = _place(group.number, row.key)
            data = transaction.get(place, db=self._records)
            if data is None and not row.flags & HARD:
                # Most rows of a first load: nothing to compare with, so no need to take the row apart.
                transaction.put(place, _dress(place, row.key, pack_row(row)), db=self._records)
                continue
            held = None if data is None else unpack(_strip(place, data))
            kept = merge(held, stored_of(row))
            if kept is not None:
                transaction.put(place, _dress(place, row.key, pack(kept)), db=self._records)

    def held(self, transaction: Transaction, group: FeatureGroup, key: bytes) -> Stored | None:
        """What a transaction sees for a key."""
        place = _place(group.number, key)
        data = transaction.get(place, db=self._records)
        return None if data is None else unpack(_strip(place, data))

    def apply(self, group: FeatureGroup, rows: Sequence[Row], position: int | None = None) -> None:
        """Merge rows in transactions of at most 1,000, so that other writers get their turn."""
        for start in range(0, len(rows), _BATCH):
            with self._environment.write() as transaction:
                self.merge_into(transaction, group, rows[start : start + _BATCH])
        if position is not None and position > self.position(group):
            with self._environment.write() as transaction:
                transaction.put(_position(group), _COUNTER.pack(position), db=self._state)

    def position(self, group: FeatureGroup) -> int:
        """The last position remembered, 0 for none."""
        with self._environment.begin() as transaction:
            data = transaction.get(_position(group), db=self._state)
        return 0 if data is None else int(_COUNTER.unpack(data)[0])

    def get_many(self, group: FeatureGroup, keys: Sequence[bytes]) -> list[Stored | None]:
        """What is held for each key, all from one instant."""
        found: list[Stored | None] = []
        with self._environment.begin(db=self._records) as transaction:
            for key in keys:
                place = _place(group.number, key)
                data = transaction.get(place)
                found.append(None if data is None else unpack(_strip(place, data)))
        return found

    def glance(self, group: FeatureGroup, key: bytes) -> tuple[int, Stored | None]:
        """The catalogue generation and what is held for a key, both from one instant: the shortest read there is."""
        place = _place(group.number, key)
        with self._environment.begin() as transaction:
            generation = transaction.get(GENERATION, db=self._state)
            data = transaction.get(place, db=self._records)
        held = None if data is None else unpack(_strip(place, data))
        return (0 if generation is None else _COUNTER.unpack(generation)[0]), held

    def scan(self, group: FeatureGroup, after: bytes = b"", limit: int = 1000) -> list[tuple[bytes, Stored]]:
        """A page in the byte order of the stored keys."""
        prefix = _GROUP.pack(group.number)
        start = _place(group.number, after) if after else prefix
        page: list[tuple[bytes, Stored]] = []
        with self._environment.begin(db=self._records) as transaction, transaction.cursor() as cursor:
            more = cursor.set_range(start)
            if more and after and cursor.key() == start:
                more = cursor.next()
            while more and len(page) < limit:
                place, data = cursor.item()
                if place[:4] != prefix:
                    break
                page.append((_key_of(place, data), unpack(_strip(place, data))))
                more = cursor.next()
        return page

    def replace(self, group: FeatureGroup, key: bytes, stored: Stored | None) -> None:
        """Set or remove without comparing."""
        place = _place(group.number, key)
        with self._environment.write() as transaction:
            if stored is None:
                transaction.delete(place, db=self._records)
            else:
                transaction.put(place, _dress(place, key, pack(stored)), db=self._records)

    def drop(self, group: FeatureGroup) -> None:
        """Forget the group, a thousand records a transaction."""
        while page := self.scan(group, limit=_BATCH):
            with self._environment.write() as transaction:
                for key, _ in page:
                    transaction.delete(_place(group.number, key), db=self._records)
        with self._environment.write() as transaction:
            transaction.delete(_position(group), db=self._state)

    def close(self) -> None:
        """Nothing to release: the environment belongs to the workspace."""


def _position(group: FeatureGroup) -> bytes:
    return b"online" + _GROUP.pack(group.number)


def _place(number: int, key: bytes) -> bytes:
    """LMDB key of a record; canonical keys too long for LMDB go by digest, the key itself before the value."""
    if len(key) + _GROUP.size <= KEY_BYTES:
        return _GROUP.pack(number) + key
    return _GROUP.pack(number) + _LONG + blake2b(key, digest_size=32).digest()


def _is_long(place: bytes) -> bool:
    return place[4:5] == _LONG


def _dress(place: bytes, key: bytes, data: bytes) -> bytes:
    return _LENGTH.pack(len(key)) + key + data if _is_long(place) else data


def _strip(place: bytes, data: bytes) -> bytes:
    return data[_LENGTH.size + _LENGTH.unpack_from(data)[0] :] if place[4:5] == _LONG else data


def _key_of(place: bytes, data: bytes) -> bytes:
    if not _is_long(place):
        return place[4:]
    return data[_LENGTH.size : _LENGTH.size + _LENGTH.unpack_from(data)[0]]
