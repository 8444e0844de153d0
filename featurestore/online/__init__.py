"""Seam OnlineStore: the latest record of every key, by compare-and-set (``records.merge``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from featurestore.groups import FeatureGroup
from featurestore.records import Row, Stored

__all__ = ["Abilities", "ConcurrentReads", "OnlineStore"]


@dataclass(frozen=True)
class Abilities:
    """What a backend can do beyond the protocol.

    Attributes:
        fused: applies rows in the same transaction as the embedded log.
        concurrent_reads: has ``get_many_async`` (an awaitable ``get_many`` that coalesces look-ups of one tick).
    """

    fused: bool = False
    concurrent_reads: bool = False


class OnlineStore(Protocol):
    """Backends keep one ``Stored`` per (group number, key) and obey ``records.merge`` atomically per key."""

    abilities: Abilities

    def apply(self, group: FeatureGroup, rows: Sequence[Row], position: int | None = None) -> None:
        """Merge rows, given in log order, into the store; then remember ``position`` (a log sequence) for the group.

        Rows without the ONLINE flag are skipped. Idempotent: applying rows again changes nothing.

        Raises:
            Unavailable: the backend does not answer; some of the rows may have been applied, the position was not.
        """

    def position(self, group: FeatureGroup) -> int:
        """The last position remembered, 0 for none."""

    def get_many(self, group: FeatureGroup, keys: Sequence[bytes]) -> list[Stored | None]:
        """What is held for each canonical key, in order: tombstones, hidden and expired records included."""

    def scan(self, group: FeatureGroup, after: bytes = b"", limit: int = 1000) -> list[tuple[bytes, Stored]]:
        """Up to ``limit`` (canonical key, held) pairs after an opaque cursor: pass the last key of the previous page.

        Every key present throughout the scan is returned exactly once; an empty list is the end.
        """

    def replace(self, group: FeatureGroup, key: bytes, stored: Stored | None) -> None:
        """Set or remove what is held for a key without comparing: repair and rebuild only."""

    def drop(self, group: FeatureGroup) -> None:
        """Forget everything of the group, its position included."""

    def close(self) -> None:
        """Release connections; the store is not used afterwards."""


@runtime_checkable
class ConcurrentReads(Protocol):
    """What a store with ``abilities.concurrent_reads`` has besides."""

    async def get_many_async(self, group: FeatureGroup, keys: Sequence[bytes]) -> list[Stored | None]:
        """``get_many`` on the running event loop; look-ups of one tick share a round trip."""

    async def aclose(self) -> None:
        """Close the running event loop's connections; call it before the loop ends."""
