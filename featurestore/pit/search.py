"""Searching the units of a snapshot for a set of queries, and keeping the winner of each query across units."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from featurestore.pit.barriers import Barriers
from featurestore.pit.kernel import (
    NEVER,
    Bools,
    Ints,
    View,
    expand,
    first_instants,
    last_before,
    latest_available,
    latest_instants,
)
from featurestore.pit.queries import Queries, match_keys
from featurestore.pit.questions import Asked
from featurestore.pit.reader import Decoded, Reader, Unit, Wanted, overlapping_runs

__all__ = ["Found", "each_unit", "existing", "plan_units", "search"]

_VIRTUAL_ROWS = 4_000_000
"""Most rows copied at once for keys with hard deletes."""


class Found(NamedTuple):
    """The winners of each query, best first, over all units; arrays of shape (queries, slots).

    Attributes:
        unit: int32 index into ``Reader.units``, -1 for none.
        row: int32 row in the unit.
        event: int64 event time.
        deleted: bool tombstone; None where no unit has any.
        expires: int64 expiry; None where no unit has any.
    """

    unit: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    event: Ints
    deleted: Bools | None
    expires: Ints | None


class Hits(NamedTuple):
    """What one unit gives: for some queries, up to ``slots`` rows each; -1 rows where there are fewer."""

    queries: Ints
    rows: Ints
    decoded: Decoded


def each_unit(
    units: list[Unit],
    work: Callable[[Unit], None],
    *,
    threads: int,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Do ``work`` for every unit on a few threads; the first error is raised and the rest is left undone."""
    if threads <= 1 or len(units) <= 1:
        for done, unit in enumerate(units, 1):
            work(unit)
            if progress:
                progress(done / len(units))
        return
    with ThreadPoolExecutor(min(threads, len(units)), thread_name_prefix="tilth-join") as pool:
        futures = [pool.submit(work, unit) for unit in units]
        try:
            for done, future in enumerate(futures, 1):
                future.result()
                if progress:
                    progress(done / len(units))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def plan_units(reader: Reader, queries: Queries, asked: Asked) -> list[Unit]:
    """The units that can hold an answer, by the footers' bounds."""
    if not len(queries):
        return []
    start, end = asked.event_range
    if asked.label_within is None:
        newest, oldest = int(queries.times.max()), None
    else:
        newest, oldest = int(queries.times.max()) + asked.label_within, int(queries.times.min())
    upper = newest if end is None else min(newest, end)
    lowers = [bound for bound in (oldest, start) if bound is not None]
    planned = []
    for unit in reader.units:
        facts = unit.facts
        if asked.as_of is not None and facts.writes is not None and facts.writes[0] > asked.as_of:
            continue
        if facts.events is not None and (facts.events[0] > upper or any(facts.events[1] < bound for bound in lowers)):
            continue
        low, high = queries.key_range(unit.bounds)
        if low < high:
            planned.append(unit)
    return planned


