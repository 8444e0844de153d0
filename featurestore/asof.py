"""One key through time: every row it ever had, and what would have been served at another moment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from featurestore.loading.loads import rows_from
from featurestore.online.codec import decode_values, stored_of
from featurestore.parts import Parts, View
from featurestore.pit.scans import rows_of
from featurestore.records import fold, is_visible
from featurestore.values import parse_instant

__all__ = ["history_of", "record_as_of"]


def history_of(parts: Parts, name: str, key: object, *, as_of: datetime | None) -> pa.Table:
    """Every row of a key written up to an instant, in (event time, rank) order, system columns included."""
    view = parts.offline_view(name)
    return _rows(parts, view, key, None if as_of is None else parse_instant(as_of, "as_of", zone=None))


def record_as_of(
    parts: Parts,
    name: str,
    key: object,
    features: Sequence[str] | None,
    *,
    as_of: datetime | None,
    at: datetime | None,
) -> dict[str, Any] | None:
    """The record a reader would have been served.

    Args:
        parts: the opened store.
        name: feature group.
        key: as for ``get_record``.
        features: only these.
        as_of: rows written later do not exist; expiry is judged at this instant too.
        at: rows with a later event time do not exist; expiry is judged here when given.
    """
    view = parts.offline_view(name)
    places = None if features is None else view.codec.places(features)
    written = None if as_of is None else parse_instant(as_of, "as_of", zone=None)
    moment = None if at is None else parse_instant(at, "at", zone=None)
    rows = rows_from(view.codec, _rows(parts, view, key, written))
    known = [row for row in rows if moment is None or row.event_time <= moment]
    held = fold([stored_of(row) for row in sorted(known, key=lambda row: abs(row.rank))])
    reading = moment if moment is not None else written
    if held is None or not is_visible(held, parts.clock.now() if reading is None else reading):
        return None
    record = view.codec.record(decode_values(held.payload))
    if places is None:
        return record
    names = view.group.names
    return {names[place]: record[names[place]] for place in places}


def _rows(parts: Parts, view: View, key: object, as_of: int | None) -> pa.Table:
    canonical = view.codec.key(key)
    parts.settle(view, online=False)
    shown = view.codec.shown_key(canonical)
    snapshot = parts.offline.snapshot(view.group)
    return rows_of(snapshot, shown if isinstance(shown, tuple) else (shown,), as_of=as_of)
