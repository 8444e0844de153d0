"""Build: one carrying-out of a dataset, everything it depends on pinned. Tables come out slice by slice, in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Protocol

import numpy as np
import pyarrow as pa

from featurestore.datasets.certificate import CertificateBuilder, JoinEvidence, LeakCertificate, SliceEvidence
from featurestore.datasets.joins import Join
from featurestore.datasets.spine import Spine
from featurestore.datasets.splits import Split
from featurestore.groups import FeatureGroup
from featurestore.offline import Snapshot
from featurestore.pit.history import answer
from featurestore.pit.questions import Answered, Asked, SpineRows
from foundation.catalog import Catalog
from foundation.clock import moment_of
from foundation.errors import Conflict, PlatformError
from foundation.files import Files
from foundation.progress import Cancelled, Progress

__all__ = [
    "ROW",
    "Build",
    "Evidence",
    "Groups",
    "check_same_group",
    "known_of",
    "spine_rows",
]

ROW = "row"
"""``known_by`` value: each row's own moment."""


class Groups(Protocol):
    """What datasets need of a store."""

    @property
    def files(self) -> Files:
        """Where saved datasets are kept, below ``datasets/``."""

    @property
    def catalog(self) -> Catalog:
        """Where saved datasets are listed, kind ``"saved dataset"``."""

    @property
    def threads(self) -> int:
        """How many threads a join may use."""

    def group(self, name: str) -> FeatureGroup:
        """A group as it stands.

        Raises:
            NotFound: no such group; a close name is suggested.
        """

    def snapshot(self, name: str, version: int | None = None) -> Snapshot:
        """A group's offline table: the latest version, with everything acknowledged flushed into it, or a given one.

        Raises:
            NotFound: no such group or version, or the group is not kept offline.
        """

    def commit_of(self, name: str, run: str) -> int | None:
        """Version of a group's offline table whose commit added a file; None if the log does not say."""

    def now(self) -> int:
        """The present instant."""


