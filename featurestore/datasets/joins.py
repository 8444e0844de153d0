"""Join: one group joined to a spine, and what is wanted of it. Declared and checked here, done by ``history``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any

import pyarrow as pa

from featurestore.datasets.spine import Spine, check_key_type
from featurestore.groups import FeatureGroup
from featurestore.pit.questions import Asked
from featurestore.values import parse_instant
from foundation.clock import micros_of_delta
from foundation.errors import InvalidInput

__all__ = ["Join", "On", "check_duration", "make_join", "read_moment", "resolve_features"]

On = str | Sequence[str] | Mapping[str, str] | None
"""How a group's identifiers are found in the spine; see ``make_join``."""


_MOST = 10_000
"""Most records of a cell that is a list."""


@dataclass(frozen=True)
class Join:
    """One group joined.

    Attributes:
        group: its name.
        number: its number, which tells it from a later group of the same name.
        on: (record_id column, spine column), in record_id order.
        features: wanted columns of the group, in order.
        names: their names in the result.
        max_age: microseconds, None for no limit.
        recent: None for one value, n for lists of the n newest.
        include_deleted: tombstones are passed over.
        event_range: (start, end) instants, inclusive, None for open.
        within: microseconds; set for a label join: the first record after the row, within this long.
    """

    group: str
    number: int
    on: tuple[tuple[str, str], ...]
    features: tuple[str, ...]
    names: tuple[str, ...]
    max_age: int | None = None
    recent: int | None = None
    include_deleted: bool = False
    event_range: tuple[int | None, int | None] = (None, None)
    within: int | None = None

    @property
    def is_label(self) -> bool:
        """Whether it looks forward."""
        return self.within is not None

    def asked(self, *, inclusive: bool, as_of: int | None, matured_by: int) -> Asked:
        """The question for ``history.answer``."""
        return Asked(
            features=self.features,
            inclusive=inclusive,
            max_age=self.max_age,
            as_of=as_of,
            event_range=self.event_range,
            include_deleted=self.include_deleted,
            recent=self.recent,
            label_within=self.within,
            matured_by=matured_by,
        )

    def fields(self, group: FeatureGroup) -> list[pa.Field]:
        """Arrow fields of the result's columns, in order."""
        found = []
        for feature, name in zip(self.features, self.names, strict=True):
            field = group.schema.arrow.field(feature)
            field = field if self.recent is None else pa.field(feature, pa.list_(field.type))
            found.append(field.with_name(name))
        return found

    def to_document(self) -> dict[str, Any]:
        """Plain JSON."""
        document = asdict(self)
        document["on"] = dict(self.on)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in document.items()}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Join:
        """Read what ``to_document`` wrote."""
        plain = dict(document)
        plain["on"] = tuple(plain["on"].items())
        start, end = plain["event_range"]
        return cls(**{**plain, **{k: tuple(plain[k]) for k in ("features", "names")}, "event_range": (start, end)})


def make_join(
    spine: Spine,
    group: FeatureGroup,
    *,
    on: On = None,
    features: Sequence[str] | None = None,
    max_age: timedelta | None = None,
    prefix: str | None = None,
    recent: int | None = None,
    include_deleted: bool = False,
    event_range: tuple[datetime | str | None, datetime | str | None] | None = None,
    within: timedelta | None = None,
) -> Join:
    """Check what a join is asked for.

    Args:
        spine: what it is joined to.
        group: what is joined.
        on: where the identifiers stand in the spine: None for columns of the same names, a spine column, a list of
            spine columns in record_id order, or a mapping of record_id column to spine column.
        features: wanted columns; None for every feature (identifiers and event time only when asked for).
        max_age: records older than this at the row's moment count as missing.
        prefix: put before every name of the result, literally (``"weather_"``).
        recent: n for list columns of the n newest records, newest first.
        include_deleted: deletes are passed over instead of hiding what came before.
        event_range: (start, end), both inclusive, either None: only records in it exist.
        within: for labels: the first record after the row's moment, at most this long after it.

    Raises:
        InvalidInput: naming the column, feature or option and the fix.
    """
    pairs = _resolve_on(spine, group, on)
    for (_, name), key in zip(pairs, group.key_columns, strict=True):
        check_key_type(name, spine.check_column(name, f"record_id of group {group.name!r}").type, key)
    wanted = resolve_features(group, features)
    if recent is not None and (isinstance(recent, bool) or not isinstance(recent, int) or not 1 <= recent <= _MOST):
        raise InvalidInput(f"recent={recent!r} is not a count", subject="recent", hint=f"give 1 to {_MOST:,}, or None")
    start, end = event_range or (None, None)
    span = (read_moment("event_range", start), read_moment("event_range", end))
    if span[0] is not None and span[1] is not None and span[0] > span[1]:
        raise InvalidInput("event_range ends before it starts", subject="event_range", hint="give (start, end)")
    return Join(
        group=group.name,
        number=group.number,
        on=pairs,
        features=wanted,
        names=tuple(f"{prefix or ''}{name}" for name in wanted),
        max_age=None if max_age is None else check_duration("max_age", max_age),
        recent=recent,
        include_deleted=include_deleted,
        event_range=span,
        within=None if within is None else check_duration("within", within),
    )


