"""What a point-in-time join is asked, and what it answers: plain shapes, no rules. ``history`` answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["REASONS", "Answered", "Asked", "Candidate", "SpineRows"]

REASONS = ("", "null key or time", "no record", "deleted", "expired", "too old", "not mature")
"""Why a row has no values; ``Answered.why_not`` indexes it."""


@dataclass(frozen=True)
class Asked:
    """One group joined to a spine.

    Attributes:
        features: columns wanted, in order (identifiers and event time may be asked for too).
        inclusive: True for ``event_time <= row time``, False for ``<``.
        max_age: microseconds; an older record counts as missing. None for no limit.
        as_of: only rows with write time <= this instant exist. None for all.
        event_range: (start, end) instants, both inclusive, either None: only rows inside exist.
        include_deleted: tombstones are passed over instead of hiding what came before.
        recent: None for one value per cell; n for list columns of up to n most recent records, newest first.
        label_within: microseconds: take the first record after the row time, within this long, instead of the last
            before it; null until ``matured_by`` - row time reaches it.
        matured_by: the instant labels mature against (as_of, or the time of the build).
    """

    features: tuple[str, ...]
    inclusive: bool = True
    max_age: int | None = None
    as_of: int | None = None
    event_range: tuple[int | None, int | None] = (None, None)
    include_deleted: bool = False
    recent: int | None = None
    label_within: int | None = None
    matured_by: int = 0


@dataclass(frozen=True)
class SpineRows:
    """The rows a group is joined to.

    Attributes:
        keys: one column per identifier column, named and typed as the group stores it; nulls allowed.
        times: int64 array, the instant of each row (microseconds UTC); any value where not ``valid``.
        valid: bool array: the row's time is not null.
        known: int64 array for ``known_by``: only rows known at or before this instant exist. None when not asked.
        known_valid: bool array: ``known`` is not null; None when all are given.
    """

    keys: pa.Table
    times: np.ndarray
    valid: np.ndarray
    known: np.ndarray | None = None
    known_valid: np.ndarray | None = None


@dataclass(frozen=True)
class Answered:
    """The join of one group.

    Attributes:
        columns: the asked features, one row per spine row, in spine order.
        matched: bool array: a record was found and served (not deleted, expired, too old).
        event_time: int64 array: event time of the matched record, 0 where unmatched; the newest one for ``recent``.
        known_at: int64 array: instant it was known (declared, else write time); 0 where unmatched. Empty unless
            evidence was asked for. For ``recent`` the latest among the records of the list.
        declared: bool array beside ``known_at``: it was declared rather than recorded.
        why_not: uint8 array for unmatched rows: index into ``REASONS``.
    """

    columns: pa.Table
    matched: np.ndarray
    event_time: np.ndarray
    known_at: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    declared: np.ndarray = field(default_factory=lambda: np.empty(0, np.bool_))
    why_not: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))


@dataclass(frozen=True)
class Candidate:
    """One stored row of a key, judged against one question.

    Attributes:
        run: path of the file it stands in, relative to the table's folder.
        event_time, write_time, known_at: instants; the write time of a bulk load is its commit's.
        declared: ``known_at`` was declared rather than recorded.
        rank: its rank; see ``featurestore.records``.
        deleted, hard, offline_only: its flags.
        expires_at: instant it expires, None for never.
        verdict: ``"won"``, or why it did not.
        values: the asked features.
    """

    run: str
    event_time: int
    write_time: int
    known_at: int
    declared: bool
    rank: int
    deleted: bool
    hard: bool
    offline_only: bool
    expires_at: int | None
    verdict: str
    values: dict[str, Any]
