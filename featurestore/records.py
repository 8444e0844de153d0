"""Record: the rules every store obeys, as pure functions. Newest wins, ties, deletes, expiry.

Of two rows of one key the greater ``(event_time, rank)`` wins. ``rank`` is fixed when the row is accepted: minus its
write sequence where the first write at an instant stays (``on_equal="keep"``), plus its sequence where the last one
replaces. A hard delete is a *barrier*: rows sequenced before it are hidden (online at once, in history from its event
time on); rows sequenced after it are accepted whatever their event time.

All instants are int64 microseconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = [
    "DELETED",
    "HARD",
    "LAST_INSTANT",
    "OFFLINE",
    "ONLINE",
    "Row",
    "Stored",
    "expiry_of",
    "fold",
    "is_visible",
    "merge",
    "rank_of",
    "sequence_of",
    "status_of",
]

DELETED = 1
"""Flag: a tombstone; values other than key and event time are null."""
HARD = 2
"""Flag: a hard delete (always with DELETED)."""
ONLINE = 4
"""Flag: meant for the online store."""
OFFLINE = 8
"""Flag: meant for the offline store."""


LAST_INSTANT = 253_402_300_799_999_999
"""The last microsecond of the year 9999, the last moment Python and Delta's readers agree on."""


class Row(NamedTuple):
    """One accepted write, as it stands in the log.

    Attributes:
        key: canonical key bytes (``featurestore.keys``).
        event_time: instant the values became true.
        rank: plus or minus the write sequence; see the module.
        flags: DELETED | HARD | ONLINE | OFFLINE.
        expires_at: instant from which the row must not be served; 0 is never.
        known_at: declared instant from which the row was known; None means its write time.
        write_time: instant the store accepted it.
        invocation_time: instant the call was received.
        version: schema version the values were written under.
        values: stored values in that version's column order (``featurestore.values``), key and event time included.
    """

    key: bytes
    event_time: int
    rank: int
    flags: int
    expires_at: int
    known_at: int | None
    write_time: int
    invocation_time: int
    version: int
    values: Sequence[Any]


class Stored(NamedTuple):
    """What an online store keeps for one key.

    Attributes:
        event_time, rank, expires_at, version: of the winning row.
        flags: DELETED, HARD (nothing after the barrier yet: hidden), ONLINE without OFFLINE for a single-store write.
        barrier: sequence of the latest hard delete, 0 for none.
        write_time: instant the winning row was accepted.
        payload: the encoded values (``online.codec``); empty for a tombstone or hidden header.
    """

    event_time: int
    rank: int
    expires_at: int
    version: int
    flags: int
    barrier: int
    write_time: int
    payload: bytes


def expiry_of(event_time: int, ttl: int) -> int:
    """Instant from which a record is not served: event time plus its life, at most the end of the year 9999."""
    return min(event_time + ttl, LAST_INSTANT)


def rank_of(sequence: int, *, replaces: bool) -> int:
    """The rank of the row written at ``sequence``."""
    return sequence if replaces else -sequence


def sequence_of(rank: int) -> int:
    """The write sequence behind a rank."""
    return abs(rank)


def merge(held: Stored | None, new: Stored) -> Stored | None:
    """The compare-and-set every online store performs: what to keep after ``new`` arrives, None for "no change".

    ``new`` with HARD is a barrier: it hides what was sequenced before it and keeps what was sequenced after.
    The result does not depend on the order of arrival as long as a barrier arrives in log order.
    """
    sequence = abs(new.rank)
    if held is None:
        return new._replace(barrier=sequence) if new.flags & HARD else new
    if new.flags & HARD:
        if sequence <= held.barrier:
            return None
        if abs(held.rank) > sequence:
            return held._replace(barrier=sequence)
        return new._replace(barrier=sequence)
    if sequence < held.barrier:
        return None
    if held.flags & HARD or (new.event_time, new.rank) > (held.event_time, held.rank):
        return new._replace(barrier=held.barrier)
    return None


def fold(rows: list[Stored]) -> Stored | None:
    """What a key's online record must be after ``rows`` in log order."""
    held: Stored | None = None
    for row in rows:
        held = merge(held, row) or held
    return held


def is_visible(stored: Stored, now: int) -> bool:
    """Whether a reader at ``now`` may see the values."""
    return not stored.flags & DELETED and (stored.expires_at == 0 or stored.expires_at > now)


def status_of(stored: Stored | None, now: int) -> str:
    """One word for a reader: ``present``, ``missing``, ``deleted`` or ``expired``; a hidden record is ``missing``."""
    if stored is None or stored.flags & HARD:
        return "missing"
    if stored.flags & DELETED:
        return "deleted"
    return "expired" if stored.expires_at and stored.expires_at <= now else "present"
