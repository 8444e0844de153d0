"""Candidates: every row of one key judged against one question, in words. One row at a time, for people to read."""

from __future__ import annotations

import dataclasses
from typing import Any

import pyarrow as pa

from featurestore.offline import Snapshot
from featurestore.pit.questions import Asked, Candidate
from featurestore.pit.reader import Reader, check_columns
from featurestore.pit.scans import key_rows
from featurestore.records import sequence_of
from foundation.clock import instant_of

__all__ = ["explain"]

_WON = "won"


def explain(
    snapshot: Snapshot, asked: Asked, key: tuple[Any, ...], time: int, known: int | None = None
) -> list[Candidate]:
    """Every row of a key, newest first, and what became of it in the answer for one spine row.

    Args:
        snapshot: the group's table.
        asked: the question.
        key: one value per identifier column.
        time: the spine row's instant.
        known: its known-by instant, None when the question has none.

    Returns:
        One candidate per stored row, by falling (event time, rank). Those served say ``"won"``.

    Raises:
        NotFound: an unknown feature, or a file that was vacuumed away.
        InvalidInput: a key that does not fit the group.
        PlatformError: a damaged or unsorted file, named.
    """
    check_columns(snapshot, asked.features)
    reader = Reader(snapshot)
    rows = [
        _candidate(snapshot, asked, run, line)
        for run, table in key_rows(reader, key)
        for line in _plain_times(table).to_pylist()
    ]
    rows.sort(key=lambda row: (row.event_time, row.rank), reverse=True)
    verdicts = _verdicts(rows, asked, time, None if asked.label_within is not None else known)
    return [_judged(row, verdict) for row, verdict in zip(rows, verdicts, strict=True)]


def _plain_times(table: pa.Table) -> pa.Table:
    """System instants as integers; the group's own columns as they are."""
    names = ("write_time", "tilth_known_at", "tilth_expires_at")
    for name in names:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table.column(place).cast(pa.int64()))
    return table


def _candidate(snapshot: Snapshot, asked: Asked, run: int, line: dict[str, Any]) -> Candidate:
    group = snapshot.group
    declared = line["tilth_known_at"] is not None
    return Candidate(
        run=snapshot.runs[run].path,
        event_time=instant_of(line[group.event_time]),
        write_time=line["write_time"],
        known_at=line["tilth_known_at"] if declared else line["write_time"],
        declared=declared,
        rank=line["tilth_rank"],
        deleted=bool(line["is_deleted"]),
        hard=bool(line["tilth_hard"]),
        offline_only=bool(line["tilth_offline_only"]),
        expires_at=line["tilth_expires_at"],
        verdict="",
        values={name: line[name] for name in asked.features},
    )


def _judged(row: Candidate, verdict: str) -> Candidate:
    return dataclasses.replace(row, verdict=verdict)


def _verdicts(rows: list[Candidate], asked: Asked, time: int, known: int | None) -> list[str]:
    """One verdict per row; rows come newest first."""
    until = time + (asked.label_within or 0)
    inclusive = asked.inclusive or asked.label_within is not None
    barrier = max(
        (
            sequence_of(row.rank)
            for row in rows
            if row.hard and not _unborn(row, asked, known) and _before(row.event_time, until, inclusive)
        ),
        default=0,
    )
    verdicts = [_excluded(row, asked, time, known, barrier) for row in rows]
    standing = [place for place, verdict in enumerate(verdicts) if not verdict]
    if asked.label_within is not None:
        _judge_label(rows, asked, time, standing, verdicts)
    else:
        _judge_latest(rows, asked, time, standing, verdicts)
    return verdicts


def _before(event: int, time: int, inclusive: bool) -> bool:
    return event <= time if inclusive else event < time


def _unborn(row: Candidate, asked: Asked, known: int | None) -> str:
    if asked.as_of is not None and row.write_time > asked.as_of:
        return "written after as_of"
    if known is not None and row.known_at > known:
        return "known too late"
    return ""


def _excluded(row: Candidate, asked: Asked, time: int, known: int | None, barrier: int) -> str:
    """Why a row does not exist for the question, or ``""``."""
    unborn = _unborn(row, asked, known)
    if unborn:
        return unborn
    if asked.label_within is not None:
        if row.event_time <= time:
            return "not after the row's time"
        if row.event_time > time + asked.label_within:
            return "after the label window"
    elif not _before(row.event_time, time, asked.inclusive):
        return "after the row's time" if row.event_time > time else "at the row's time, which is excluded"
    if row.hard:
        return "a hard delete"
    if sequence_of(row.rank) < barrier:
        return "removed by a hard delete"
    start, end = asked.event_range
    if (start is not None and row.event_time < start) or (end is not None and row.event_time > end):
        return "outside the event range"
    if asked.include_deleted and row.deleted:
        return "a tombstone, passed over"
    return ""


def _late(row: Candidate, asked: Asked, time: int) -> str:
    if row.expires_at is not None and row.expires_at <= time:
        return "newest, but expired"
    if asked.max_age is not None and time - row.event_time > asked.max_age:
        return "newest, but too old"
    return ""


def _judge_latest(rows: list[Candidate], asked: Asked, time: int, standing: list[int], verdicts: list[str]) -> None:
    served, stopped = 0, False
    held: int | None = None
    for place in standing:
        row = rows[place]
        if held == row.event_time:
            verdicts[place] = "lower rank at the same event time"
        elif stopped:
            verdicts[place] = "older than a tombstone"
        elif served >= (asked.recent or 1):
            verdicts[place] = "older than what won" if asked.recent is None else "older than the records asked for"
        elif row.deleted:
            stopped = True
            verdicts[place] = "a tombstone: no value"
        else:
            served += 1
            verdicts[place] = _late(row, asked, time) or _WON
        held = row.event_time


def _judge_label(rows: list[Candidate], asked: Asked, time: int, standing: list[int], verdicts: list[str]) -> None:
    mature = time + (asked.label_within or 0) <= asked.matured_by
    done = False
    held: int | None = None
    for place in sorted(standing, key=lambda place: (rows[place].event_time, -rows[place].rank)):
        row = rows[place]
        if held == row.event_time:
            verdicts[place] = "lower rank at the same event time"
        elif done:
            verdicts[place] = "later than the first"
        elif row.deleted:
            verdicts[place] = "a tombstone: no value"
        else:
            done = True
            verdicts[place] = _WON if mature else "first, but not mature"
        held = row.event_time
