"""Opening online stores by name, in this process or in another one, and making rows for them."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pyarrow as pa

from featurestore.groups import FeatureGroup, define_group
from featurestore.keys import encode_key
from featurestore.online import OnlineStore
from featurestore.records import OFFLINE, ONLINE, Row
from foundation.schema import Column, ColumnType, Schema

BOTH = ONLINE | OFFLINE
_numbers = itertools.count(1)
_SCHEMA = Schema.from_arrow(pa.schema([("id", pa.string()), ("at", pa.timestamp("us", "UTC")), ("x", pa.float64())]))
_ID = (Column("id", ColumnType.parse("String")),)


def key(text: str) -> bytes:
    return encode_key(_ID, (text,))


def new_group() -> FeatureGroup:
    """A group no other test of this process has."""
    return group_of(next(_numbers))


def group_of(number: int) -> FeatureGroup:
    return define_group(f"group{number}", record_id="id", event_time="at", schema=_SCHEMA, number=number)


def row(name: str | bytes, event: int, rank: int, flags: int = BOTH, values: list[object] | None = None) -> Row:
    where = name if isinstance(name, bytes) else key(name)
    made = [event, rank, None] if values is None else values
    return Row(where, event, rank, flags, 0, None, 1_000_000 + abs(rank), 1_000_000, 1, made)


@dataclass(frozen=True)
class Backend:
    """How to open a store: several opens of one backend see the same records."""

    kind: str
    place: str

    def open(self) -> OnlineStore:
        if self.kind != "embedded":
            return import_module("featurestore.online.redis").RedisStore(self.place, "suite")
        embedded = import_module("featurestore.online.embedded")
        lmdb = import_module("foundation.lmdb")
        return embedded.EmbeddedStore(
            lmdb.Environment.share(Path(self.place), databases=embedded.DATABASES, map_size=1 << 30)
        )


def racing_rows(keys: int, count: int, seed: int) -> list[Row]:
    """Rows in log order that fight over few keys, with ties, late rows and soft tombstones."""
    chance = random.Random(seed)
    rows = []
    for sequence in range(1, count + 1):
        rank = sequence if chance.random() < 0.5 else -sequence
        deleted = 1 if chance.random() < 0.1 else 0
        rows.append(row(f"k{chance.randrange(keys)}", chance.randrange(50), rank, BOTH | deleted))
    return rows


def race(backend: Backend, number: int, rows: list[Row], seed: int) -> None:
    """Apply all rows in an order and in batches of one's own."""
    chance = random.Random(seed)
    mine = list(rows)
    chance.shuffle(mine)
    store = backend.open()
    group = group_of(number)
    while mine:
        size = chance.randrange(1, 20)
        store.apply(group, mine[:size])
        mine = mine[size:]
    store.close()
