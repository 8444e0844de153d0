"""LeakCertificate: what a training set's cells were checked for, counted from the records behind them.

Every filled cell's record is looked at again: its event time against the row's moment, the instant it was known, its
age. Nothing is taken for granted because the join should have seen to it. A *cell* is one feature of one row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.datasets.ages import Ages, Quantiles
from featurestore.datasets.joins import Join
from featurestore.pit.questions import REASONS, Answered
from foundation.clock import instant_of, moment_of
from foundation.errors import Conflict

__all__ = ["CertificateBuilder", "FeatureEvidence", "JoinEvidence", "LeakCertificate", "SliceEvidence"]

_IN_RECORD = "null in the record"
_NO_GAP = np.iinfo(np.int64).min


@dataclass(frozen=True)
class FeatureEvidence:
    """What was found about one column of the result.

    Attributes:
        name: column of the result.
        group, feature: where it comes from.
        role: ``"feature"``, or ``"label"`` for a label join, which looks forward on purpose.
        rows, filled: cells in all, and those with a value.
        null_rate: share of cells without one.
        nulls: why, reason to count.
        event_leaks: filled cells whose record's event time is on the wrong side of the row's moment: after it (or at
            it, with boundary ``<``); for a label not after it, or further away than asked.
        latest_event: greatest event time minus row's moment in seconds; at most 0 for a feature. None without a value.
        known_after_row: filled cells whose record was known only after the row's moment; None for a label.
        known_leaks: filled cells whose record was known only after the instant ``known_by`` named; None when not asked.
        declared_share: share of filled cells whose ``known_at`` was declared rather than recorded.
        ages: row's moment minus event time of the filled cells (for a label the other way round).
    """

    name: str
    group: str
    feature: str
    role: str
    rows: int
    filled: int
    null_rate: float
    nulls: Mapping[str, int]
    event_leaks: int
    latest_event: float | None
    known_after_row: int | None
    known_leaks: int | None
    declared_share: float
    ages: Quantiles | None


@dataclass(frozen=True)
class JoinEvidence:
    """One join of the dataset.

    Attributes:
        group: the group.
        on: record_id column to spine column.
        table_version: pinned version of its offline table.
        schema_version: version of its schema.
        null_keys: rows with a null in a key column.
        options: what else was asked for, in words.
    """

    group: str
    on: Mapping[str, str]
    table_version: int
    schema_version: int
    null_keys: int
    options: Mapping[str, str]


@dataclass(frozen=True)
class LeakCertificate:
    """The evidence of one build.

    Attributes:
        rows: rows of the spine and of the result.
        null_times: rows without a moment; their cells are null.
        null_known: rows without the ``known_by`` instant; their cells are null.
        built_at: instant of the build (microseconds UTC).
        options: boundary, as_of, known_by and split, in words.
        joins: in join order.
        features: in column order.
    """

    rows: int
    null_times: int
    null_known: int
    built_at: int
    options: Mapping[str, str]
    joins: tuple[JoinEvidence, ...]
    features: tuple[FeatureEvidence, ...]

    @property
    def event_leaks(self) -> int:
        """Cells with an event-time leak, over all columns."""
        return sum(feature.event_leaks for feature in self.features)

    @property
    def known_leaks(self) -> int:
        """Cells known only after the instant ``known_by`` named, over all columns; 0 when it was not asked for."""
        return sum(feature.known_leaks or 0 for feature in self.features)

    @property
    def known_after_row(self) -> int:
        """Feature cells whose record was known only after the row's moment."""
        return sum(feature.known_after_row or 0 for feature in self.features)

    @property
    def passed(self) -> bool:
        """No event-time leak, and none by ``known_by`` where it was asked for."""
        return self.event_leaks == 0 and self.known_leaks == 0

    def require(self, *, known: bool = False) -> None:
        """Refuse a dataset that leaks.

        Args:
            known: also refuse cells whose record was known only after the row's moment.

        Raises:
            Conflict: naming the first feature that leaks and how many cells.
        """
        for feature in self.features:
            late = (feature.known_after_row or 0) if known else 0
            leaks = feature.event_leaks + (feature.known_leaks or 0) + late
            if leaks:
                raise Conflict(
                    f"{leaks} of {feature.rows} cells of {feature.name!r} leak",
                    subject=f"feature {feature.name!r}",
                    hint='build it with known_by("row")' if leaks == late else "its history is not what it should be",
                )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {**asdict(self), "passed": self.passed, "built_at": moment_of(self.built_at).isoformat()}

    def to_json(self) -> str:
        """JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> LeakCertificate:
        """Read what ``to_dict`` gave."""
        plain = {key: value for key, value in document.items() if key != "passed"}
        plain["built_at"] = instant_of(datetime.fromisoformat(plain["built_at"]))
        plain["joins"] = tuple(JoinEvidence(**each) for each in plain["joins"])
        plain["features"] = tuple(
            FeatureEvidence(**{**each, "ages": None if each["ages"] is None else Quantiles(**each["ages"])})
            for each in plain["features"]
        )
        return cls(**plain)

    def __str__(self) -> str:
        """The certificate in plain text."""
        return _render(self)


@dataclass(frozen=True)
class SliceEvidence:
    """One join of one slice of rows, as the tally takes it.

    Attributes:
        columns: the slice's joined columns.
        answered: with evidence.
        times: int64 instants of the rows.
        known: int64 instants of ``known_by``, None when not asked.
        null_keys: rows with a null in a key column.
        strict: the boundary is ``<``.
    """

    columns: pa.Table
    answered: Answered
    times: np.ndarray
    known: np.ndarray | None
    null_keys: int
    strict: bool


class CertificateBuilder:
    """Counts slice by slice. Feed every slice of every join, then ask for the evidence of each join's features."""

    def __init__(self, joins: tuple[Join, ...], *, known_asked: bool) -> None:
        self._joins = joins
        self._known_asked = known_asked
        self._tallies = [[_Tally() for _ in join.names] for join in joins]
        self._ages = [Ages() for _ in joins]
        self.null_keys = [0] * len(joins)

    def add(self, place: int, part: SliceEvidence) -> None:
        """Count one slice of the join at ``place``."""
        join, answered = self._joins[place], part.answered
        self.null_keys[place] += part.null_keys
        matched = answered.matched
        reasons = np.bincount(answered.why_not[~matched], minlength=len(REASONS))
        judged = _Judged.of(join, part)
        ages = self._ages[place]
        for tally, column in zip(self._tallies[place], part.columns.columns, strict=True):
            tally.rows += len(matched)
            tally.reasons += reasons
            if column.null_count == len(matched) - judged.count:
                tally.take(judged)
                continue
            filled = column.is_valid().to_numpy()[matched]
            tally.null_in_record += judged.count - int(filled.sum())
            tally.ages = tally.ages or ages.copy()
            tally.take(judged.only(filled))
        ages.add(judged.ages)

    def features(self) -> tuple[FeatureEvidence, ...]:
        """The evidence, in column order."""
        return tuple(
            tally.evidence(join, feature, name, ages=tally.ages or ages, known_asked=self._known_asked)
            for join, tallies, ages in zip(self._joins, self._tallies, self._ages, strict=True)
            for tally, feature, name in zip(tallies, join.features, join.names, strict=True)
        )


