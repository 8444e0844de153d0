"""Ages: quantiles of many durations in bounded memory. Exact for up to a million of them, within 0.2 % beyond."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Ages", "Quantiles"]

_EXACT = 1_000_000
_SHIFT = 43
"""Bits of a float64 dropped: 9 bits of fraction stay, so a bucket is at most 1/512 wide relative to its value."""
_STEPS = (0.5, 0.95)


@dataclass(frozen=True)
class Quantiles:
    """Seconds. ``exact`` is False where median and p95 come from buckets (0.2 % wide)."""

    min: float
    median: float
    p95: float
    max: float
    exact: bool


class Ages:
    """Collects durations (int64 microseconds, 0 or more); how they are divided into calls does not matter."""

    def __init__(self) -> None:
        self._kept: list[np.ndarray] = []
        self._counts: dict[int, int] | None = None
        self._count = 0
        self._low, self._high = np.iinfo(np.int64).max, 0

    def copy(self) -> Ages:
        """The same, to go on separately."""
        twin = Ages()
        twin._kept = list(self._kept)
        twin._counts = None if self._counts is None else dict(self._counts)
        twin._count, twin._low, twin._high = self._count, self._low, self._high
        return twin

    def add(self, ages: np.ndarray) -> None:
        """Add durations."""
        if not len(ages):
            return
        self._count += len(ages)
        self._low, self._high = min(self._low, int(ages.min())), max(self._high, int(ages.max()))
        self._kept.append(ages)
        if self._count > _EXACT:
            self._counts = self._counts or {}
            for part in self._kept:
                buckets, counts = np.unique(part.astype(np.float64).view(np.int64) >> _SHIFT, return_counts=True)
                for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
                    self._counts[bucket] = self._counts.get(bucket, 0) + count
            self._kept = []

    def quantiles(self) -> Quantiles | None:
        """The quantiles (lower nearest rank), None without any duration."""
        if not self._count:
            return None
        ranks = [int(step * (self._count - 1)) for step in _STEPS]
        if self._counts is None:
            ages = np.concatenate(self._kept)
            found = [float(value) for value in np.partition(ages, ranks)[ranks]]
        else:
            buckets = np.array(sorted(self._counts), np.int64)
            ends = np.cumsum([self._counts[bucket] for bucket in buckets.tolist()])
            lower = (buckets[np.searchsorted(ends, ranks, side="right")] << _SHIFT).view(np.float64)
            found = [float(value) for value in np.clip(lower, self._low, self._high)]
        return Quantiles(self._low / 1e6, found[0] / 1e6, found[1] / 1e6, self._high / 1e6, self._counts is None)
