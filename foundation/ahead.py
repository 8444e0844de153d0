"""Reading ahead: the next item is made while the present one is waited for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["ahead"]

Item = TypeVar("Item")


@contextmanager
def ahead(items: Iterator[Item], depth: int = 2) -> Iterator[Iterator[Item]]:
    """Draw items on a thread of their own, at most ``depth`` ahead, while the block uses them.

    Pays where using an item waits (for a disk, a server) and making one does not. What making raises is raised where
    the item would have come; a block that ends early waits for the item being made and no more.

    Args:
        items: what to draw from; touched by the other thread only.
        depth: items made and not yet used, at most.
    """
    end = object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="tilth-ahead")

    def give() -> Iterator[Item]:
        waiting = deque(pool.submit(next, items, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield item  # type: ignore[misc]

    try:
        yield give()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
