"""Split: which part of a dataset (train, validation, test) each spine row belongs to. At random by hash, or by time.

The random split hashes values, not positions in memory: the same values give the same part on every machine, in every
order of rows and whatever else is in the spine. Each column's values become 64-bit words (integers, moments, booleans
and floats by value; text as a polynomial over its UTF-8 bytes modulo 2^64), mixed with the seed by the finaliser of
SplitMix64 (Steele, Lea, Flood 2014); the word over 2^64 is compared with the running sum of the fractions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.datasets.joins import read_moment
from featurestore.datasets.spine import Spine
from foundation.clock import moment_of
from foundation.errors import InvalidInput
from foundation.names import check_name

__all__ = ["Split", "make_split"]

Words = npt.NDArray[np.uint64]

_NULL = np.uint64(0x9E3779B97F4A7C15)
_PRIME = 0x100000001B3
_TIME_ROWS = 1_000_000
_TEXT_ROWS = 1 << 18


@dataclass(frozen=True)
class Split:
    """How rows are divided.

    Attributes:
        names: the parts, in order.
        fractions: share of each part, adding up to 1; empty when ``ends`` were given.
        ends: for a split by time: instant at which each part but the last ends (exclusive); empty until resolved.
        by_time: by time rather than at random.
        columns: columns hashed; empty for the row's number.
        seed: changes the random split.
        column: name of the result's column that says the part.
    """

    names: tuple[str, ...]
    fractions: tuple[float, ...] = ()
    ends: tuple[int, ...] = ()
    by_time: bool = False
    columns: tuple[str, ...] = ()
    seed: int = 0
    column: str = "split"

    def resolved(self, spine: Spine) -> Split:
        """The split with the instants its fractions of time order come to; reads the spine's moments once.

        Rows of equal time stay together, in the earlier part's place only if all of them fit it.

        Raises:
            InvalidInput: a row has no time.
        """
        if not self.by_time or self.ends:
            return self
        times = np.sort(np.concatenate(list(_all_times(spine))))
        places = [
            math.floor(round(sum(self.fractions[: place + 1]) * len(times), 6)) for place in range(len(self.names) - 1)
        ]
        ends = [int(times[min(place, len(times) - 1)]) + (place >= len(times)) for place in places]
        return replace(self, ends=tuple(ends))

    def assign(self, table: pa.Table, first_row: int, times: np.ndarray, valid: np.ndarray) -> npt.NDArray[np.int64]:
        """The part of each row, as an index into ``names``.

        Args:
            table: a slice of the spine.
            first_row: number of its first row in the whole spine.
            times: int64 instants of its rows.
            valid: bool array: the row's time is not null.

        Raises:
            InvalidInput: a split by time and a row without one.
        """
        if self.by_time:
            if not valid.all():
                raise _timeless(first_row + int(np.flatnonzero(~valid)[0]))
            return np.searchsorted(np.array(self.ends, np.int64), times, side="right")
        words = np.full(table.num_rows, np.uint64(self.seed % 2**64), np.uint64)
        if not self.columns:
            rows = np.arange(first_row, first_row + table.num_rows, dtype=np.uint64)
            words = _mix(words ^ _mix(rows + np.uint64(1)))
        for name in self.columns:
            words = _mix(words ^ _words(table.column(name), name))
        shares = np.cumsum(self.fractions)[:-1]
        return np.searchsorted(shares, words.astype(np.float64) / 2.0**64, side="right")

    def labels(self, parts: npt.NDArray[np.int64]) -> pa.Array:
        """Part names as text."""
        return pa.array(self.names, pa.string()).take(pa.array(parts))

    def to_document(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "names": list(self.names),
            "fractions": list(self.fractions),
            "ends": list(self.ends),
            "by_time": self.by_time,
            "columns": list(self.columns),
            "seed": self.seed,
            "column": self.column,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Split:
        """Read what ``to_document`` wrote."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
        return cls(**plain)

    def __str__(self) -> str:
        """In words."""
        if self.ends:
            until = [
                f"{name} until {moment_of(end).isoformat()}" for name, end in zip(self.names, self.ends, strict=False)
            ]
            return ", ".join([*until, f"{self.names[-1]} the rest"])
        shares = ", ".join(f"{name} {share:g}" for name, share in zip(self.names, self.fractions, strict=True))
        how = "time" if self.by_time else f"hash of {', '.join(self.columns) or 'the row number'}, seed {self.seed}"
        return f"{shares} by {how}"