@dataclass
class Evidence:
    """What a build counts on its way; complete once every slice came out.

    Attributes:
        null_times, null_known: rows without a moment, and without the ``known_by`` instant.
        tally: cell by cell counts, None when only the rows are counted.
        null_keys: per join, rows with a null in a key column.
    """

    tally: CertificateBuilder | None = None
    null_times: int = 0
    null_known: int = 0
    null_keys: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Build:
    """A dataset about to be computed.

    Attributes:
        spine: its rows.
        joins: what is joined, in order.
        snapshots: the pinned table of each join.
        inclusive: boundary ``<=`` rather than ``<``.
        as_of: rows written later do not exist; None for all.
        matured_by: instant labels mature against.
        known_by: None, ``"row"``, or a spine column.
        split: resolved, or None.
        built_at: instant the versions were pinned.
        threads: used by the joins.
    """

    spine: Spine
    joins: tuple[Join, ...]
    snapshots: tuple[Snapshot, ...]
    inclusive: bool
    as_of: int | None
    matured_by: int
    known_by: str | None
    split: Split | None
    built_at: int
    threads: int = 2

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of the result: those carried from the spine, the joined ones, then the split's."""
        fields = [self.spine.schema.field(name) for name in self.spine.carried]
        for join, snapshot in zip(self.joins, self.snapshots, strict=True):
            fields += join.fields(snapshot.group)
        if self.split is not None:
            fields.append(pa.field(self.split.column, pa.string()))
        return pa.schema(fields)

    @cached_property
    def needed(self) -> list[str]:
        """Spine columns that are read, in the spine's order."""
        wanted = {*self.spine.carried, self.spine.event_time}
        wanted.update(name for join in self.joins for _, name in join.on)
        if self.known_by not in (None, ROW):
            wanted.add(str(self.known_by))
        if self.split is not None:
            wanted.update(self.split.columns)
        return [name for name in self.spine.schema.names if name in wanted]

    def asked(self, join: Join) -> Asked:
        """The question a join comes to."""
        return join.asked(inclusive=self.inclusive, as_of=self.as_of, matured_by=self.matured_by)

    def evidence(self, *, cells: bool) -> Evidence:
        """An empty count; with ``cells`` it gathers what a certificate needs."""
        tally = CertificateBuilder(self.joins, known_asked=self.known_by is not None) if cells else None
        return Evidence(tally, null_keys=[0] * len(self.joins))

    def parts(
        self,
        slice_rows: int | None,
        *,
        evidence: Evidence | None = None,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[tuple[pa.Table, pa.Table]]:
        """(slice of the spine as read, its result) in spine order.

        Args:
            slice_rows: most rows at a time; None for all at once.
            evidence: counted into.
            progress: told about rows as they are joined.
            cancel: set it from anywhere to stop.

        Raises:
            Cancelled: ``cancel`` was set.
            InvalidInput: a value in the spine that is no moment or key.
            Conflict: the spine's file changed meanwhile.
        """
        first, total = 0, self.spine.rows
        evidence = evidence or self.evidence(cells=False)
        steps = _Steps(total, len(self.joins), progress, cancel)
        for piece in self.spine.slices(slice_rows, self.needed):
            steps.begin(first, piece.num_rows)
            yield piece, self._part(piece, first, evidence, steps)
            first += piece.num_rows
        if first != total:
            raise Conflict(
                f"the spine had {total} rows and now has {first}", subject="spine", hint="do not change it meanwhile"
            )
        steps.end()

    def _part(self, piece: pa.Table, first: int, evidence: Evidence, steps: _Steps) -> pa.Table:
        times, valid = self.spine.moments(piece, self.spine.event_time, first)
        known = known_of(self, piece, first, times, valid)
        evidence.null_times += int((~valid).sum())
        evidence.null_known += 0 if known is None else int((~known[1]).sum())
        columns = [piece.column(name) for name in self.spine.carried]
        for place, (join, snapshot) in enumerate(zip(self.joins, self.snapshots, strict=True)):
            rows = spine_rows(self, piece, first, (times, valid), known, place)
            null_keys = int((~_whole_keys(rows.keys)).sum())
            evidence.null_keys[place] += null_keys

            answered = answer(
                snapshot,
                self.asked(join),
                rows,
                evidence=evidence.tally is not None,
                threads=self.threads,
                progress=partial(steps.at, place),
            )
            _check_rows(answered, piece.num_rows, join)
            if evidence.tally is not None:
                known_at = None if known is None else known[0]
                part = SliceEvidence(answered.columns, answered, times, known_at, null_keys, not self.inclusive)
                evidence.tally.add(place, part)
            columns += answered.columns.columns
        if self.split is not None:
            columns.append(self.split.labels(self.split.assign(piece, first, times, valid)))
        return _as_schema(columns, self.schema)

    def certificate(self, evidence: Evidence) -> LeakCertificate:
        """The certificate of a build whose slices have all come out."""
        assert evidence.tally is not None
        joins = tuple(
            JoinEvidence(
                group=join.group,
                on=dict(join.on),
                table_version=snapshot.version,
                schema_version=snapshot.group.version,
                null_keys=nulls,
                options=_join_options(join),
            )
            for join, snapshot, nulls in zip(self.joins, self.snapshots, evidence.null_keys, strict=True)
        )
        return LeakCertificate(
            rows=self.spine.rows,
            null_times=evidence.null_times,
            null_known=evidence.null_known,
            built_at=self.built_at,
            options=self._options(),
            joins=joins,
            features=evidence.tally.features(),
        )

    def counts(self, evidence: Evidence) -> dict[str, object]:
        """What result metadata says: rows, null moments and keys, pinned versions. Plain JSON."""
        return {
            "rows": self.spine.rows,
            "null_times": evidence.null_times,
            "null_keys": [
                {"group": join.group, "on": dict(join.on), "rows": nulls}
                for join, nulls in zip(self.joins, evidence.null_keys, strict=True)
            ],
            "table_versions": {snapshot.group.name: snapshot.version for snapshot in self.snapshots},
        }

    def _options(self) -> dict[str, str]:
        found = {"boundary": "event time <= row time" if self.inclusive else "event time < row time"}
        if self.as_of is not None:
            found["as of"] = moment_of(self.as_of).isoformat()
        if self.known_by is not None:
            found["known by"] = "the row's moment" if self.known_by == ROW else f"column {self.known_by!r}"
        if any(join.is_label for join in self.joins):
            found["labels mature by"] = moment_of(self.matured_by).isoformat()
        if self.split is not None:
            found["split"] = str(self.split)
        return found


class _Steps:
    """Tells how far a build is, and stops it when asked to."""

    def __init__(self, total: int, joins: int, progress: Progress | None, cancel: threading.Event | None) -> None:
        self._progress, self._cancel = progress, cancel
        self._total, self._joins = total, max(joins, 1)
        self._first = self._rows = self._told = 0
        if progress is not None:
            progress.start(total, "rows")

    def begin(self, first: int, rows: int) -> None:
        """A slice begins."""
        self._first, self._rows = first, rows
        self.at(0, 0.0)

    def at(self, place: int, share: float) -> None:
        """A share of the join at ``place`` is done."""
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled("the build was cancelled", subject="dataset", hint="nothing was left behind")
        self._tell(self._first + int(self._rows * (place + share) / self._joins))

    def end(self) -> None:
        """All is done."""
        self._tell(self._total)
        if self._progress is not None:
            self._progress.done()

    def _tell(self, rows: int) -> None:
        if self._progress is not None and rows > self._told:
            self._progress.advance(rows - self._told)
            self._told = rows


def known_of(
    build: Build, piece: pa.Table, first: int, times: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """(int64 instants, bool valid) of ``known_by`` for a slice, None when not asked."""
    if build.known_by is None:
        return None
    return (times, valid) if build.known_by == ROW else build.spine.moments(piece, build.known_by, first)


def spine_rows(
    build: Build,
    piece: pa.Table,
    first: int,
    times: tuple[np.ndarray, np.ndarray],
    known: tuple[np.ndarray, np.ndarray] | None,
    place: int,
) -> SpineRows:
    """A slice as the join at ``place`` asks with it."""
    keys, _ = build.spine.keys(piece, build.snapshots[place].group, build.joins[place].on, first)
    limit, given = known if known is not None and not build.joins[place].is_label else (None, None)
    return SpineRows(keys, times[0], times[1], limit, given)


def _whole_keys(keys: pa.Table) -> np.ndarray:
    valid = np.ones(keys.num_rows, np.bool_)
    for column in keys.columns:
        valid &= column.is_valid().to_numpy()
    return valid


def _check_rows(answered: Answered, rows: int, join: Join) -> None:
    """One output row per spine row, whatever happens underneath."""
    if answered.columns.num_rows != rows or len(answered.matched) != rows:
        raise PlatformError(
            f"joining {join.group!r} gave {answered.columns.num_rows} rows for {rows}", subject=f"group {join.group!r}"
        )


def _as_schema(columns: list[pa.ChunkedArray | pa.Array], schema: pa.Schema) -> pa.Table:
    cast = [
        column if column.type.equals(field.type, check_metadata=False) else column.cast(field.type)
        for column, field in zip(columns, schema, strict=True)
    ]
    return pa.Table.from_arrays(cast, schema=schema)


def check_same_group(join: Join, group: FeatureGroup) -> None:
    """Refuse another group that took the name since.

    Raises:
        Conflict: naming the group.
    """
    if group.number != join.number:
        raise Conflict(
            f"feature group {join.group!r} was deleted and made anew",
            subject=f"feature group {join.group!r}",
            hint="the records the dataset was built from belong to the former group",
        )


def _join_options(join: Join) -> dict[str, str]:
    found: dict[str, str] = {}
    if join.within is not None:
        found["label within"] = f"{join.within / 1e6:g} s"
    if join.max_age is not None:
        found["max age"] = f"{join.max_age / 1e6:g} s"
    if join.recent is not None:
        found["most recent"] = str(join.recent)
    if join.include_deleted:
        found["deletes"] = "passed over"
    start, end = join.event_range
    if start is not None or end is not None:
        ends = [None if each is None else moment_of(each).isoformat() for each in (start, end)]
        found["event range"] = f"{ends[0] or 'the beginning'} to {ends[1] or 'the end'}"
    return found
