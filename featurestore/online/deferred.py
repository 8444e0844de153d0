"""An online store that may be away: opened when it first answers, so that a workspace opens without it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from featurestore.groups import FeatureGroup
from featurestore.online import Abilities
from featurestore.records import Row, Stored
from foundation.errors import Unavailable

__all__ = ["DeferredStore"]


class DeferredStore:
    """See ``featurestore.online.OnlineStore``; every call raises Unavailable while the server cannot be reached.

    Args:
        connect: opens the real store. Tried at once: what is wrong with the server, other than being away, is said
            when the workspace is opened.
    """

    abilities = Abilities(concurrent_reads=True)

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._store: Any = None
        try:
            self._store = connect()
        except Unavailable:
            self._store = None

    def _open(self) -> Any:  # noqa: ANN401 - the real store, which its own module types
        if self._store is None:
            with self._lock:
                if self._store is None:
                    self._store = self._connect()
        return self._store

    def apply(self, group: FeatureGroup, rows: Sequence[Row], position: int | None = None) -> None:
        """Merge rows."""
        self._open().apply(group, rows, position)

    def position(self, group: FeatureGroup) -> int:
        """The last position remembered."""
        return int(self._open().position(group))

    def get_many(self, group: FeatureGroup, keys: Sequence[bytes]) -> list[Stored | None]:
        """What is held for each key."""
        found: list[Stored | None] = self._open().get_many(group, keys)
        return found

    async def get_many_async(self, group: FeatureGroup, keys: Sequence[bytes]) -> list[Stored | None]:
        """``get_many`` on the running event loop."""
        found: list[Stored | None] = await self._open().get_many_async(group, keys)
        return found

    def scan(self, group: FeatureGroup, after: bytes = b"", limit: int = 1000) -> list[tuple[bytes, Stored]]:
        """A page of records."""
        page: list[tuple[bytes, Stored]] = self._open().scan(group, after, limit)
        return page

    def replace(self, group: FeatureGroup, key: bytes, stored: Stored | None) -> None:
        """Set or remove without comparing."""
        self._open().replace(group, key, stored)

    def drop(self, group: FeatureGroup) -> None:
        """Forget a group."""
        self._open().drop(group)

    def close(self) -> None:
        """Release connections, if there are any."""
        if self._store is not None:
            self._store.close()

    async def aclose(self) -> None:
        """Close the running loop's connections, if there are any."""
        if self._store is not None:
            await self._store.aclose()
