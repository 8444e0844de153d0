"""WriteLog in LMDB. Log entry, online record and producer sequence change in one transaction, or not at all."""

from __future__ import annotations

import itertools
import struct
import threading
from collections import deque

import msgspec

from featurestore.groups import FeatureGroup
from featurestore.online.embedded import GENERATION, EmbeddedStore
from featurestore.records import HARD, Row
from featurestore.writes import Append, Receipt, Stale
from foundation.clock import Clock
from foundation.errors import Conflict, PlatformError
from foundation.lmdb import Environment, Transaction

__all__ = ["DATABASES", "EPOCH_SHIFT", "EmbeddedLog"]

DATABASES = ("log", "state", "producers", "requests", "loads")
EPOCH_SHIFT = 44
"""Sequence = epoch << 44 | counter: exact in a double for 512 epochs of 17 trillion writes each."""
_FIRST_EPOCH = 1
_PLACE = struct.Struct(">Iq")
_GROUP = struct.Struct(">I")
_COUNTER = struct.Struct(">q")
_REQUEST_LIFE = 24 * 3600 * 1_000_000
_COMMIT_ROWS = 1000
_encode = msgspec.msgpack.Encoder().encode
_decode_row = msgspec.msgpack.Decoder(Row).decode


class _Job:
    __slots__ = ("batch", "error", "receipt")

    def __init__(self, batch: Append) -> None:
        self.batch = batch
        self.receipt: Receipt | None = None
        self.error: PlatformError | None = None


