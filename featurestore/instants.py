"""Columns of moments read row by row in bulk: what cannot be read is marked, not raised, so the rest can be kept.

The rules are ``values.parse_instant``'s: aware timestamps, ISO 8601 text, epoch seconds; naive ones in a given zone.
Finer than a microsecond is cut off downwards; seconds given as floats are rounded to microseconds (milliseconds stay
exact).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.values import MAX_YEAR_INSTANT, MIN_YEAR_INSTANT, parse_instant
from foundation.clock import EPOCH, instant_of
from foundation.errors import InvalidInput
from foundation.schema import INSTANT

__all__ = ["NAIVE", "NOT_A_MOMENT", "Instants", "read_instants"]

NOT_A_MOMENT = "not a moment between the years 1 and 9999"
NAIVE = "has no time zone"
_TABLED = 4_070_908_800_000_000
"""2099-01-01: polars knows no daylight saving time from 2100 on; later moments are read by Python."""
_LEAF = 2048
"""Rows below which text that does not parse in bulk is read value by value."""
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_NUMBER = r"^\s*[+-]?\d+(\.\d*)?\s*$"
_EIGHT = r"^\s*\d{8}\s*$"


class Instants(NamedTuple):
    """Moments of a column.

    Attributes:
        micros: int64 microseconds UTC; anything where not valid.
        valid: bool; False for nulls and for what was refused.
        faults: (bool mask, reason) of the refused rows.
    """

    micros: np.ndarray
    valid: np.ndarray
    faults: list[tuple[np.ndarray, str]]


def read_instants(cells: pa.Array, *, zone: str | None, seconds: bool = False, numbers: bool = False) -> Instants:
    """Read timestamps of any unit and zone, dates, ISO 8601 text, or epoch seconds.

    Args:
        cells: the column, of a type that can hold moments (not dictionary-encoded).
        zone: IANA zone of naive values, None to refuse them.
        seconds: text is epoch seconds only (the column is declared Integral or Fractional).
        numbers: text may be epoch seconds as well as ISO 8601 (sources in which everything is text). Eight digits are
            refused: they may as well be a date.
    """
    kind = cells.type
    if pa.types.is_null(kind):
        return Instants(np.zeros(len(cells), np.int64), np.zeros(len(cells), np.bool_), [])
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _from_numbers(cells)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _from_timestamps(cells, zone)
    cells = cells.cast(pa.large_string())
    if seconds:
        return _from_number_text(cells)
    if not numbers:
        return _bounded(*_from_text(cells, zone))
    return _from_any_text(cells, zone)


def _valid(cells: pa.Array) -> np.ndarray:
    if not cells.null_count:
        return np.ones(len(cells), np.bool_)
    found: np.ndarray = cells.is_valid().to_numpy(zero_copy_only=False)
    return found


def _bounded(micros: np.ndarray, valid: np.ndarray, faults: list[tuple[np.ndarray, str]]) -> Instants:
    outside = valid & ((micros < MIN_YEAR_INSTANT) | (micros > MAX_YEAR_INSTANT))
    if outside.any():
        faults, valid = [*faults, (outside, NOT_A_MOMENT)], valid & ~outside
    return Instants(micros, valid, faults)


def _from_numbers(cells: pa.Array) -> Instants:
    valid = _valid(cells)
    low, high = MIN_YEAR_INSTANT // 1_000_000, MAX_YEAR_INSTANT // 1_000_000
    if pa.types.is_integer(cells.type):
        whole = cells.fill_null(0).to_numpy(zero_copy_only=False)
        outside = valid & ((whole > high) if whole.dtype == np.uint64 else (whole < low) | (whole > high))
        micros = np.where(outside, 0, whole).astype(np.int64) * 1_000_000
        return Instants(micros, valid & ~outside, [(outside, NOT_A_MOMENT)] if outside.any() else [])
    if pa.types.is_decimal(cells.type):
        cells = cells.cast(pa.string())  # Arrow's cast of decimals to floats is off by a bit now and then
    floats = cells.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False)
    valid &= ~np.isnan(floats)
    with np.errstate(over="ignore", invalid="ignore"):
        exact = np.rint(np.where(valid, floats, 0) * 1e6)
    outside = valid & ~((exact >= MIN_YEAR_INSTANT) & (exact <= MAX_YEAR_INSTANT))
    micros = np.where(outside, 0, exact).astype(np.int64)
    return Instants(micros, valid & ~outside, [(outside, NOT_A_MOMENT)] if outside.any() else [])


def _from_timestamps(cells: pa.Array, zone: str | None) -> Instants:
    if pa.types.is_date(cells.type):
        cells = cells.cast(pa.date32()).cast(pa.int32()).cast(pa.int64())
        raw, unit, naive = cells.fill_null(0).to_numpy(zero_copy_only=False) * 86_400, 1, True
    else:
        naive, unit = cells.type.tz is None, _PER_SECOND[cells.type.unit]
        raw = cells.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    valid = _valid(cells)
    if unit == 1_000_000_000:
        micros = raw // 1_000
    elif unit == 1_000_000:
        micros = raw
    else:
        step = 1_000_000 // unit
        outside = (raw < MIN_YEAR_INSTANT // step) | (raw > MAX_YEAR_INSTANT // step)
        micros = np.where(outside, MAX_YEAR_INSTANT + 1, np.where(outside, 0, raw) * step)
    if not naive:
        return _bounded(micros, valid, [])
    read = _bounded(micros, valid, [])
    if zone is None:
        return Instants(read.micros, np.zeros(len(cells), np.bool_), [*read.faults, (read.valid, NAIVE)])
    return _bounded(_in_zone(np.where(read.valid, read.micros, 0), zone), read.valid, read.faults)


def _in_zone(local: np.ndarray, zone: str) -> np.ndarray:
    """Wall-clock microseconds of a zone as instants: of two possible ones the earlier; in a gap as Python reads it."""
    wall = pl.Series(local).cast(pl.Datetime("us"))
    made = wall.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    found = made.dt.convert_time_zone("UTC").to_physical()
    if local.size and local.max() > _TABLED:
        found = pl.select(pl.when(pl.Series(local) <= _TABLED).then(found)).to_series()
    if found.null_count():
        cells, area = found.to_list(), ZoneInfo(zone)
        for place in np.flatnonzero(found.is_null().to_numpy()):
            naive = EPOCH.replace(tzinfo=None) + timedelta(microseconds=int(local[place]))
            cells[place] = instant_of(naive.replace(tzinfo=area))
        found = pl.Series(cells, dtype=pl.Int64)
    return found.to_numpy()


def _from_text(cells: pa.Array, zone: str | None) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, str]]]:
    """ISO 8601: in bulk where all of it is plain, in halves where not, value by value at the end."""
    for parse in (_aware, _naive_in(zone)):
        try:
            return parse(cells), _valid(cells), []
        except pa.ArrowInvalid:
            continue
    if len(cells) <= _LEAF:
        return _each(cells.to_pylist(), zone)
    middle = len(cells) // 2
    first, second = _from_text(cells[:middle], zone), _from_text(cells[middle:], zone)
    faults = [(_padded(mask, 0, len(cells)), reason) for mask, reason in first[2]]
    faults += [(_padded(mask, middle, len(cells)), reason) for mask, reason in second[2]]
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]]), _merged(faults)


def _merged(faults: list[tuple[np.ndarray, str]]) -> list[tuple[np.ndarray, str]]:
    masks: dict[str, np.ndarray] = {}
    for mask, reason in faults:
        masks[reason] = masks[reason] | mask if reason in masks else mask
    return [(mask, reason) for reason, mask in masks.items()]


def _padded(mask: np.ndarray, start: int, length: int) -> np.ndarray:
    whole = np.zeros(length, np.bool_)
    whole[start : start + len(mask)] = mask
    return whole


def _aware(cells: pa.Array) -> np.ndarray:
    found: np.ndarray = cells.cast(INSTANT).cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    return found


def _naive_in(zone: str | None) -> Callable[[pa.Array], np.ndarray]:
    def parse(cells: pa.Array) -> np.ndarray:
        if zone is None:
            raise pa.ArrowInvalid(NAIVE)
        local = cells.cast(pa.timestamp("us")).cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        if local.size and (local.min() < MIN_YEAR_INSTANT or local.max() > MAX_YEAR_INSTANT):
            raise pa.ArrowInvalid(NOT_A_MOMENT)
        return _in_zone(local, zone)

    return parse


def _each(texts: list[str | None], zone: str | None) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, str]]]:
    micros = np.zeros(len(texts), np.int64)
    valid = np.zeros(len(texts), np.bool_)
    masks: dict[str, np.ndarray] = {}
    for place, text in enumerate(texts):
        if text is None:
            continue
        try:
            micros[place] = parse_instant(text, "", zone=zone)
            valid[place] = True
        except InvalidInput:
            reason = NAIVE if zone is None and _is_naive(text) else NOT_A_MOMENT
            masks.setdefault(reason, np.zeros(len(texts), np.bool_))[place] = True
    return micros, valid, [(mask, reason) for reason, mask in masks.items()]


def _is_naive(text: str) -> bool:
    try:
        return datetime.fromisoformat(text.strip()).tzinfo is None
    except ValueError:
        return False


def _from_number_text(cells: pa.Array) -> Instants:
    valid = _valid(cells)
    trimmed = pl.Series(pc.utf8_trim_whitespace(cells))
    numbers = trimmed.cast(pl.Float64, strict=False).to_arrow()
    read = _from_numbers(numbers)
    unread = valid & ~_valid(numbers)
    return Instants(read.micros, read.valid, [*read.faults, (unread, NOT_A_MOMENT)] if unread.any() else read.faults)


def _from_any_text(cells: pa.Array, zone: str | None) -> Instants:
    """ISO 8601 where it is not a bare number, epoch seconds where it is."""
    try:
        return _bounded(_aware(cells), _valid(cells), [])
    except pa.ArrowInvalid:
        pass
    number = pc.match_substring_regex(cells, _NUMBER).fill_null(False)
    if not pc.any(number).as_py():
        return _bounded(*_from_text(cells, zone))
    eight = pc.match_substring_regex(cells, _EIGHT).fill_null(False).to_numpy(zero_copy_only=False)
    text = pc.if_else(number, None, cells)
    moments = _bounded(*_from_text(text, zone))
    seconds = _from_number_text(pc.if_else(pc.and_not(number, pa.array(eight)), cells, None))
    valid = moments.valid | seconds.valid
    faults = [*moments.faults, *seconds.faults]
    if eight.any():
        faults.append((eight, NOT_A_MOMENT))
    return Instants(np.where(seconds.valid, seconds.micros, moments.micros), valid, faults)
