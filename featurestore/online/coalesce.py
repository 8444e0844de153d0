"""Many small look-ups, one fetch: everything asked for within one tick of the event loop goes out together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Coalescer"]

_K = TypeVar("_K")
_V = TypeVar("_V")


class Coalescer(Generic[_K, _V]):
    """Collects the keys of concurrent ``load`` calls of one event loop and fetches them together.

    A key asked for by several callers is fetched once. While ``flights`` fetches are under way further look-ups wait
    and share the next one, so load makes the batches larger instead of opening connections. Belongs to the event loop
    it was made in.
    """

    def __init__(
        self, fetch: Callable[[list[_K]], Awaitable[Sequence[_V]]], *, limit: int = 1000, flights: int = 4
    ) -> None:
        """Fetch through ``fetch`` (values in the order of the keys), at most about ``limit`` keys at once."""
        self._loop = asyncio.get_running_loop()
        self._fetch = fetch
        self._limit = limit
        self._flights = flights
        self._waiting: list[tuple[Sequence[_K], asyncio.Future[list[_V]]]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._called = False

    async def load(self, keys: Sequence[_K]) -> list[_V]:
        """The values of ``keys``, in order; whatever the fetch raised when it failed."""
        if not keys:
            return []
        answer: asyncio.Future[list[_V]] = self._loop.create_future()
        self._waiting.append((keys, answer))
        if not self._called:
            self._called = True
            self._loop.call_soon(self._depart)
        return await answer

    def _depart(self) -> None:
        self._called = False
        while self._waiting and len(self._under_way) < self._flights:
            taken, size = 0, 0
            while taken < len(self._waiting) and size < self._limit:
                size += len(self._waiting[taken][0])
                taken += 1
            group, self._waiting = self._waiting[:taken], self._waiting[taken:]
            task = self._loop.create_task(self._carry(group))
            self._under_way.add(task)
            task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if self._waiting:
            self._depart()

    async def _carry(self, group: list[tuple[Sequence[_K], asyncio.Future[list[_V]]]]) -> None:
        distinct = list(dict.fromkeys(key for keys, answer in group if not answer.done() for key in keys))
        try:
            found = dict(zip(distinct, await self._fetch(distinct), strict=True)) if distinct else {}
        except asyncio.CancelledError:
            for _, answer in group:
                answer.cancel()
            raise
        except Exception as error:
            for _, answer in group:
                if not answer.done():
                    answer.set_exception(error)
            return
        for keys, answer in group:
            if not answer.done():
                answer.set_result([found[key] for key in keys])