def resolve_features(group: FeatureGroup, features: Sequence[str] | None) -> tuple[str, ...]:
    """The columns asked for, None meaning every feature proper.

    Raises:
        InvalidInput: unknown (a close name is suggested), twice, or none at all.
    """
    wanted = (features,) if isinstance(features, str) else group.feature_names if features is None else tuple(features)
    for name in wanted:
        if name not in group.names:
            near = get_close_matches(str(name), group.names, n=1)
            raise InvalidInput(
                f"feature {name!r} is not in group {group.name!r}",
                subject=f"column {name!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"features: {', '.join(group.feature_names)}",
            )
    if len(set(wanted)) != len(wanted):
        twice = next(name for name in wanted if wanted.count(name) > 1)
        raise InvalidInput(f"feature {twice!r} is asked for twice", subject=f"column {twice!r}", hint="name it once")
    if not wanted:
        raise InvalidInput(
            f"no feature of group {group.name!r} is asked for",
            subject="features",
            hint=f"name at least one of: {', '.join(group.names)}",
        )
    return wanted


def check_duration(option: str, value: timedelta) -> int:
    """Microseconds of a positive timedelta.

    Raises:
        InvalidInput: not a timedelta, or not above zero.
    """
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise InvalidInput(
            f"{option}={value!r} is not a duration", subject=option, hint="give a timedelta above zero, or None"
        )
    return micros_of_delta(value)


def read_moment(option: str, value: datetime | str | None) -> int | None:
    """An option's moment (aware datetime or ISO 8601 text with a zone) as an instant, None for None.

    Raises:
        InvalidInput: naive or not a moment.
    """
    if value is None:
        return None
    if not isinstance(value, datetime | str):
        raise InvalidInput(
            f"{option} = {value!r} is not a moment", subject=option, hint="give an aware datetime or ISO 8601 text"
        )
    try:
        return parse_instant(value, option, zone=None)
    except InvalidInput as error:
        hint = "give it a zone: datetime(..., tzinfo=UTC) or …Z" if "no time zone" in error.message else error.hint
        raise InvalidInput(error.message, subject=option, hint=hint) from None


def _resolve_on(spine: Spine, group: FeatureGroup, on: On) -> tuple[tuple[str, str], ...]:
    identifiers = group.record_id
    if on is None:
        return tuple((name, name) for name in identifiers)
    if isinstance(on, Mapping):
        return _from_mapping(spine, group, on)
    columns = (on,) if isinstance(on, str) else tuple(on)
    if len(columns) != len(identifiers):
        raise InvalidInput(
            f"group {group.name!r} has {len(identifiers)} identifier(s) ({', '.join(identifiers)}), "
            f"on names {len(columns)} column(s)",
            subject="on",
            hint="name one spine column for each identifier, in that order",
        )
    return tuple(zip(identifiers, columns, strict=True))


def _from_mapping(spine: Spine, group: FeatureGroup, on: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    identifiers = group.record_id
    if set(on) == set(identifiers):
        return tuple((name, on[name]) for name in identifiers)
    turned = set(on.values()) == set(identifiers) and set(on) <= set(spine.schema.names)
    raise InvalidInput(
        f"on={dict(on)!r} does not map the identifiers of group {group.name!r} ({', '.join(identifiers)})",
        subject="on",
        hint=f"it is the wrong way round: write { ({value: key for key, value in on.items()})!r}"
        if turned
        else "map every record_id column to a spine column: {record_id: spine column}",
    )
