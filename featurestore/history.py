"""Point-in-time questions: what a join asks for and what it answers. Planning only; ``kernel`` searches, ``offline`` reads."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

__all__ = ["Asked", "Answered"]


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
class Answered:
    """The join of one group.

    Attributes:
        columns: the asked features, one row per spine row, in spine order.
        matched: bool array: a record was found and served (not deleted, expired, too old).
        event_time: int64 array: event time of the matched record, 0 where unmatched.
        known_at: int64 array: instant it was known (declared, else write time); 0 where unmatched or not asked for.
        declared: bool array: ``known_at`` was declared rather than recorded.
        why_not: uint8 array for unmatched rows: index into ``REASONS``.
    """

    columns: pa.Table
    matched: np.ndarray
    event_time: np.ndarray
    known_at: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    declared: np.ndarray = field(default_factory=lambda: np.empty(0, np.bool_))
    why_not: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))


REASONS = ("", "null key or time", "no record", "deleted", "expired", "too old", "not mature")
