"""Retrieval: every record of a group in a range of event times, without a spine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl
import pyarrow as pa

from featurestore.datasets.building import Groups
from featurestore.datasets.joins import read_moment, resolve_features
from featurestore.datasets.output import write_parquet
from featurestore.offline import Snapshot
from featurestore.pit.questions import Asked
from featurestore.pit.scans import range_rows
from foundation.errors import InvalidInput

__all__ = ["Retrieval", "retrieve"]


@dataclass(frozen=True)
class Retrieval:
    """The records asked for, read when a result is taken.

    Attributes:
        snapshot: the pinned table.
        asked: the question.
    """

    snapshot: Snapshot
    asked: Asked

    @property
    def schema(self) -> pa.Schema:
        """Identifiers, event time, then the features asked for."""
        group = self.snapshot.group
        fixed = [*group.record_id, group.event_time]
        names = [*fixed, *(name for name in self.asked.features if name not in fixed)]
        return pa.schema([group.schema.arrow.field(name) for name in names])

    def tables(self) -> Iterator[pa.Table]:
        """The records in key order, and in time order within a key, piece by piece."""
        for table in range_rows(self.snapshot, self.asked):
            yield table.select(self.schema.names).cast(self.schema)

    def batches(self) -> pa.RecordBatchReader:
        """The records as Arrow batches, read on the way."""
        schema = self.schema
        return pa.RecordBatchReader.from_batches(
            schema, (batch for table in self.tables() for batch in table.to_batches())
        )

    def to_arrow(self) -> pa.Table:
        """The records as an Arrow table."""
        return pa.concat_tables([self.schema.empty_table(), *self.tables()])

    def to_polars(self) -> pl.DataFrame:
        """The records as a polars frame."""
        return pl.DataFrame(pl.from_arrow(self.to_arrow()))

    def write_parquet(self, path: str | Path) -> int:
        """Stream the records into one local Parquet file and return how many there were; all of it or nothing."""
        note = {"group": self.snapshot.group.name, "table_version": self.snapshot.version}
        return write_parquet(Path(path), self.schema, self.tables(), lambda: note)


def retrieve(
    groups: Groups,
    name: str,
    *,
    start: datetime | str | None = None,
    end: datetime | str | None = None,
    features: Sequence[str] | None = None,
    as_of: datetime | str | None = None,
    include_deleted: bool = False,
) -> Retrieval:
    """Every record of a group between two event times, one per key and event time.

    Of several records of a key at one event time the winner counts. Deletes hide as they would from a row at that time;
    expiry does not: what was true then was true.

    Args:
        groups: the store.
        name: the group.
        start: earliest event time, inclusive, None for open.
        end: latest event time, inclusive, None for open.
        features: wanted columns, None for every feature proper.
        as_of: records written later do not exist; None for all.
        include_deleted: deletes at a record's own event time are passed over.

    Raises:
        NotFound: no such group.
        InvalidInput: an unknown feature, or moments without a zone or in the wrong order.
    """
    wanted = resolve_features(groups.group(name), features)
    span = (read_moment("start", start), read_moment("end", end))
    if span[0] is not None and span[1] is not None and span[0] > span[1]:
        raise InvalidInput("the range ends before it starts", subject="end", hint="give an end after the start")
    asked = Asked(features=wanted, as_of=read_moment("as_of", as_of), event_range=span, include_deleted=include_deleted)
    return Retrieval(groups.snapshot(name), asked)