def make_split(
    spine: Spine,
    fractions: Mapping[str, float] | None = None,
    *,
    by: str | Sequence[str] | None = None,
    cuts: Mapping[str, datetime | str | None] | None = None,
    seed: int = 0,
    column: str = "split",
) -> Split:
    """Check a split.

    Args:
        spine: what is split.
        fractions: part to share, adding up to 1, e.g. ``{"train": 0.8, "validation": 0.1, "test": 0.1}``.
        by: None hashes the row's number; a column or several hash their values, so that rows that agree in them stay
            together and the order of rows does not matter; the spine's event time column splits in time order.
        cuts: instead of fractions: part to the moment it ends at (exclusive), in time order, None for the last.
        seed: another number, another random split.
        column: name of the result's column that says the part.

    Raises:
        InvalidInput: shares that do not add up to 1, moments out of order, no such column.
    """
    check_name("split column", column)
    if (fractions is None) == (cuts is None):
        raise InvalidInput("give fractions or cuts, one of them", subject="split", hint='{"train": 0.8, "test": 0.2}')
    columns = () if by is None else (by,) if isinstance(by, str) else tuple(by)
    for name in columns:
        spine.check_column(name, "split")
    if cuts is not None:
        if by is not None and columns != (spine.event_time,):
            raise InvalidInput("cuts divide by time", subject="split", hint="leave by out")
        return _by_cuts(cuts, column)
    assert fractions is not None
    names = _part_names(fractions)
    shares = tuple(fractions.values())
    if any(isinstance(s, bool) or not isinstance(s, int | float) or not 0 < s <= 1 for s in shares):
        raise InvalidInput(f"split fractions {dict(fractions)} are not shares", subject="split", hint="each is above 0")
    if abs(sum(shares) - 1) > 1e-9:
        raise InvalidInput(f"split fractions add up to {sum(shares):g}, not 1", subject="split", hint="make them 1")
    by_time = columns == (spine.event_time,)
    for name in () if by_time else columns:
        _check_hashable(name, spine.schema.field(name).type)
    return Split(names, shares, (), by_time, () if by_time else columns, int(seed), column)


def _by_cuts(cuts: Mapping[str, datetime | str | None], column: str) -> Split:
    names, moments = _part_names(cuts), list(cuts.values())
    ends = [read_moment(f"cut of {name!r}", moment) for name, moment in cuts.items()]
    if ends[-1] is not None or None in ends[:-1]:
        raise InvalidInput(
            f"cuts {moments} do not end with None", subject="split", hint='{"train": moment, "test": None}'
        )
    inner = [end for end in ends if end is not None]
    if sorted(set(inner)) != inner:
        raise InvalidInput("cuts are not in time order", subject="split", hint="give each part a later end")
    return Split(names, (), tuple(inner), True, (), 0, column)


def _part_names(parts: Mapping[str, object]) -> tuple[str, ...]:
    names = tuple(check_name("split part", name) for name in parts)
    if len(names) < 2:
        raise InvalidInput(f"a split into {len(names)} part", subject="split", hint="name at least two parts")
    return names


def _timeless(row: int) -> InvalidInput:
    return InvalidInput(
        f"row {row} has no time, so a split by time cannot place it",
        subject="split",
        hint="give it a time, leave the row out, or split at random",
    )


def _all_times(spine: Spine) -> Iterator[np.ndarray]:
    first = 0
    for piece in spine.slices(_TIME_ROWS, [spine.event_time]):
        times, valid = spine.moments(piece, spine.event_time, first)
        if not valid.all():
            raise _timeless(first + int(np.flatnonzero(~valid)[0]))
        yield times
        first += piece.num_rows


# -- stable hashing ----------------------------------------------------------------------------------------------------


def _mix(words: Words) -> Words:
    """SplitMix64's finaliser; wraps around on purpose."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Words = words ^ (words >> np.uint64(31))
    return mixed


def _check_hashable(name: str, kind: pa.DataType) -> None:
    if pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):
        raise InvalidInput(
            f"column {name!r} is {kind}, which a split cannot hash",
            subject=f"column {name!r}",
            hint="split by columns of numbers, text, booleans or moments",
        )


def _words(column: pa.ChunkedArray, name: str) -> Words:
    """A 64-bit word per value, the same for equal values of any width."""
    _check_hashable(name, column.type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind, types = column.type, pa.types
    valid = column.is_valid().to_numpy()
    if types.is_null(kind):
        words = np.zeros(len(column), np.uint64)
    elif types.is_unsigned_integer(kind):
        words = column.cast(pa.uint64()).fill_null(0).to_numpy()
    elif types.is_integer(kind) or types.is_boolean(kind):
        words = column.cast(pa.int64()).fill_null(0).to_numpy().view(np.uint64)
    elif types.is_floating(kind):
        floats = column.cast(pa.float64()).fill_null(float("nan")).to_numpy() + 0.0
        words = np.where(np.isnan(floats), np.nan, floats).view(np.uint64)
    elif types.is_timestamp(kind):
        finest = pc.cast(column, pa.timestamp("us", kind.tz), safe=False)
        words = finest.cast(pa.int64()).fill_null(0).to_numpy().view(np.uint64)
    else:
        texts = column.cast(pa.large_string())
        pieces = [texts.slice(start, _TEXT_ROWS) for start in range(0, len(texts), _TEXT_ROWS)]
        words = np.concatenate([_text_words(piece.combine_chunks()) for piece in pieces])
    return np.where(valid, _mix(words), _NULL)


def _text_words(column: pa.Array | pa.ChunkedArray) -> Words:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    array = array.fill_null("")
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets or bytes(8), np.int64)[array.offset : array.offset + len(array) + 1]
    lengths = np.diff(ends)
    words = lengths.astype(np.uint64)
    if data is None or not len(array) or ends[-1] == ends[0]:
        return words
    letters = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].astype(np.uint64) + np.uint64(1)
    starts = ends[:-1] - ends[0]
    place = np.arange(len(letters)) - np.repeat(starts, lengths)
    powers = np.cumprod(np.full(int(lengths.max()), _PRIME, np.uint64))
    letters *= powers[place]
    full = lengths > 0
    words[full] += np.add.reduceat(letters, starts[full])
    return words
