"""Time enters here. All instants are int64 microseconds since 1970-01-01T00:00:00Z; tests own the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

__all__ = ["EPOCH", "Clock", "instant_of", "micros_of_delta", "moment_of", "system_clock"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Source = Callable[[], int]


class Clock:
    """Strictly increasing microsecond instants, so that two writes of one process never share a write time."""

    def __init__(self, source: Source | None = None) -> None:
        self._source = source or _wall
        self._last = 0
        self._lock = threading.Lock()

    def now(self) -> int:
        """Return the present instant in microseconds since the epoch (UTC), at least one above the last answer."""
        with self._lock:
            self._last = max(self._source(), self._last + 1)
            return self._last


def _wall() -> int:
    return time.time_ns() // 1000


system_clock = Clock()


def moment_of(instant: int) -> datetime:
    """Turn an instant (microseconds UTC) into an aware UTC datetime."""
    return EPOCH + timedelta(microseconds=instant)


def instant_of(moment: datetime) -> int:
    """Turn an aware datetime into an instant; the caller has refused naive ones."""
    return (moment - EPOCH) // _MICROSECOND


def micros_of_delta(delta: timedelta) -> int:
    """Whole microseconds of a timedelta."""
    return delta // _MICROSECOND
