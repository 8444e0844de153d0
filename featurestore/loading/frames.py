"""Frames into rows of a group: every column read as its declared type, rows that do not fit set aside with a reason.

NaN becomes null. Text sources (CSV) have null for the empty field. All in bulk; only refused rows are looked at one
by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.groups import FeatureGroup
from featurestore.instants import read_instants
from featurestore.keys import KEY_LIMIT
from featurestore.loading.cells import instants_to_arrow, read_cells
from foundation.errors import InvalidInput
from foundation.schema import Column
from foundation.shown import json_rows

__all__ = ["REJECTS", "Coerced", "check_columns", "coerce", "rejected_rows"]

REJECTS = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("field", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("record", pa.string()),
    ]
)
"""A refused row: its number in the source (from 0), the field and reason it was refused for, the row as JSON."""
_KEY_PART = 9
"""Bytes of a fixed-width part of a canonical key."""
_TEXT_PART = 5
"""Bytes a text part adds to its UTF-8."""


@dataclass(frozen=True)
class Coerced:
    """A batch of a source, read.

    Attributes:
        table: accepted rows, in the order and types of ``group.schema.arrow``.
        positions: int64 row number within the batch (from 0) of each accepted row, rising.
        rejects: refused rows (``REJECTS``), one each, with the first thing wrong: identifiers first, then the event
            time, then the features in order.
    """

    table: pa.Table
    positions: np.ndarray
    rejects: pa.Table


def check_columns(names: list[str], group: FeatureGroup) -> None:
    """Check that a source's column names fit a group; features it lacks are fine.

    Raises:
        InvalidInput: a column twice, one the group does not have, or no identifier or event time column.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidInput(
                f"column {name!r} is in the source twice",
                subject=f"column {name!r}",
                hint="give every column a name of its own",
            )
        seen.add(name)
    for name in names:
        if name not in group.names:
            near = get_close_matches(name, group.names, n=1)
            raise InvalidInput(
                f"column {name!r} is not a feature of group {group.name!r}",
                subject=f"column {name!r}",
                hint=f"did you mean {near[0]!r}?" if near else "leave it out, or add the feature to the group",
            )
    for name, role in [*((each, "record_id") for each in group.record_id), (group.event_time, "event_time")]:
        if name not in seen:
            raise InvalidInput(
                f"the source has no column {name!r}, the {role} of group {group.name!r}",
                subject=f"column {name!r}",
                hint=f"columns of the source: {', '.join(names)}",
            )


class _Faults:
    """The first fault of each row."""

    def __init__(self, rows: int) -> None:
        self.codes = np.zeros(rows, np.int32)
        self.said: list[tuple[str, str]] = [("", "")]

    def add(self, field: str, mask: np.ndarray, reason: str) -> None:
        new = mask & (self.codes == 0)
        if new.any():
            self.codes[new] = len(self.said)
            self.said.append((field, reason))


def coerce(
    table: pa.Table,
    group: FeatureGroup,
    *,
    text: bool = False,
    now: int,
    future_bound: int,
    zone: str | None = None,
) -> Coerced:
    """Read a batch of a source as rows of a group.

    Args:
        table: the batch.
        group: the group; its ``zone`` counts where ``zone`` is None.
        text: every value is text to be parsed (``Scan.text``).
        now: the present instant (microseconds UTC).
        future_bound: how far beyond ``now`` an event time may lie, in microseconds.
        zone: IANA zone of naive timestamps.

    Raises:
        InvalidInput: the source as a whole does not fit: see ``check_columns``; a column type that can never hold the
            declared type; timestamps without a zone.
    """
    check_columns(table.column_names, group)
    zone = zone or group.zone
    faults = _Faults(table.num_rows)
    fixed = (*group.record_id, group.event_time)
    made: dict[str, pa.Array] = {}
    for name in (*fixed, *(name for name in group.names if name not in fixed)):
        if name == group.event_time:
            _check_key_sizes(group, made, faults)
        column = group.schema.get(name)
        assert column is not None
        if name not in table.column_names:
            made[name] = pa.nulls(table.num_rows, column.type.arrow)
        elif name == group.event_time:
            made[name] = _event_time(_whole(table.column(name)), column, group, text, zone, now + future_bound, faults)
        else:
            read = read_cells(column, _whole(table.column(name)), text=text, zone=zone)
            made[name] = read.cells
            for mask, reason in read.faults:
                faults.add(name, mask, reason)
            if name in group.record_id:
                faults.add(name, _nulls(read.cells), "identifier is null")
    whole = pa.Table.from_arrays([made[name] for name in group.names], schema=group.schema.arrow)
    if not faults.codes.any():
        return Coerced(whole, np.arange(table.num_rows, dtype=np.int64), REJECTS.empty_table())
    kept = np.flatnonzero(faults.codes == 0)
    refused = np.flatnonzero(faults.codes)
    told = [faults.said[code] for code in faults.codes[refused].tolist()]
    rejects = rejected_rows(table, refused, [field for field, _ in told], [reason for _, reason in told])
    return Coerced(whole.filter(pa.array(faults.codes == 0)), kept, rejects)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece, without copying where it is one."""
    if column.num_chunks == 1:
        return column.chunk(0)
    if isinstance(column.type, pa.BaseExtensionType):
        storage = [chunk.storage for chunk in column.chunks]
        return pa.ExtensionArray.from_storage(column.type, pa.concat_arrays(storage)) if storage else pa.nulls(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _nulls(cells: pa.Array) -> np.ndarray:
    if not cells.null_count:
        return np.zeros(len(cells), np.bool_)
    found: np.ndarray = cells.is_null().to_numpy(zero_copy_only=False)
    return found


def _event_time(
    cells: pa.Array,
    column: Column,
    group: FeatureGroup,
    text: bool,
    zone: str | None,
    latest: int,
    faults: _Faults,
) -> pa.Array:
    name = column.name
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    if text and group.feature(name).type.kind in ("Integral", "Fractional"):
        read = read_instants(cells, zone=zone, seconds=True)
        moments, found = instants_to_arrow(read), read.faults
    else:
        moments, found = read_cells(column, cells, text=text, zone=zone)
    for mask, reason in found:
        faults.add(name, mask, reason)
    faults.add(name, _nulls(moments), "event time is missing")
    micros = moments.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    faults.add(name, micros > latest, "event time lies beyond the future bound")
    return moments


def _check_key_sizes(group: FeatureGroup, made: dict[str, pa.Array], faults: _Faults) -> None:
    texts = [column.name for column in group.key_columns if column.type.kind == "String"]
    if not texts:
        return
    room = KEY_LIMIT - _KEY_PART * (len(group.key_columns) - len(texts)) - _TEXT_PART * len(texts)
    if sum((data.size if (data := made[name].buffers()[2]) else 0) for name in texts) <= room:
        return
    used = sum(pc.binary_length(made[name]).fill_null(0).to_numpy(zero_copy_only=False) for name in texts)
    faults.add(texts[0], used > room, f"key over {KEY_LIMIT} bytes")


def rejected_rows(table: pa.Table, rows: np.ndarray, fields: list[str], reasons: list[str]) -> pa.Table:
    """Rows of a source table as ``REJECTS``.

    Args:
        table: the source table.
        rows: int64 row numbers within it.
        fields: the field each is refused for.
        reasons: and why.
    """
    return pa.Table.from_arrays(
        [
            pa.array(rows, pa.int64()),
            pa.array(fields, pa.string()),
            pa.array(reasons, pa.string()),
            pa.array(json_rows(table, rows), pa.string()),
        ],
        schema=REJECTS,
    )
