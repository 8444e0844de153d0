"""Barriers: hard deletes as the past sees them. Rows sequenced before one do not exist from its event time on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from featurestore.pit.kernel import Ints, last_before
from featurestore.pit.queries import Queries, match_keys
from featurestore.pit.questions import Asked
from featurestore.pit.reader import Reader, Unit, Wanted

__all__ = ["Barriers", "collect_barriers"]


@dataclass(frozen=True)
class Barriers:
    """For every query the greatest sequence of a hard delete that counts for it.

    Attributes:
        limits: int64 per query, 0 for none; None when no key asked about was ever hard-deleted.
        bounds: (least, greatest) query that has a limit.
    """

    limits: Ints | None = None
    bounds: tuple[int, int] = (0, -1)
    _queries: Queries | None = field(default=None, repr=False)

    def of(self, chosen: Ints) -> Ints | None:
        """Limits of some queries (places rising), None when none of them has one."""
        if self.limits is None or not len(chosen):
            return None
        if chosen[0] > self.bounds[1] or chosen[-1] < self.bounds[0]:
            return None
        limits = self.limits[chosen]
        return limits if limits.any() else None

    def select(self, chosen: Ints, queries: Queries) -> Barriers:
        """The limits of some queries, for ``queries.select(chosen)``."""
        if self.limits is None:
            return self
        return _barriers(self.limits[chosen], queries)

    def touches(self, unit: Unit) -> bool:
        """Whether a query with a limit may ask about a key of this unit."""
        if self.limits is None or self._queries is None:
            return False
        low, high = self._queries.key_range(unit.bounds)
        first, last = self._queries.firsts[low], self._queries.firsts[high]
        return bool(self.limits[first:last].any())


def collect_barriers(
    reader: Reader, queries: Queries, asked: Asked, each: Callable[[list[Unit], Callable[[Unit], None]], None]
) -> Barriers:
    """Read the hard deletes of the keys asked about; nothing is read when the footers prove there are none.

    A hard delete counts for a query when its event time is before the query's time (or at it, by the question's
    boundary; within the window for a label), it was written by ``as_of`` and known by the query's ``known``.
    """
    units = [
        unit
        for unit in reader.units
        if unit.facts.hards
        and not (asked.as_of is not None and unit.facts.writes is not None and unit.facts.writes[0] > asked.as_of)
        and queries.key_range(unit.bounds)[0] < queries.key_range(unit.bounds)[1]
    ]
    parts: list[tuple[Ints, Ints, Ints, Ints]] = []

    def work(unit: Unit) -> None:
        wanted = Wanted(rank=True, hards=True, writes=asked.as_of is not None, known=queries.known is not None)
        decoded = reader.decode(unit, wanted)
        if decoded.hard is None or decoded.rank is None:
            return
        hard = decoded.hard
        if asked.as_of is not None and decoded.writes is not None:
            hard = hard & (decoded.writes <= asked.as_of)
        rows = np.flatnonzero(hard)
        low, high = queries.key_range(unit.bounds)
        key_at = np.full(len(decoded.starts), -1, np.int64)
        places = match_keys(queries, low, high, decoded.keys)
        key_at[places[places >= 0]] = np.flatnonzero(places >= 0) + low
        key = key_at[np.searchsorted(decoded.starts, rows, side="right") - 1]
        rows, key = rows[key >= 0], key[key >= 0]
        known = np.zeros(len(rows), np.int64) if decoded.known is None else decoded.known[rows]
        parts.append((key, decoded.events[rows], np.abs(decoded.rank[rows]), known))

    each(units, work)
    key, event, sequence, known = (
        np.concatenate([part[i] for part in parts]) if parts else np.empty(0, np.int64) for i in range(4)
    )
    if not len(key):
        return Barriers()
    return _barriers(_limits(queries, asked, key, event, sequence, known), queries)


def _barriers(limits: Ints, queries: Queries) -> Barriers:
    under = np.flatnonzero(limits)
    if not len(under):
        return Barriers()
    return Barriers(limits, (int(under[0]), int(under[-1])), queries)


def _limits(queries: Queries, asked: Asked, key: Ints, event: Ints, sequence: Ints, known: Ints) -> Ints:
    limits = np.zeros(len(queries), np.int64)
    within = asked.label_within
    if queries.known is None:
        order = np.lexsort((event, key))
        key, event, sequence = key[order], event[order], sequence[order]
        greatest = _running_max(key, sequence)
    else:
        order = np.lexsort((-sequence, key))
        key, event, sequence, known = key[order], event[order], sequence[order], known[order]
        greatest = sequence
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    ends = np.append(starts[1:], len(key))
    asked_keys = key[starts]
    counts = queries.firsts[asked_keys + 1] - queries.firsts[asked_keys]
    rows = np.repeat(queries.firsts[asked_keys] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
    low, high = np.repeat(starts, counts), np.repeat(ends, counts)
    times = queries.times[rows] + (within or 0)
    inclusive = asked.inclusive or within is not None
    if queries.known is None:
        last = last_before(event, low, high, times, inclusive=inclusive)
        hit = last >= low
        limits[rows[hit]] = greatest[last[hit]]
        return limits
    asked_known = queries.known[rows]
    open_ = np.arange(len(rows))
    at = low.copy()
    while len(open_):
        here = at[open_]
        before = event[here] <= times[open_] if inclusive else event[here] < times[open_]
        counts_here = before & (known[here] <= asked_known[open_])
        settled = open_[counts_here]
        limits[rows[settled]] = greatest[at[settled]]
        open_ = open_[~counts_here]
        at[open_] += 1
        open_ = open_[at[open_] < high[open_]]
    return limits


def _running_max(key: Ints, values: Ints) -> Ints:
    """Running maximum that starts afresh at each key (keys ascend)."""
    result = values.copy()
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    for low, high in zip(starts, np.append(starts[1:], len(key)), strict=True):
        result[low:high] = np.maximum.accumulate(values[low:high])
    return result
