"""The point-in-time kernel: vectorised searches over rows sorted by (key, event time, rank). Pure numpy, no I/O.

A *slice* ``[low, high)`` of the rows belongs to one key; queries carry the slice of their key. Events ascend inside a
slice, and of equal events the greatest rank stands last, so "the last row at or before" is also the winner. All
instants are int64 microseconds; positions are int64; -1 stands for "no row".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "NEVER",
    "Bools",
    "Ints",
    "View",
    "expand",
    "first_instants",
    "last_before",
    "latest_available",
    "latest_instants",
    "slices_of",
]

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NEVER = np.iinfo(np.int64).max
"""An instant that never comes."""
_SHORT = 32
"""Slices longer than this are searched with the subset of queries that needs the big steps."""


class View(NamedTuple):
    """Rows a search runs over.

    Attributes:
        events: int64 event times.
        rows: int64 positions of these rows in the unit they came from; None when they are its rows 0, 1, 2, ...
        available: int64 instant from which each row exists for a query; None when all exist for all.
    """

    events: Ints
    rows: Ints | None
    available: Ints | None

    def subset(self, chosen: Ints) -> View:
        """Only the chosen rows, in the order given (repeats allowed)."""
        return View(
            self.events[chosen],
            chosen if self.rows is None else self.rows[chosen],
            None if self.available is None else self.available[chosen],
        )


def slices_of(starts: Ints, total: int) -> tuple[Ints, Ints]:
    """(low, high) of each key's slice from the slices' first positions."""
    ends: Ints = np.append(starts[1:], total)
    return starts, ends


def expand(low: Ints, high: Ints) -> Ints:
    """Concatenate ``arange(low[i], high[i])`` for every i."""
    lengths = high - low
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    places: Ints = np.arange(total, dtype=np.int64) + np.repeat(low - (ends - lengths), lengths)
    return places


def last_before(events: Ints, low: Ints, high: Ints, times: Ints, *, inclusive: bool = True) -> Ints:
    """Position of the last row at or before (``inclusive``) or before each query's time, ``low - 1`` if none.

    A binary search by halving strides, one numpy pass per stride: log2(longest slice) passes.

    Args:
        events: event times, ascending inside each slice.
        low: first position of each query's slice.
        high: end of it.
        times: instant of each query.
        inclusive: whether an event exactly at the time counts.
    """
    found = low - 1
    if not len(found) or not len(events):
        return found
    lengths = high - low
    stride = 1 << max(int(lengths.max()).bit_length() - 1, 0)
    while stride >= _SHORT:
        some = np.flatnonzero(lengths >= stride)
        if 2 * len(some) > len(found):
            break
        found[some] = _advance(events, found[some], high[some], times[some], stride, inclusive)
        stride >>= 1
    while stride:
        found = _advance(events, found, high, times, stride, inclusive)
        stride >>= 1
    return found


def _advance(events: Ints, found: Ints, high: Ints, times: Ints, stride: int, inclusive: bool) -> Ints:
    ahead = found + stride
    seen = events.take(ahead, mode="clip")
    fits = seen <= times if inclusive else seen < times
    fits &= ahead < high
    return np.where(fits, ahead, found)


def latest_available(available: Ints | None, low: Ints, last: Ints, known: Ints | None) -> Ints:
    """Greatest position in ``[low, last]`` whose row is available by the query's ``known`` instant; -1 if none.

    A few steps back settle nearly every query; the rest skip whole windows of unavailable rows by their minima
    (a sparse table), so the worst case is logarithmic in the slice.
    """
    found = np.where(last >= low, last, -1)
    if available is None or known is None or not len(found):
        return found
    open_ = np.flatnonzero(found >= 0)
    for _ in range(4):
        open_ = open_[available[found[open_]] > known[open_]]
        if not len(open_):
            return found
        found[open_] -= 1
        spent = found[open_] < low[open_]
        found[open_[spent]] = -1
        open_ = open_[~spent]
    if len(open_):
        found[open_] = _lift(available, low[open_], found[open_], known[open_])
    return found


def _lift(available: Ints, low: Ints, last: Ints, known: Ints) -> Ints:
    """``latest_available`` by binary lifting: skip 2^j rows while none of them is available."""
    longest = int((last - low).max()) + 1
    minima = [available]
    while 2 << (len(minima) - 1) <= longest:
        width = 1 << (len(minima) - 1)
        shorter = minima[-1]
        wider = shorter.copy()
        np.minimum(shorter[width:], shorter[:-width], out=wider[width:])
        minima.append(wider)
    found = last.copy()
    for level in range(len(minima) - 1, -1, -1):
        width = 1 << level
        inside = found - width + 1 >= low
        skip = inside & (minima[level].take(found, mode="clip") > known)
        found = np.where(skip, found - width, found)
    return np.where(found >= low, found, -1)


def latest_instants(
    view: View, starts: Ints, low: Ints, last: Ints, known: Ints | None, count: int
) -> npt.NDArray[np.int64]:
    """The winner of each of the ``count`` latest instants up to ``last``: positions, shape (queries, count), -1 padded.

    Args:
        view: the rows.
        starts: first position of every slice of the view.
        low: slice start of each query.
        last: greatest admissible position of each query (``low - 1`` if none).
        known: each query's known-by instant, or None.
        count: how many instants.
    """
    found = np.full((len(low), count), -1, np.int64)
    if not len(low):
        return found
    found[:, 0] = latest_available(view.available, low, last, known)
    if count == 1:
        return found
    firsts = _instant_starts(view.events, starts)
    for slot in range(1, count):
        open_ = np.flatnonzero(found[:, slot - 1] >= 0)
        if not len(open_):
            break
        earlier = firsts[found[open_, slot - 1]] - 1
        found[open_, slot] = latest_available(
            view.available, low[open_], earlier, None if known is None else known[open_]
        )
    return found


def first_instants(view: View, starts: Ints, first: Ints, high: Ints, count: int) -> npt.NDArray[np.int64]:
    """The winner of each of the ``count`` first instants from ``first`` on: positions, (queries, count), -1 padded."""
    found = np.full((len(first), count), -1, np.int64)
    if not len(first) or not len(view.events):
        return found
    firsts = _instant_starts(view.events, starts)
    heads = np.flatnonzero(firsts == np.arange(len(firsts)))
    tails = np.append(heads[1:], len(firsts)) - 1
    last_of = np.repeat(tails, tails - heads + 1)
    at = first
    for slot in range(count):
        open_ = np.flatnonzero(at < high)
        if not len(open_):
            break
        found[open_, slot] = last_of[at[open_]]
        at = high.copy()
        at[open_] = found[open_, slot] + 1
    return found


def _instant_starts(events: Ints, starts: Ints) -> Ints:
    """For every row, the first position of its (slice, event) group."""
    fresh = np.ones(len(events), np.bool_)
    fresh[1:] = events[1:] != events[:-1]
    fresh[starts[starts < len(events)]] = True
    return np.maximum.accumulate(np.where(fresh, np.arange(len(events)), 0))
