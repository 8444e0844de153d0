"""Datasets: a spine and the features each of its rows could have known, one result row per spine row, in order.

``start_dataset(groups, spine, "ts").join("weather", on=...).as_of(...)`` describes; every step gives a new builder.
Results are computed when asked for, at the table versions of that moment.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.datasets.building import ROW, Build, Groups, check_same_group
from featurestore.datasets.certificate import LeakCertificate
from featurestore.datasets.joins import Join, On, make_join, read_moment
from featurestore.datasets.moments import check_moment_type
from featurestore.datasets.output import METADATA, write_delta, write_parquet
from featurestore.datasets.spine import Spine, open_spine
from featurestore.datasets.splits import Split, make_split
from foundation.errors import InvalidInput, NotSupported
from foundation.operations import checked
from foundation.progress import Progress

if TYPE_CHECKING:
    from featurestore.datasets.explanation import Explanation
    from featurestore.datasets.saved import SavedDataset

__all__ = ["Dataset", "DatasetBuilder", "Groups", "Options", "start_dataset"]

SLICE_ROWS = 4_000_000
"""Most spine rows joined at a time when a result is streamed."""


@dataclass(frozen=True)
class Options:
    """What holds for a whole dataset.

    Attributes:
        inclusive: boundary ``<=`` rather than ``<``.
        as_of: rows written after this instant do not exist; None for all.
        known_by: None, ``"row"``, or a spine column of moments.
        split: how rows are divided into parts, or None.
    """

    inclusive: bool = True
    as_of: int | None = None
    known_by: str | None = None
    split: Split | None = None


@dataclass(frozen=True)
class Dataset:
    """A computed dataset with its evidence."""

    table: pa.Table
    certificate: LeakCertificate


def start_dataset(
    groups: Groups,
    spine: object,
    event_time: str = "ts",
    *,
    known_by: str | None = None,
    boundary: str = "<=",
    timezone: str | None = None,
    columns: Sequence[str] | None = None,
) -> DatasetBuilder:
    """Begin a dataset.

    Args:
        groups: the store it is built from.
        spine: its rows; see ``spine.open_spine`` for what is taken.
        event_time: the spine's column of moments.
        known_by: see ``DatasetBuilder.known_by``.
        boundary: see ``DatasetBuilder.boundary``.
        timezone: IANA zone of naive moments in the spine; None refuses them.
        columns: spine columns that go into the result, None for all.

    Raises:
        InvalidInput: an empty spine, a missing column, naive moments, or a source that cannot be read.
        NotFound: no such file.
    """
    opened = open_spine(spine, event_time, zone=timezone, columns=columns)
    return DatasetBuilder(groups, opened).known_by(known_by).boundary(boundary)


@dataclass(frozen=True)
class DatasetBuilder:
    """A dataset as described so far. Immutable; every method but the results gives a new one."""

    groups: Groups
    spine: Spine
    joins: tuple[Join, ...] = ()
    options: Options = dataclasses.field(default_factory=Options)

    # -- description ---------------------------------------------------------------------------------------------------

    @checked
    def join(
        self,
        name: str,
        on: On = None,
        features: Sequence[str] | None = None,
        max_age: timedelta | None = None,
        prefix: str | None = None,
        recent: int | None = None,
        include_deleted: bool = False,
        event_range: tuple[datetime | str | None, datetime | str | None] | None = None,
    ) -> DatasetBuilder:
        """Add the features of a group, each row seeing the newest record its moment allows; null where there is none.

        Args:
            name: the group.
            on: where its identifiers stand in the spine: None for columns of the same names, one spine column, a list
                of spine columns in record_id order, or a mapping of record_id column to spine column.
            features: columns wanted, None for every feature proper.
            max_age: older records count as missing.
            prefix: put before each name of the result, as it is (``"weather_"``).
            recent: n for list columns of the n newest records, newest first.
            include_deleted: deletes are passed over instead of hiding what came before.
            event_range: (start, end), both inclusive, either None: only records in it exist.

        Raises:
            NotFound: no such group.
            InvalidInput: a column, feature or option that does not fit, or a name the result has already.
        """
        return self._joined(
            make_join(
                self.spine,
                self.groups.group(name),
                on=on,
                features=features,
                max_age=max_age,
                prefix=prefix,
                recent=recent,
                include_deleted=include_deleted,
                event_range=event_range,
            )
        )

    @checked
    def join_label(
        self,
        name: str,
        on: On = None,
        features: Sequence[str] | None = None,
        *,
        within: timedelta,
        prefix: str | None = None,
    ) -> DatasetBuilder:
        """Add labels: the first record after each row's moment, at most ``within`` later.

        Null until it is mature, that is while moment plus ``within`` is not past (or past ``as_of``, where given).
        ``known_by`` does not apply to labels.

        Raises:
            NotFound: no such group.
            InvalidInput: as for ``join``.
        """
        group = self.groups.group(name)
        return self._joined(make_join(self.spine, group, on=on, features=features, prefix=prefix, within=within))

    @checked
    def as_of(self, moment: datetime | str | None) -> DatasetBuilder:
        """Build as if at this moment: rows written later do not exist, hard deletes included. None for now.

        Raises:
            InvalidInput: a moment without a zone.
        """
        return self._with(dataclasses.replace(self.options, as_of=read_moment("as_of", moment)))

    @checked
    def known_by(self, known: str | None) -> DatasetBuilder:
        """Use only records that were known by then: ``"row"`` for each row's own moment, or a spine column of moments.

        A record is known from its declared ``known_at``, else from its write time. A spine column called ``row`` cannot
        be named here. Rows where the column is null get nulls.

        Raises:
            InvalidInput: no such column, or one that holds no moments.
        """
        if known is not None and known != ROW:
            check_moment_type(known, self.spine.check_column(known, "known_by").type, self.spine.zone)
        return self._with(dataclasses.replace(self.options, known_by=known))

    @checked
    def boundary(self, boundary: str) -> DatasetBuilder:
        """Whether a record at exactly the row's moment counts: ``"<="`` (it does) or ``"<"``. Event time only.

        Raises:
            InvalidInput: anything else.
        """
        if boundary not in ("<=", "<"):
            raise InvalidInput(f"boundary {boundary!r} is unknown", subject="boundary", hint='use "<=" or "<"')
        return self._with(dataclasses.replace(self.options, inclusive=boundary == "<="))

    @checked
    def split(
        self,
        fractions: Mapping[str, float] | None = None,
        *,
        by: str | Sequence[str] | None = None,
        cuts: Mapping[str, datetime | str | None] | None = None,
        seed: int = 0,
        column: str = "split",
    ) -> DatasetBuilder:
        """Divide the rows into parts; the result gets a text column that says the part. See ``splits.make_split``.

        Raises:
            InvalidInput: shares that do not add up to 1, moments out of order, no such column, a name that is taken.
        """
        divided = make_split(self.spine, fractions, by=by, cuts=cuts, seed=seed, column=column)
        self._refuse_taken((divided.column,), "the split", "column", with_split=False)
        return self._with(dataclasses.replace(self.options, split=divided))

    # -- results -------------------------------------------------------------------------------------------------------

    @checked
    def to_arrow(self, *, progress: Progress | None = None, cancel: threading.Event | None = None) -> pa.Table:
        """The dataset as an Arrow table.

        Schema metadata ``tilth.dataset`` holds JSON: rows, rows with null moments and keys, pinned table versions.
        """
        build = self.pin()
        evidence = build.evidence(cells=False)
        (table,) = (part for _, part in build.parts(None, evidence=evidence, progress=progress, cancel=cancel))
        return table.replace_schema_metadata({METADATA: json.dumps(build.counts(evidence)).encode()})

    @checked
    def build(self, *, progress: Progress | None = None, cancel: threading.Event | None = None) -> Dataset:
        """The dataset and its leak certificate from one computation."""
        build = self.pin()
        evidence = build.evidence(cells=True)
        (table,) = (part for _, part in build.parts(None, evidence=evidence, progress=progress, cancel=cancel))
        note = {METADATA: json.dumps(build.counts(evidence)).encode()}
        return Dataset(table.replace_schema_metadata(note), build.certificate(evidence))

    @checked
    def to_polars(self) -> pl.DataFrame:
        """The dataset as a polars frame."""
        return pl.DataFrame(pl.from_arrow(self.to_arrow()))

    @checked
    def to_pandas(self) -> Any:  # noqa: ANN401 - pandas is not a dependency
        """The dataset as a pandas frame.

        Raises:
            NotSupported: pandas is not installed.
        """
        try:
            return self.to_arrow().to_pandas()
        except ImportError as error:
            raise NotSupported("pandas is not installed", subject="to_pandas", hint="pip install pandas") from error

    @checked
    def to_splits(self) -> dict[str, pa.Table]:
        """The dataset as one table per part of the split, each in spine order.

        Raises:
            InvalidInput: no split was asked for.
        """
        if self.options.split is None:
            raise InvalidInput("the dataset has no split", subject="split", hint="call .split(...) first")
        table = self.to_arrow()
        labels = table.column(self.options.split.column)
        return {name: table.filter(pc.equal(labels, name)) for name in self.options.split.names}

    @checked
    def batches(
        self,
        size: int = 65_536,
        *,
        slice_rows: int = SLICE_ROWS,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> pa.RecordBatchReader:
        """The dataset as Arrow batches of exactly ``size`` rows (the last one shorter), computed while they are read.

        Args:
            size: rows of a batch.
            slice_rows: spine rows joined at a time; memory grows with it, and each slice reads the groups again.
            progress: told about rows as they are joined.
            cancel: set it to stop; so does closing the reader.

        Raises:
            Cancelled: from the reader, when ``cancel`` was set.
        """
        if size < 1:
            raise InvalidInput(f"size={size} is not a row count", subject="size", hint="give 1 or more")
        build = self.pin()
        step = max(1, slice_rows // size) * size

        def stream() -> Iterator[pa.RecordBatch]:
            for _, part in build.parts(step, progress=progress, cancel=cancel):
                for start in range(0, part.num_rows, size):
                    yield from part.slice(start, size).combine_chunks().to_batches()

        return pa.RecordBatchReader.from_batches(build.schema, stream())

    @checked
    def write_parquet(
        self,
        path: str | Path,
        *,
        slice_rows: int = SLICE_ROWS,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> int:
        """Stream the dataset into one local Parquet file and return its rows; all of it or nothing.

        Raises:
            Cancelled: ``cancel`` was set.
            LimitExceeded: the disk is full.
        """
        build = self.pin()
        evidence = build.evidence(cells=False)
        parts = build.parts(slice_rows, evidence=evidence, progress=progress, cancel=cancel)
        return write_parquet(Path(path), build.schema, (part for _, part in parts), lambda: build.counts(evidence))

    @checked
    def write_delta(
        self,
        path: str | Path,
        *,
        slice_rows: int = SLICE_ROWS,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> int:
        """Stream the dataset into a new local Delta table and return its rows; all of it or nothing.

        Raises:
            AlreadyExists: something is there.
            Cancelled: ``cancel`` was set.
            LimitExceeded: the disk is full.
        """
        build = self.pin()
        evidence = build.evidence(cells=False)
        parts = build.parts(slice_rows, evidence=evidence, progress=progress, cancel=cancel)
        return write_delta(Path(path), build.schema, (part for _, part in parts), lambda: build.counts(evidence))

    @checked
    def certificate(self, *, slice_rows: int = SLICE_ROWS) -> LeakCertificate:
        """The leak certificate, computed without keeping the dataset. ``build`` gives both at once."""
        build = self.pin()
        evidence = build.evidence(cells=True)
        for _ in build.parts(slice_rows, evidence=evidence):
            pass
        return build.certificate(evidence)

    @checked
    def explain(self, row: int, feature: str) -> Explanation:
        """Which record, commit and file a cell came from, and why others lost.

        Args:
            row: row number, from 0.
            feature: joined column of the result.

        Raises:
            InvalidInput: no such row.
            NotFound: no such joined column.
        """
        from featurestore.datasets.explanation import explain_cell

        return explain_cell(self.groups, self.pin(), row, feature)

    @checked
    def save(
        self,
        name: str,
        description: str = "",
        *,
        slice_rows: int = SLICE_ROWS,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> SavedDataset:
        """Compute and keep the dataset as the next version of a name, with everything needed to compute it again.

        Raises:
            InvalidInput: an illegal name, or a spine column Parquet cannot hold.
            Conflict: the certificate found a leak; nothing is saved.
            Cancelled: ``cancel`` was set.
            LimitExceeded: the disk is full.
        """
        from featurestore.datasets.saved import SavedDatasets

        return SavedDatasets(self.groups).save(
            self.pin(), name, description, slice_rows=slice_rows, progress=progress, cancel=cancel
        )

    # -- inside --------------------------------------------------------------------------------------------------------

    @checked
    def pin(self) -> Build:
        """Fix the table versions, instants and cuts a result is computed with.

        Raises:
            NotFound: a group is gone.
            Conflict: a group was deleted and made anew since it was joined.
        """
        # The clock first: what was acknowledged by then is in the snapshots, so no label counts as missing too soon.
        now = self.groups.now()
        pinned = {name: self.groups.snapshot(name) for name in dict.fromkeys(join.group for join in self.joins)}
        for join in self.joins:
            check_same_group(join, pinned[join.group].group)
        split = self.options.split
        return Build(
            spine=self.spine,
            joins=self.joins,
            snapshots=tuple(pinned[join.group] for join in self.joins),
            inclusive=self.options.inclusive,
            as_of=self.options.as_of,
            matured_by=now if self.options.as_of is None else self.options.as_of,
            known_by=self.options.known_by,
            split=None if split is None else split.resolved(self.spine),
            built_at=now,
            threads=self.groups.threads,
        )

    def _with(self, options: Options) -> DatasetBuilder:
        return dataclasses.replace(self, options=options)

    def _joined(self, join: Join) -> DatasetBuilder:
        self._refuse_taken(join.names, f"group {join.group!r}", "prefix")
        return dataclasses.replace(self, joins=(*self.joins, join))

    def _refuse_taken(self, names: Sequence[str], newcomer: str, fix: str, *, with_split: bool = True) -> None:
        taken = dict.fromkeys(self.spine.carried, "the spine")
        for join in self.joins:
            taken.update(dict.fromkeys(join.names, f"group {join.group!r}"))
        if with_split and self.options.split is not None:
            taken[self.options.split.column] = "the split"
        for name in names:
            if name in taken:
                raise InvalidInput(
                    f"column {name!r} comes from {taken[name]} and from {newcomer}",
                    subject=f"column {name!r}",
                    hint=f'give another name with {fix}="…"'
                    + (", or choose other features" if fix == "prefix" else ""),
                )