class EmbeddedLog:
    """See ``featurestore.writes.WriteLog``.

    Group commit without a thread of its own: callers queue their batch, and whoever holds the commit lock writes
    everything queued (about 1,000 rows) in one transaction. LMDB serialises processes.

    Args:
        environment: holds ``DATABASES``.
        clock: gives write times, inside the transaction, so they rise with the sequence.
        store: the embedded online store when both are one engine; its records then change in the same transaction.
    """

    def __init__(self, environment: Environment, clock: Clock, *, store: EmbeddedStore | None = None) -> None:
        self._environment = environment
        self._clock = clock
        self._store = store
        self._queue: deque[_Job] = deque()
        self._commit = threading.Lock()
        self._log = environment.databases["log"]
        self._state = environment.databases["state"]
        self._producers = environment.databases["producers"]
        self._requests = environment.databases["requests"]

    def append(self, batch: Append) -> Receipt:
        """Append durably; see the seam."""
        job = _Job(batch)
        self._queue.append(job)
        with self._commit:
            while job.receipt is None and job.error is None:
                self._lead()
        if job.error is not None:
            raise job.error
        assert job.receipt is not None
        return job.receipt

    def _lead(self) -> None:
        """Commit what is queued first, about 1,000 rows; called by one thread at a time."""
        taken: list[_Job] = []
        rows = 0
        while self._queue and rows < _COMMIT_ROWS:
            taken.append(self._queue.popleft())
            rows += len(taken[-1].batch.rows)
        done: list[tuple[_Job, Receipt]] = []
        try:
            with self._environment.write() as transaction:
                for job in taken:
                    try:
                        done.append((job, self._append(transaction, job.batch)))
                    except (Conflict, msgspec.ValidationError) as error:
                        job.error = error if isinstance(error, PlatformError) else Conflict(str(error))
        except PlatformError as error:
            for job in taken:
                job.error = job.error or error
            return
        except BaseException:
            for job in taken:
                job.error = job.error or Conflict("the commit was interrupted; nothing of it was written")
            raise
        for job, receipt in done:
            job.receipt = receipt

    def _append(self, transaction: Transaction, batch: Append) -> Receipt:
        """Checks first, then writes that cannot fail by themselves: batches share the transaction."""
        number = batch.group.number
        now = self._clock.now()
        if batch.generation < self._generation(transaction):
            raise Stale(f"feature group {batch.group.name!r} changed", hint="read it again and retry")
        request = _GROUP.pack(number) + batch.request.encode()[:480] if batch.request else None
        if request and (held := self._requested(transaction, request, now)):
            return held
        if batch.producer and (known := self._produced(transaction, number, batch.producer)):
            return known
        if batch.newer:
            self._check_newer(transaction, batch)
        sequence = self._last(transaction, number)
        rows = []
        for row in batch.rows:
            sequence += 1
            rows.append(row._replace(rank=sequence * row.rank, write_time=now))
            transaction.put(_PLACE.pack(number, sequence), _encode(rows[-1]), db=self._log)
        transaction.put(_counter(number), _COUNTER.pack(sequence), db=self._state)
        if self._store is not None:
            self._store.merge_into(transaction, batch.group, rows)
        if batch.producer:
            producer, own = batch.producer
            data = _COUNTER.pack(own) + _COUNTER.pack(sequence)
            transaction.put(_producer(number, producer), data, db=self._producers)
        if request:
            transaction.put(request, _encode([now, sequence, len(rows)]), db=self._requests)
        return Receipt(sequence, len(rows))

    def _generation(self, transaction: Transaction) -> int:
        data = transaction.get(GENERATION, db=self._state)
        return 0 if data is None else int(_COUNTER.unpack(data)[0])

    def _last(self, transaction: Transaction, number: int) -> int:
        data = transaction.get(_counter(number), db=self._state)
        return _FIRST_EPOCH << EPOCH_SHIFT if data is None else int(_COUNTER.unpack(data)[0])

    def _requested(self, transaction: Transaction, request: bytes, now: int) -> Receipt | None:
        data = transaction.get(request, db=self._requests)
        if data is None:
            return None
        at, sequence, count = msgspec.msgpack.decode(data)
        return Receipt(sequence, count, repeated=True) if now - at <= _REQUEST_LIFE else None

    def _produced(self, transaction: Transaction, number: int, producer: tuple[str, int]) -> Receipt | None:
        name, own = producer
        data = transaction.get(_producer(number, name), db=self._producers)
        last = 0 if data is None else _COUNTER.unpack_from(data)[0]
        if own <= last:
            return Receipt(_COUNTER.unpack_from(data, 8)[0], 0, repeated=True)
        if own != last + 1:
            raise Conflict(
                f"producer {name!r} sent {own} after {last}",
                subject=f"producer {name!r}",
                hint=f"send {last + 1} first; batches are numbered from 1 without gaps",
            )
        return None

    def _check_newer(self, transaction: Transaction, batch: Append) -> None:
        if self._store is None:
            return
        for row in batch.rows:
            held = self._store.held(transaction, batch.group, row.key)
            check_newer(batch.group, row, None if held is None or held.flags & HARD else held.event_time)

    def reserve(self, group: FeatureGroup, count: int) -> int:
        """Set aside sequences; see the seam."""
        with self._environment.write() as transaction:
            last = self._last(transaction, group.number)
            transaction.put(_counter(group.number), _COUNTER.pack(last + count), db=self._state)
        return last + 1

    def read(self, group: FeatureGroup, after: int, limit: int = 10_000) -> list[tuple[int, Row]]:
        """Rows above a sequence; see the seam."""
        found: list[tuple[int, Row]] = []
        prefix = _GROUP.pack(group.number)
        with self._environment.begin(db=self._log) as transaction, transaction.cursor() as cursor:
            more = cursor.set_range(_PLACE.pack(group.number, after + 1))
            while more and len(found) < limit:
                place, data = cursor.item()
                if place[:4] != prefix:
                    break
                found.append((_PLACE.unpack(place)[1], _decode_row(data)))
                more = cursor.next()
        return found

    def head(self, group: FeatureGroup) -> int:
        """The last sequence handed out, reservations included."""
        with self._environment.begin() as transaction:
            return self._last(transaction, group.number)

    def trim(self, group: FeatureGroup, through: int) -> None:
        """Forget rows up to a sequence, and idempotency keys past their day, a thousand a transaction."""
        self.mark(group, through)
        self._delete(self._log, _PLACE.pack(group.number, 0), _PLACE.pack(group.number, through))
        self._forget_requests(group)

    def mark(self, group: FeatureGroup, position: int) -> None:
        """Remember, durably, that the stores had applied everything up to a position."""
        if position > self.marked(group):
            with self._environment.write() as transaction:
                transaction.put(_mark(group.number), _COUNTER.pack(position), db=self._state)

    def marked(self, group: FeatureGroup) -> int:
        """The last position remembered: a store that is behind it has lost what it held."""
        with self._environment.begin(db=self._state) as transaction:
            data = transaction.get(_mark(group.number))
        return 0 if data is None else int(_COUNTER.unpack(data)[0])

    def _forget_requests(self, group: FeatureGroup) -> None:
        """Requests are few and small; those of one group are walked whole, and only when some exist."""
        prefix = _GROUP.pack(group.number)
        oldest = self._clock.now() - _REQUEST_LIFE
        with self._environment.begin(db=self._requests) as transaction, transaction.cursor() as cursor:
            found = cursor.iternext() if cursor.set_range(prefix) else ()
            old = [
                key
                for key, data in itertools.takewhile(lambda item: item[0][:4] == prefix, found)
                if msgspec.msgpack.decode(data)[0] < oldest
            ]
        for start in range(0, len(old), _COMMIT_ROWS):
            with self._environment.write() as transaction:
                for key in old[start : start + _COMMIT_ROWS]:
                    transaction.delete(key, db=self._requests)

    def seen(self, group: FeatureGroup, producer: str) -> int:
        """The last sequence accepted from a producer."""
        with self._environment.begin() as transaction:
            data = transaction.get(_producer(group.number, producer), db=self._producers)
        return 0 if data is None else int(_COUNTER.unpack_from(data)[0])

    def drop(self, group: FeatureGroup) -> None:
        """Forget the group; its number, and so its sequences, are never used again."""
        prefix = _GROUP.pack(group.number)
        for database in (self._log, self._producers, self._requests):
            self._delete(database, prefix, prefix + b"\xff" * 500)

    def _delete(self, database: object, first: bytes, last: bytes) -> None:
        """Delete keys in [first, last]."""
        more = True
        while more:
            with self._environment.write() as transaction, transaction.cursor(db=database) as cursor:
                more = cursor.set_range(first)
                for _ in range(_COMMIT_ROWS):
                    if not more or cursor.key() > last:
                        more = False
                        break
                    cursor.delete()
                    more = bool(cursor.key())

    @property
    def generation(self) -> int:
        """The catalogue generation writers must have seen, mirrored here so that each transaction can look."""
        with self._environment.begin(db=self._state) as transaction:
            data = transaction.get(GENERATION)
        return 0 if data is None else int(_COUNTER.unpack(data)[0])

    def mirror(self, generation: int) -> None:
        """Take over the catalogue's coming generation: groups cached below it are stale from now on."""
        with self._environment.write() as transaction:
            transaction.put(GENERATION, _COUNTER.pack(generation), db=self._state)


def check_newer(group: FeatureGroup, row: Row, held: int | None) -> None:
    """Refuse a hard delete that is not newer than what is served.

    Raises:
        Conflict: the record's event time is the same or later.
    """
    if held is not None and row.event_time <= held:
        raise Conflict(
            f"the record in group {group.name!r} is as new as the hard delete or newer",
            subject=f"feature group {group.name!r}",
            hint="give the delete an event time after the record's, or delete softly",
        )


def _counter(number: int) -> bytes:
    return b"sequence" + _GROUP.pack(number)


def _mark(number: int) -> bytes:
    return b"marked" + _GROUP.pack(number)


def _producer(number: int, producer: str) -> bytes:
    return _GROUP.pack(number) + producer.encode()[:480]
