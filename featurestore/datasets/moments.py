"""Columns of moments a caller hands over with a spine: what cannot be read is an error that names the row."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from featurestore.instants import NAIVE, read_instants
from foundation.errors import InvalidInput

__all__ = ["check_moment_type", "check_zone", "instants_of"]

_MOMENT_HINT = (
    "use timestamps with a zone, ISO 8601 text such as 2026-01-31T12:00:00Z, or epoch seconds (not milliseconds)"
)
_ZONE_HINT = 'say which zone its times are in: timezone="UTC" (or another IANA name), or make {name!r} zone-aware'


def check_zone(zone: str | None) -> str | None:
    """Return an IANA zone name that exists, or None.

    Raises:
        InvalidInput: no such zone.
    """
    if zone is not None:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError, TypeError):
            raise InvalidInput(
                f"time zone {zone!r} is unknown",
                subject="timezone",
                hint="use an IANA name such as UTC or America/New_York",
            ) from None
    return zone


def check_moment_type(name: str, kind: pa.DataType, zone: str | None) -> None:
    """Refuse a column type that cannot hold moments, or holds naive ones while no zone is given.

    Raises:
        InvalidInput: naming the column, its type and the fix.
    """
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if (pa.types.is_timestamp(kind) and kind.tz is None) or pa.types.is_date(kind):
        if zone is None:
            raise InvalidInput(
                f"column {name!r} holds {kind}, which has no time zone",
                subject=f"column {name!r}",
                hint=_ZONE_HINT.format(name=name),
            )
    elif not (_is_text(kind) or _is_number(kind) or pa.types.is_timestamp(kind) or pa.types.is_null(kind)):
        raise InvalidInput(
            f"column {name!r} is {kind}, which holds no moments",
            subject=f"column {name!r}",
            hint=_MOMENT_HINT,
        )


def instants_of(
    column: pa.ChunkedArray, name: str, zone: str | None, first_row: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Read a column as instants.

    Finer than a microsecond is cut off downwards, so a row never sees a record from after its own moment. A naive time
    that a clock change makes ambiguous is the earlier of the two.

    Args:
        column: timestamps of any unit and zone, ISO 8601 text, or epoch seconds (integers, floats, decimals).
        name: the column's name, for errors.
        zone: IANA zone of naive values, None to refuse them.
        first_row: number of the column's first row in the whole spine, for errors.

    Returns:
        (int64 microseconds UTC, bool valid); invalid places (null, NaN) hold 0.

    Raises:
        InvalidInput: naming the column, the row (counted from 0) and the value.
    """
    check_moment_type(name, column.type, zone)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    cells = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    read = read_instants(cells, zone=zone)
    faults = [(int(np.argmax(mask)), reason) for mask, reason in read.faults if mask.any()]
    if not faults:
        return np.where(read.valid, read.micros, 0), read.valid
    place, reason = min(faults)
    raise InvalidInput(
        f"row {first_row + place}: {name!r} = {_shown(cells[place])} {'' if reason == NAIVE else 'is '}{reason}",
        subject=f"column {name!r}",
        hint=_ZONE_HINT.format(name=name) if reason == NAIVE else _MOMENT_HINT,
    )


def _shown(cell: pa.Scalar) -> str:
    try:
        return repr(cell.as_py())
    except (ValueError, OverflowError):
        return f"{cell.cast(pa.int64()).as_py()} ({cell.type})"


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))
