"""The join one should not do, for comparison: every row gets each key's latest value, whatever the row's moment.

It is what joining a table of current values to past events does. Counted are the cells whose record lies after the
row, which a model would learn from and never see again, and the cells that come out different from the proper join.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from featurestore.datasets.builder import SLICE_ROWS, DatasetBuilder
from featurestore.datasets.building import Build, spine_rows
from featurestore.pit.history import answer
from featurestore.pit.questions import Asked

__all__ = ["NaiveComparison", "NaiveFeature", "naive_latest"]


@dataclass(frozen=True)
class NaiveFeature:
    """One feature, joined naively.

    Attributes:
        name: column of the result.
        group: where it comes from.
        rows, filled: cells in all, and those the naive join fills.
        leaked: filled cells whose record lies after the row's moment.
        different: cells that are not what the proper join gives.
    """

    name: str
    group: str
    rows: int
    filled: int
    leaked: int
    different: int


@dataclass(frozen=True)
class NaiveComparison:
    """The naive join against the proper one, for the same rows and table versions."""

    rows: int
    features: tuple[NaiveFeature, ...]

    @property
    def cells(self) -> int:
        """Cells compared."""
        return sum(feature.rows for feature in self.features)

    @property
    def leaked(self) -> int:
        """Cells the naive join leaks."""
        return sum(feature.leaked for feature in self.features)

    @property
    def different(self) -> int:
        """Cells the naive join gets wrong."""
        return sum(feature.different for feature in self.features)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "cells": self.cells, "leaked": self.leaked, "different": self.different}

    def to_json(self) -> str:
        """JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        """In plain text."""
        width = max([len("column"), *(len(feature.name) for feature in self.features)])
        share = self.leaked / self.cells if self.cells else 0.0
        lines = [
            f"A join of latest values would leak {self.leaked:,} of {self.cells:,} cells ({share:.1%}) "
            f"and get {self.different:,} wrong",
            f"{'column':<{width}}  {'leaked':>12}  {'wrong':>12}",
        ]
        lines += [f"{each.name:<{width}}  {each.leaked:>12,}  {each.different:>12,}" for each in self.features]
        return "\n".join(lines)


def naive_latest(builder: DatasetBuilder, *, slice_rows: int = SLICE_ROWS) -> NaiveComparison:
    """Join the latest values, as an online store holds them now, to a dataset's rows and compare.

    Labels are left out: they are meant to lie after the row. Deletes and expiry count as of now, max age does not.

    Args:
        builder: the dataset; both joins use the same pinned versions.
        slice_rows: spine rows joined at a time.

    Raises:
        InvalidInput: as for the dataset itself.
    """
    build = builder.pin()
    counts: dict[str, list[int]] = {name: [0, 0, 0] for join in build.joins if not join.is_label for name in join.names}
    first = 0
    for piece, proper in build.parts(slice_rows):
        _compare(build, piece, proper, first, counts)
        first += piece.num_rows
    features = tuple(
        NaiveFeature(name, join.group, build.spine.rows, *counts[name])
        for join in build.joins
        if not join.is_label
        for name in join.names
    )
    return NaiveComparison(build.spine.rows, features)


def _compare(build: Build, piece: pa.Table, proper: pa.Table, first: int, counts: dict[str, list[int]]) -> None:
    times, valid = build.spine.moments(piece, build.spine.event_time, first)
    now = np.full(piece.num_rows, build.built_at, np.int64)
    everywhere = np.ones(piece.num_rows, np.bool_)
    for place, join in enumerate(build.joins):
        if join.is_label:
            continue
        rows = spine_rows(build, piece, first, (now, everywhere), None, place)
        latest = answer(build.snapshots[place], Asked(features=join.features, recent=join.recent), rows)
        after = latest.event_time > times if build.inclusive else latest.event_time >= times
        after &= latest.matched & valid
        for name, column in zip(join.names, latest.columns.columns, strict=True):
            filled = column.is_valid().to_numpy()
            kept = pl.Series(proper.column(name))
            found = counts[name]
            found[0] += int(filled.sum())
            found[1] += int((filled & after).sum())
            found[2] += int(kept.ne_missing(pl.Series(column)).sum())