@dataclass(frozen=True)
class _Judged:
    """The matched rows of a slice: event time minus moment, and which of them break a rule."""

    gap: np.ndarray
    ages: np.ndarray
    leak: np.ndarray
    late: np.ndarray
    beyond: np.ndarray
    declared: np.ndarray
    label: bool

    @classmethod
    def of(cls, join: Join, part: SliceEvidence) -> _Judged:
        chosen = np.flatnonzero(part.answered.matched)
        gap = part.answered.event_time[chosen] - part.times[chosen]
        known = part.answered.known_at[chosen]
        leak = gap >= 0 if part.strict else gap > 0
        if join.within is not None:
            leak = (gap <= 0) | (gap > join.within)
        late = known > part.times[chosen]
        by = part.known is not None and join.within is None
        beyond = known > part.known[chosen] if by and part.known is not None else np.zeros(len(chosen), np.bool_)
        return cls(gap, np.abs(gap), leak, late, beyond, part.answered.declared[chosen], join.is_label)

    @property
    def count(self) -> int:
        return len(self.gap)

    def only(self, filled: np.ndarray) -> _Judged:
        return _Judged(
            self.gap[filled],
            self.ages[filled],
            self.leak[filled],
            self.late[filled],
            self.beyond[filled],
            self.declared[filled],
            self.label,
        )


