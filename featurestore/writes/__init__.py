"""Seam WriteLog: the one durable log in front of both stores. Acknowledged means in the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from featurestore.groups import FeatureGroup
from featurestore.records import Row
from foundation.errors import Conflict

__all__ = ["Append", "Receipt", "Stale", "WriteLog"]


@dataclass(frozen=True)
class Append:
    """A batch to append: all of it or nothing.

    Attributes:
        group: the group, as the caller saw it.
        rows: rows with ``rank`` still +1 (replaces) or -1 (keeps); the log multiplies it with the sequence it assigns.
        producer: (producer id, its own sequence, from 1): the next applies, a seen one is a no-op, a gap a Conflict.
        request: an idempotency key; within 24 hours the first receipt is returned again.
        generation: the catalogue generation the caller's ``group`` was read at; another one now is a ``Stale``.
        newer: refuse the batch unless each row is newer than what the fused online store holds (hard deletes).
    """

    group: FeatureGroup
    rows: Sequence[Row]
    producer: tuple[str, int] | None = None
    request: str | None = None
    generation: int = 0
    newer: bool = False


@dataclass(frozen=True)
class Receipt:
    """What an accepted write gets back.

    Attributes:
        position: the last log sequence of the batch; a reader that has applied it sees the write.
        count: rows accepted.
        repeated: the batch had been accepted before and nothing was written now.
        readable: False when the online store was away; the rows are durable and follow with the next write or flush.
    """

    position: int
    count: int
    repeated: bool = False
    readable: bool = True


class Stale(Conflict):
    """The caller's view of the group is older than the catalogue; read the group again and retry."""


class WriteLog(Protocol):
    """An ordered, durable log per group. Sequence = epoch * 2**44 + counter, rising within a group."""

    def append(self, batch: Append) -> Receipt:
        """Append durably; concurrent callers share one commit.

        Raises:
            Conflict: a gap in the producer's sequence, or ``newer`` was asked for and a row is not.
            Stale: the catalogue moved since the caller read the group.
        """

    def reserve(self, group: FeatureGroup, count: int) -> int:
        """Set aside ``count`` sequences for a bulk load, durably; return the first."""

    def read(self, group: FeatureGroup, after: int, limit: int = 10_000) -> list[tuple[int, Row]]:
        """Rows with a sequence above ``after``, in order."""

    def head(self, group: FeatureGroup) -> int:
        """The last sequence handed out for the group."""

    def trim(self, group: FeatureGroup, through: int) -> None:
        """Forget rows up to and including a sequence; the caller has made them durable elsewhere."""

    def mark(self, group: FeatureGroup, position: int) -> None:
        """Remember, durably, that the stores had applied everything up to a position; ``trim`` does so too."""

    def marked(self, group: FeatureGroup) -> int:
        """The last position remembered: a store that is behind it has lost what it held."""

    def seen(self, group: FeatureGroup, producer: str) -> int:
        """The last sequence accepted from a producer, 0 for none."""

    def drop(self, group: FeatureGroup) -> None:
        """Forget the group's rows, producers and requests."""