def search(
    reader: Reader,
    queries: Queries,
    asked: Asked,
    units: list[Unit],
    barriers: Barriers,
    *,
    slots: int,
    after: Ints | None = None,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> Found:
    """Search planned units and merge.

    Args:
        reader: reads the units.
        queries: sorted queries.
        asked: the question.
        units: from ``plan_units``.
        barriers: hard deletes that bear on the queries.
        slots: instants to keep per query: 1, or more for lists and labels.
        after: for labels, the instant after which to look (the query's time, or past tombstones seen before).
        threads: worker threads.
        progress: told the fraction of units done.
    """
    ranked = overlapping_runs(units)
    merged = _Merged(
        len(queries),
        slots,
        forward=asked.label_within is not None,
        ranks=bool(ranked),
        deletes=not asked.include_deleted and any(unit.facts.deletes for unit in units),
        expires=asked.label_within is None and any(unit.facts.expires for unit in units),
    )

    def work(unit: Unit) -> None:
        wanted = Wanted(
            rank=unit.run in ranked or barriers.touches(unit),
            deletes=True,
            hards=True,
            expires=asked.label_within is None,
            writes=asked.as_of is not None,
            known=queries.known is not None,
        )
        hits = _search_unit(reader, queries, asked, unit, wanted, barriers, slots, after)
        if hits is not None:
            merged.add(unit, hits)

    each_unit(units, work, threads=threads, progress=progress)
    return merged.found()


def _search_unit(
    reader: Reader,
    queries: Queries,
    asked: Asked,
    unit: Unit,
    wanted: Wanted,
    barriers: Barriers,
    slots: int,
    after: Ints | None,
) -> Hits | None:
    low_key, high_key = queries.key_range(unit.bounds)
    decoded = reader.decode(unit, wanted)
    place = match_keys(queries, low_key, high_key, decoded.keys)
    there = np.flatnonzero(place >= 0)
    if not len(there):
        return None
    firsts, ends = queries.firsts[low_key + there], queries.firsts[low_key + there + 1]
    chosen, place_of = expand(firsts, ends), np.repeat(place[there], ends - firsts)
    view, starts, ends = existing(decoded, asked, unit)
    limits = barriers.of(chosen)
    if limits is None:
        rows = _look(view, starts, starts[place_of], ends[place_of], queries, asked, chosen, slots, after)
    else:
        rows = np.full((len(chosen), slots), -1, np.int64)
        plain = np.flatnonzero(limits == 0)
        spots = place_of[plain]
        rows[plain] = _look(view, starts, starts[spots], ends[spots], queries, asked, chosen[plain], slots, after)
        assert decoded.rank is not None
        sequences = np.abs(decoded.rank if view.rows is None else decoded.rank[view.rows])
        for some, shrunk, low, high in _behind_barriers(view, starts, ends, place_of, limits, sequences):
            heads = np.unique(low)
            rows[some] = _look(shrunk, heads, low, high, queries, asked, chosen[some], slots, after)
    hit = np.flatnonzero(rows[:, 0] >= 0)
    if not len(hit):
        return None
    if len(hit) < len(chosen):
        chosen, rows = chosen[hit], rows[hit]
    return Hits(chosen, rows, decoded)


def existing(decoded: Decoded, asked: Asked, unit: Unit) -> tuple[View, Ints, Ints]:
    """The rows of a unit that exist for every query, and each key's slice of them."""
    start, end = asked.event_range
    events, facts = decoded.events, unit.facts
    gone: Bools | None = decoded.hard
    if asked.include_deleted and decoded.deleted is not None:
        gone = _or(gone, decoded.deleted)
    if asked.as_of is not None and decoded.writes is not None:
        gone = _or(gone, decoded.writes > asked.as_of)
    if start is not None and (facts.events is None or facts.events[0] < start):
        gone = _or(gone, events < start)
    if end is not None and (facts.events is None or facts.events[1] > end):
        gone = _or(gone, events > end)
    low, high = decoded.slices
    view = View(events, None, decoded.known)
    if gone is None or not gone.any():
        return view, low, high
    there = ~gone
    before = np.zeros(len(events) + 1, np.int64)
    np.cumsum(there, out=before[1:])
    return view.subset(np.flatnonzero(there)), before[low], before[high]


def _or(one: Bools | None, other: Bools) -> Bools:
    return other if one is None else one | other


def _look(
    view: View,
    starts: Ints,
    low: Ints,
    high: Ints,
    queries: Queries,
    asked: Asked,
    chosen: Ints,
    slots: int,
    after: Ints | None,
) -> Ints:
    """Rows of the unit that win for the chosen queries, shape (queries, slots), -1 padded."""
    times = queries.times[chosen]
    if asked.label_within is not None:
        since = times if after is None else after[chosen]
        first = last_before(view.events, low, high, since) + 1
        beyond = last_before(view.events, low, high, times + asked.label_within) + 1
        found = first_instants(view, starts, first, beyond, slots)
    else:
        known = None if queries.known is None else queries.known[chosen]
        last = last_before(view.events, low, high, times, inclusive=asked.inclusive)
        if slots == 1:
            found = latest_available(view.available, low, last, known)[:, None]
        else:
            found = latest_instants(view, starts, low, last, known, slots)
    if view.rows is not None and len(view.rows):
        found = np.where(found >= 0, view.rows.take(found, mode="clip"), -1)
    return found


def _behind_barriers(
    view: View, starts: Ints, ends: Ints, place_of: Ints, limits: Ints, sequences: Ints
) -> Iterator[tuple[Ints, View, Ints, Ints]]:
    """Queries under a hard delete, in batches: (queries, the rows sequenced after it, slice of each query).

    Each (key, barrier) pair gets its own copy of what is left of the key's rows, so that the ordinary search applies.
    """
    under = np.flatnonzero(limits > 0)
    pairs, pair_of = np.unique(np.stack([place_of[under], limits[under]]), axis=1, return_inverse=True)
    pair_of = pair_of.ravel()
    by_pair = np.argsort(pair_of, kind="stable")
    heads = np.searchsorted(pair_of[by_pair], np.arange(pairs.shape[1] + 1))
    sizes = np.cumsum(ends[pairs[0]] - starts[pairs[0]])
    done = 0
    while done < pairs.shape[1]:
        base = int(sizes[done - 1]) if done else 0
        stop = max(done + 1, int(np.searchsorted(sizes, base + _VIRTUAL_ROWS, side="right")))
        places, barrier = pairs[0, done:stop], pairs[1, done:stop]
        lengths = ends[places] - starts[places]
        copied = expand(starts[places], ends[places])
        left = sequences[copied] > np.repeat(barrier, lengths)
        before = np.zeros(len(copied) + 1, np.int64)
        np.cumsum(left, out=before[1:])
        bounds = before[np.append(0, np.cumsum(lengths))]
        some = by_pair[heads[done] : heads[stop]]
        pair = pair_of[some] - done
        yield under[some], view.subset(copied[left]), bounds[pair], bounds[pair + 1]
        done = stop


class _Merged:
    """The best rows so far of every query, over units in any order."""

    def __init__(self, count: int, slots: int, *, forward: bool, ranks: bool, deletes: bool, expires: bool) -> None:
        shape = (count, slots)
        self._lock = threading.Lock()
        self._forward = forward
        self._unit = np.full(shape, -1, np.int32)
        self._row = np.zeros(shape, np.int32)
        self._event = np.zeros(shape, np.int64)
        self._more: dict[str, np.ndarray] = {}
        if ranks:
            self._more["rank"] = np.zeros(shape, np.int64)
        if deletes:
            self._more["deleted"] = np.zeros(shape, np.bool_)
        if expires:
            self._more["expires"] = np.full(shape, NEVER, np.int64)

    def add(self, unit: Unit, hits: Hits) -> None:
        """Take what a unit found; ``hits`` names each query at most once."""
        decoded = hits.decoded
        new: dict[str, np.ndarray] = {
            "unit": np.where(hits.rows >= 0, np.int32(unit.number), np.int32(-1)),
            "row": hits.rows.astype(np.int32),
            "event": decoded.events.take(hits.rows, mode="clip"),
        }
        sources = {"rank": (decoded.rank, 0), "deleted": (decoded.deleted, False), "expires": (decoded.expires, NEVER)}
        for name, held in self._more.items():
            values, instead = sources[name]
            new[name] = (
                np.full(hits.rows.shape, instead, held.dtype) if values is None else values.take(hits.rows, mode="clip")
            )
        with self._lock:
            self._keep_best(hits.queries, new)

    def found(self) -> Found:
        """The winners."""
        return Found(self._unit, self._row, self._event, self._more.get("deleted"), self._more.get("expires"))

    @property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {"unit": self._unit, "row": self._row, "event": self._event, **self._more}

    def _keep_best(self, queries: Ints, new: dict[str, np.ndarray]) -> None:
        arrays = self._arrays
        taken = np.flatnonzero(self._unit[queries, 0] >= 0)
        if len(taken) == 0:
            for name, held in arrays.items():
                held[queries] = new[name]
            return
        free = np.ones(len(queries), np.bool_)
        free[taken] = False
        for name, held in arrays.items():
            held[queries[free]] = new[name][free]
        spots = queries[taken]
        rivals = {name: np.concatenate([held[spots], new[name][taken]], axis=1) for name, held in arrays.items()}
        slots = self._unit.shape[1]
        if slots == 1:
            wins = np.flatnonzero(self._beats(rivals))
            for name, held in arrays.items():
                held[spots[wins], 0] = rivals[name][wins, 1]
            return
        chosen = self._best(rivals, slots)
        for name, held in arrays.items():
            best = np.take_along_axis(rivals[name], np.maximum(chosen, 0), axis=1)
            if name == "unit":
                best[chosen < 0] = -1
            held[spots] = best

    def _beats(self, rivals: dict[str, Any]) -> Bools:
        """Whether the second of two rows is the better one."""
        event, unit = rivals["event"], rivals["unit"]
        better = event[:, 1] < event[:, 0] if self._forward else event[:, 1] > event[:, 0]
        same = event[:, 1] == event[:, 0]
        later: Bools = unit[:, 1] > unit[:, 0]
        if "rank" in rivals:
            rank = rivals["rank"]
            later = (rank[:, 1] > rank[:, 0]) | ((rank[:, 1] == rank[:, 0]) & later)
        result: Bools = better | (same & later)
        return result

    def _best(self, rivals: dict[str, np.ndarray], slots: int) -> Ints:
        """Columns of the best ``slots`` instants of each query, each instant's greatest rank, -1 padded."""
        unit, event = rivals["unit"], rivals["event"]
        count, width = unit.shape
        lines = np.repeat(np.arange(count), width)
        signed = event if self._forward else -event
        rank = rivals.get("rank", np.zeros_like(event))
        absent = (unit < 0).ravel()
        order = np.lexsort((-unit.ravel(), -rank.ravel(), signed.ravel(), absent, lines))
        at = order.reshape(count, width)
        events, absent_ = event.ravel()[at], absent[at]
        fresh = ~absent_
        fresh[:, 1:] &= (events[:, 1:] != events[:, :-1]) | absent_[:, :-1]
        place = np.cumsum(fresh, axis=1) - 1
        line, column = np.nonzero(fresh & (place < slots))
        chosen = np.full((count, slots), -1, np.int64)
        chosen[line, place[line, column]] = at[line, column] - line * width
        return chosen