@dataclass
class _Tally:
    rows: int = 0
    filled: int = 0
    null_in_record: int = 0
    leaks: int = 0
    late: int = 0
    beyond: int = 0
    declared: int = 0
    gap: int = _NO_GAP
    reasons: np.ndarray = field(default_factory=lambda: np.zeros(len(REASONS), np.int64))
    ages: Ages | None = None
    """Of its own from the first slice on in which it is null where a record was found; else those of the join."""

    def take(self, judged: _Judged) -> None:
        if not judged.count:
            return
        self.filled += judged.count
        self.leaks += int(judged.leak.sum())
        self.late += int(judged.late.sum())
        self.beyond += int(judged.beyond.sum())
        self.declared += int(judged.declared.sum())
        self.gap = max(self.gap, int(judged.gap.max()))
        if self.ages is not None:
            self.ages.add(judged.ages)

    def evidence(self, join: Join, feature: str, name: str, *, ages: Ages, known_asked: bool) -> FeatureEvidence:
        nulls = {reason: int(count) for reason, count in zip(REASONS, self.reasons, strict=True) if count}
        if self.null_in_record:
            nulls[_IN_RECORD] = self.null_in_record
        return FeatureEvidence(
            name=name,
            group=join.group,
            feature=feature,
            role="label" if join.is_label else "feature",
            rows=self.rows,
            filled=self.filled,
            null_rate=1 - self.filled / self.rows if self.rows else 0.0,
            nulls=nulls,
            event_leaks=self.leaks,
            latest_event=None if self.gap == _NO_GAP else self.gap / 1e6,
            known_after_row=None if join.is_label else self.late,
            known_leaks=self.beyond if known_asked and not join.is_label else None,
            declared_share=self.declared / self.filled if self.filled else 0.0,
            ages=ages.quantiles(),
        )


# -- plain text --------------------------------------------------------------------------------------------------------


def _render(found: LeakCertificate) -> str:
    verdict = "passed" if found.passed else "FAILED"
    lines = [
        f"Leak certificate: {verdict}",
        f"{found.rows:,} rows, built {moment_of(found.built_at).isoformat()}",
        f"rows without a time: {found.null_times:,}",
    ]
    if found.null_known:
        lines.append(f"rows without the known_by instant: {found.null_known:,}")
    lines += [f"{name}: {value}" for name, value in found.options.items()]
    for join in found.joins:
        on = ", ".join(f"{key} = {name}" if key != name else key for key, name in join.on.items())
        extra = "".join(f", {name} {value}" for name, value in join.options.items())
        lines.append(
            f"joined {join.group} on {on}: table version {join.table_version}, schema version {join.schema_version}, "
            f"rows with a null key: {join.null_keys:,}{extra}"
        )
    lines += ["", *_table(found)]
    for feature in found.features:
        if feature.nulls:
            why = ", ".join(f"{reason} {count:,}" for reason, count in feature.nulls.items())
            lines.append(f"{feature.name} is null: {why}")
    late = f"{found.known_after_row:,} cells were known only after their row's moment"
    lines.append(f"event-time leaks: {found.event_leaks:,} cells; {late}")
    return "\n".join(lines)


def _table(found: LeakCertificate) -> list[str]:
    head = ("column", "role", "filled", "null", "event leaks", "known late", "declared", "age median", "p95", "max")
    rows = [head]
    for feature in found.features:
        ages = feature.ages
        rows.append(
            (
                feature.name,
                feature.role,
                f"{feature.filled:,}",
                f"{feature.null_rate:.1%}",
                f"{feature.event_leaks:,}",
                "-" if feature.known_after_row is None else f"{feature.known_after_row:,}",
                f"{feature.declared_share:.0%}",
                *(("-", "-", "-") if ages is None else (_span(ages.median), _span(ages.p95), _span(ages.max))),
            )
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    return [
        "  ".join(cell.ljust(width) if place < 2 else cell.rjust(width) for place, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]


def _span(seconds: float) -> str:
    """Seconds in the largest unit that keeps it above one."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"
