"""Explanation: where one cell of a dataset comes from, and what became of every other record of its key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.datasets.building import Build, Groups, known_of, spine_rows
from featurestore.datasets.joins import Join
from featurestore.pit.candidates import explain
from featurestore.pit.history import answer
from featurestore.pit.questions import REASONS, Candidate
from foundation.clock import moment_of
from foundation.errors import InvalidInput, NotFound

__all__ = ["Explanation", "explain_cell"]

_SLICE_ROWS = 131_072


@dataclass(frozen=True)
class Explanation:
    """One cell, explained.

    Attributes:
        row: row number in the spine, from 0.
        name: column of the result.
        group, feature: where it comes from.
        key: the row's identifier values, in record_id order.
        time: the row's moment, None when it has none.
        known_by: the row's ``known_by`` instant, None when not asked or null.
        value: what the cell holds.
        reason: why it is null although a value was looked for, ``""`` when a record was found.
        table_version: pinned version of the group's offline table.
        candidates: every record of the key, newest first, each with its verdict; empty for a null key or time.
        commits: file to the table version whose commit added it, as far as the table's log says.
    """

    row: int
    name: str
    group: str
    feature: str
    key: tuple[Any, ...]
    time: datetime | None
    known_by: datetime | None
    value: Any
    reason: str
    table_version: int
    candidates: tuple[Candidate, ...]
    commits: Mapping[str, int]

    @property
    def winners(self) -> tuple[Candidate, ...]:
        """The records the cell comes from: one, or several for a list of recent ones."""
        return tuple(each for each in self.candidates if each.verdict == "won")

    def to_dict(self) -> dict[str, Any]:
        """For JSON: moments as ISO 8601 text, values as they are."""
        return {
            "row": self.row,
            "name": self.name,
            "group": self.group,
            "feature": self.feature,
            "key": list(self.key),
            "time": None if self.time is None else self.time.isoformat(),
            "known_by": None if self.known_by is None else self.known_by.isoformat(),
            "value": self.value,
            "reason": self.reason,
            "table_version": self.table_version,
            "candidates": [self._plain(each) for each in self.candidates],
        }

    def _plain(self, candidate: Candidate) -> dict[str, Any]:
        return {
            "verdict": candidate.verdict,
            "event_time": moment_of(candidate.event_time).isoformat(),
            "value": candidate.values.get(self.feature),
            "write_time": moment_of(candidate.write_time).isoformat(),
            "known_at": moment_of(candidate.known_at).isoformat(),
            "declared": candidate.declared,
            "expires_at": None if candidate.expires_at is None else moment_of(candidate.expires_at).isoformat(),
            "deleted": candidate.deleted,
            "hard": candidate.hard,
            "rank": candidate.rank,
            "file": candidate.run,
            "commit": self.commits.get(candidate.run),
        }

    def __str__(self) -> str:
        """In plain text."""
        key = ", ".join(repr(part) for part in self.key)
        when = "no time" if self.time is None else self.time.isoformat()
        lines = [f"row {self.row}, {self.name} = {self.value!r}" + (f" ({self.reason})" if self.reason else "")]
        lines.append(f"group {self.group}, key ({key}), at {when}, table version {self.table_version}")
        if self.known_by is not None:
            lines.append(f"only what was known by {self.known_by.isoformat()}")
        for each in self.candidates:
            commit = self.commits.get(each.run)
            known = "declared known" if each.declared else "written"
            lines.append(
                f"  {moment_of(each.event_time).isoformat()}  {each.values.get(self.feature)!r}  {each.verdict}; "
                f"{known} {moment_of(each.known_at).isoformat()}, {each.run}"
                + ("" if commit is None else f" of commit {commit}")
            )
        if not self.candidates:
            lines.append("  no record of this key")
        return "\n".join(lines)


def explain_cell(groups: Groups, build: Build, row: int, name: str) -> Explanation:
    """Explain one cell of a build; see ``DatasetBuilder.explain``.

    Raises:
        InvalidInput: no such row.
        NotFound: no such joined column.
    """
    place, join = _join_of(build, name)
    feature = join.features[join.names.index(name)]
    snapshot = build.snapshots[place]
    piece = _row(build, row)
    times, valid = build.spine.moments(piece, build.spine.event_time, row)
    known = known_of(build, piece, row, times, valid)
    rows = spine_rows(build, piece, row, (times, valid), known, place)
    answered = answer(snapshot, build.asked(join), rows, threads=1)
    key = tuple(column[0].as_py() for column in rows.keys.columns)
    limit = rows.known
    whole = valid[0] and None not in key and (rows.known_valid is None or bool(rows.known_valid[0]))
    candidates = (
        explain(snapshot, build.asked(join), key, int(times[0]), None if limit is None else int(limit[0]))
        if whole
        else []
    )
    commits = {run: groups.commit_of(join.group, run) for run in dict.fromkeys(each.run for each in candidates)}
    return Explanation(
        row=row,
        name=name,
        group=join.group,
        feature=feature,
        key=key,
        time=moment_of(int(times[0])) if valid[0] else None,
        known_by=moment_of(int(limit[0])) if limit is not None and whole else None,
        value=answered.columns.column(feature)[0].as_py(),
        reason=REASONS[int(np.atleast_1d(answered.why_not)[0])],
        table_version=snapshot.version,
        candidates=tuple(candidates),
        commits={run: version for run, version in commits.items() if version is not None},
    )


def _join_of(build: Build, name: str) -> tuple[int, Join]:
    for place, join in enumerate(build.joins):
        if name in join.names:
            return place, join
    raise NotFound.of("joined column", name, [each for join in build.joins for each in join.names])


def _row(build: Build, row: int) -> pa.Table:
    """One row of the spine, the columns a build reads."""
    if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < build.spine.rows:
        raise InvalidInput(
            f"row {row!r} is not in the spine", subject="row", hint=f"rows are 0 to {build.spine.rows - 1}"
        )
    first = 0
    for piece in build.spine.slices(_SLICE_ROWS, build.needed):
        if row < first + piece.num_rows:
            return piece.slice(row - first, 1)
        first += piece.num_rows
    raise InvalidInput(f"row {row} is gone from the spine", subject="spine", hint="do not change its file meanwhile")
