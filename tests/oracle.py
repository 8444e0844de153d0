"""The meaning of every point-in-time question, as loops over plain rows. Slow and obvious; the engine must agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NULL, NONE, DELETED, EXPIRED, OLD, IMMATURE = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True)
class Rec:
    """One stored row; ``write`` is the effective write time and ``known`` the declared instant, if any."""

    key: tuple
    event: int
    rank: int
    write: int
    known: int | None = None
    deleted: bool = False
    hard: bool = False
    expires: int | None = None
    offline_only: bool = False
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def sequence(self) -> int:
        return abs(self.rank)

    @property
    def effective_known(self) -> int:
        return self.write if self.known is None else self.known


def exists_for(row: Rec, asked: Any, known: int | None) -> bool:
    if asked.as_of is not None and row.write > asked.as_of:
        return False
    return known is None or row.effective_known <= known


def barrier(rows: list[Rec], asked: Any, until: int, inclusive: bool, known: int | None) -> int:
    """Greatest sequence of a hard delete that counts."""
    best = 0
    for row in rows:
        if row.hard and exists_for(row, asked, known):
            before = row.event <= until if inclusive else row.event < until
            if before:
                best = max(best, row.sequence)
    return best


def standing(rows: list[Rec], asked: Any, limit: int, known: int | None) -> list[Rec]:
    """Rows that exist, whatever their event time."""
    start, end = asked.event_range
    kept = []
    for row in rows:
        if row.hard or row.sequence < limit or not exists_for(row, asked, known):
            continue
        if start is not None and row.event < start:
            continue
        if end is not None and row.event > end:
            continue
        if asked.include_deleted and row.deleted:
            continue
        kept.append(row)
    return kept


def _late(row: Rec, time: int, asked: Any) -> int:
    if row.expires is not None and row.expires <= time:
        return EXPIRED
    if asked.max_age is not None and time - row.event > asked.max_age:
        return OLD
    return 0


def winners(
    history: list[Rec], asked: Any, key: tuple, time: int | None, known: int | None, known_given: bool
) -> tuple[list[Rec], int]:
    """(records served, newest first; why there is none)."""
    if time is None or any(part is None for part in key):
        return [], NULL
    rows = [row for row in history if row.key == key]
    if asked.label_within is not None:
        return _label(rows, asked, time)
    if known_given and known is None:
        return [], NULL
    limit = barrier(rows, asked, time, asked.inclusive, known)
    candidates = [
        row
        for row in standing(rows, asked, limit, known)
        if (row.event <= time if asked.inclusive else row.event < time)
    ]
    if not candidates:
        return [], NONE
    if asked.recent is None:
        winner = max(candidates, key=lambda row: (row.event, row.rank))
        if winner.deleted:
            return [], DELETED
        late = _late(winner, time, asked)
        return ([], late) if late else ([winner], 0)
    return _recent(candidates, asked, time)


def _recent(candidates: list[Rec], asked: Any, time: int) -> tuple[list[Rec], int]:
    taken: list[Rec] = []
    for event in sorted({row.event for row in candidates}, reverse=True):
        best = max((row for row in candidates if row.event == event), key=lambda row: row.rank)
        if best.deleted:
            break
        taken.append(best)
        if len(taken) == asked.recent:
            break
    if not taken:
        return [], DELETED
    served = [row for row in taken if not _late(row, time, asked)]
    return served, 0 if served else _late(taken[0], time, asked)


def _label(rows: list[Rec], asked: Any, time: int) -> tuple[list[Rec], int]:
    until = time + asked.label_within
    if until > asked.matured_by:
        return [], IMMATURE
    limit = barrier(rows, asked, until, True, None)
    candidates = [row for row in standing(rows, asked, limit, None) if time < row.event <= until]
    for event in sorted({row.event for row in candidates}):
        best = max((row for row in candidates if row.event == event), key=lambda row: row.rank)
        if not best.deleted:
            return [best], 0
    return [], DELETED if candidates else NONE


def in_range(history: list[Rec], asked: Any) -> list[Rec]:
    """No spine: per (key, instant) the greatest rank, tombstoned instants left out, each judged at its own instant."""
    found = []
    for key in {row.key for row in history}:
        rows = [row for row in history if row.key == key]
        for event in {row.event for row in rows}:
            limit = barrier(rows, asked, event, True, None)
            candidates = [row for row in standing(rows, asked, limit, None) if row.event == event]
            if candidates:
                best = max(candidates, key=lambda row: row.rank)
                if not best.deleted:
                    found.append(best)
    return sorted(found, key=lambda row: (row.key, row.event))
