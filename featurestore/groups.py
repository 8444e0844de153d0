"""FeatureGroup and its definitions: what is declared about a group, and the rules a declaration must meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from featurestore.keys import KEY_KINDS
from foundation.clock import micros_of_delta
from foundation.errors import InvalidInput, NotFound, NotSupported
from foundation.names import check_feature_name, check_name
from foundation.schema import Column, ColumnType, Schema

__all__ = [
    "EVENT_TIME_KINDS",
    "FeatureDefinition",
    "FeatureGroup",
    "check_description",
    "check_options",
    "check_parameters",
    "check_tags",
    "define_group",
]

EVENT_TIME_KINDS = ("Timestamp", "String", "Fractional", "Integral")
"""Types an event time column may be declared with: timestamp, ISO 8601 text, epoch seconds. Stored as Timestamp."""
_MAX_FEATURES = 2500
_MAX_DESCRIPTION = 1024
_MAX_TAGS = 50
_MAX_TTL = timedelta(days=365_250)
_MAX_PARAMETERS = 25


@dataclass(frozen=True)
class FeatureDefinition:
    """One feature of a group.

    Attributes:
        name: legal feature name.
        type: declared type; the event time column keeps its declared type here and is stored as Timestamp.
        description: free text, up to 1,024 characters.
        parameters: free key-value text about the feature.
        since: schema version that added it (1 for the first).
    """

    name: str
    type: ColumnType
    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    since: int = 1


@dataclass(frozen=True)
class FeatureGroup:
    """A feature group as it stands.

    Attributes:
        name: unique in the workspace.
        number: small integer that names it inside the stores; never reused.
        record_id: identifier column names, in key order.
        event_time: event time column name.
        features: every column in order, identifiers and event time included.
        online, offline: which stores it is kept in; at least one.
        ttl: default life of a record from its event time, None for ever.
        on_equal: ``"keep"`` (the first write at an event time stays) or ``"replace"`` (the last one).
        zone: IANA zone given to naive timestamps of this group, None to refuse them.
        version: schema version, rising by one with every added set of features.
        created_at, updated_at: instants (microseconds, UTC).
        folder: where its offline table lives below the workspace's offline root.
    """

    name: str
    number: int
    record_id: tuple[str, ...]
    event_time: str
    features: tuple[FeatureDefinition, ...]
    online: bool = True
    offline: bool = True
    ttl: timedelta | None = None
    on_equal: str = "keep"
    zone: str | None = None
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    version: int = 1
    created_at: int = 0
    updated_at: int = 0
    folder: str = ""

    @cached_property
    def schema(self) -> Schema:
        """Columns as stored: the event time as Timestamp, the rest as declared."""
        instant = ColumnType.parse("Timestamp")
        return Schema(tuple(Column(f.name, instant if f.name == self.event_time else f.type) for f in self.features))

    @cached_property
    def key_columns(self) -> tuple[Column, ...]:
        """The identifier columns in key order."""
        columns = {column.name: column for column in self.schema}
        return tuple(columns[name] for name in self.record_id)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Column names in stored order."""
        return tuple(self.schema.names)

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features proper: neither identifier nor event time."""
        fixed = {*self.record_id, self.event_time}
        return tuple(name for name in self.names if name not in fixed)

    def columns_at(self, version: int) -> tuple[str, ...]:
        """Column names in the order rows of an earlier schema version were stored in (add-only: a prefix)."""
        return tuple(f.name for f in self.features if f.since <= version)

    def feature(self, name: str) -> FeatureDefinition:
        """One definition by name.

        Raises:
            NotFound: no such feature; a close name is suggested.
        """
        for definition in self.features:
            if definition.name == name:
                return definition
        raise NotFound.of(f"feature of group {self.name!r}:", name, self.names)

    def with_features(self, added: Schema, *, now: int) -> FeatureGroup:
        """The group one schema version later, with new features at the end.

        Raises:
            InvalidInput: a name that is taken or illegal, or nothing to add.
        """
        for column in added:
            check_feature_name(column.name)
            if column.name in self.names:
                raise InvalidInput(
                    f"feature {column.name!r} exists in group {self.name!r}",
                    subject=f"column {column.name!r}",
                    hint="features are only ever added; choose a new name",
                )
        new = tuple(FeatureDefinition(column.name, column.type, since=self.version + 1) for column in added)
        if not new:
            raise InvalidInput("no feature to add", subject=f"feature group {self.name!r}")
        _check_count(len(self.features) + len(new))
        return dataclasses.replace(self, features=self.features + new, version=self.version + 1, updated_at=now)

    def to_document(self) -> dict[str, Any]:
        """Plain JSON for the catalog; the TTL in microseconds."""
        document = dataclasses.asdict(self)
        document["features"] = [
            {**dataclasses.asdict(f), "type": f.type.name, "parameters": dict(f.parameters)} for f in self.features
        ]
        document["ttl"] = None if self.ttl is None else micros_of_delta(self.ttl)
        document["tags"] = dict(self.tags)
        document["record_id"] = list(self.record_id)
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> FeatureGroup:
        """Read what ``to_document`` wrote."""
        plain = dict(document)
        plain["features"] = tuple(
            FeatureDefinition(**{**f, "type": ColumnType.parse(f["type"])}) for f in plain["features"]
        )
        plain["ttl"] = None if plain["ttl"] is None else timedelta(microseconds=plain["ttl"])
        plain["record_id"] = tuple(plain["record_id"])
        return cls(**plain)


def define_group(
    name: str,
    *,
    record_id: str | Sequence[str],
    event_time: str,
    schema: Schema,
    number: int = 0,
    now: int = 0,
    online: bool = True,
    offline: bool = True,
    ttl: timedelta | None = None,
    on_equal: str = "keep",
    zone: str | None = None,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    descriptions: Mapping[str, str] | None = None,
    parameters: Mapping[str, Mapping[str, str]] | None = None,
    kind: str = "records",
    event_id: str | None = None,
) -> FeatureGroup:
    """Check a declaration and build the group.

    Raises:
        InvalidInput: naming the offending field, its value and the rule.
        NotSupported: ``kind="events"`` (reserved for event streams) or ``event_id``.
    """
    check_name("feature group", name)
    subject = f"feature group {name!r}"
    if kind == "events" or event_id is not None:
        raise NotSupported('kind="events" is reserved for event streams', subject=subject, hint='use kind="records"')
    if kind != "records":
        raise InvalidInput(f"kind {kind!r} is unknown", subject=subject, hint='use kind="records"')
    identifiers = (record_id,) if isinstance(record_id, str) else tuple(record_id)
    _check_roles(subject, identifiers, event_time, schema)
    check_options(subject, online=online, offline=offline, ttl=ttl, on_equal=on_equal)
    check_zone(subject, zone)
    check_description(subject, description)
    check_tags(subject, tags or {})
    _check_described(name, schema, descriptions or {}, parameters or {})
    features = tuple(
        FeatureDefinition(
            c.name, c.type, (descriptions or {}).get(c.name, ""), dict((parameters or {}).get(c.name, {}))
        )
        for c in schema
    )
    return FeatureGroup(
        name=name,
        number=number,
        record_id=identifiers,
        event_time=event_time,
        features=features,
        online=online,
        offline=offline,
        ttl=ttl,
        on_equal=on_equal,
        zone=zone,
        description=description,
        tags=dict(tags or {}),
        created_at=now,
        updated_at=now,
        folder=f"{name}-{now}",
    )


def check_options(subject: str, *, online: bool, offline: bool, ttl: timedelta | None, on_equal: str) -> None:
    """Check the options a group may be created or updated with.

    Raises:
        InvalidInput: no store, a TTL that is not a positive timedelta, or an unknown tie rule.
    """
    if not (online or offline):
        raise InvalidInput("a group needs a store", subject=subject, hint="set online=True, offline=True or both")
    if ttl is not None:
        check_ttl(subject, ttl)
    for name, flag in (("online", online), ("offline", offline)):
        if not isinstance(flag, bool):
            raise InvalidInput(f"{name} = {flag!r} is neither True nor False", subject=subject)
    if on_equal not in ("keep", "replace"):
        raise InvalidInput(f"on_equal {on_equal!r} is unknown", subject=subject, hint='use "keep" or "replace"')


def check_description(subject: str, text: object) -> None:
    """Check a description: text of up to 1,024 characters.

    Raises:
        InvalidInput: longer, or not text.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"the description of {subject} is {text!r}", subject=subject, hint="give text")
    if len(text) > _MAX_DESCRIPTION:
        raise InvalidInput(
            f"the description of {subject} has {len(text)} characters",
            subject=subject,
            hint=f"at most {_MAX_DESCRIPTION}",
        )


def check_parameters(subject: str, parameters: Mapping[str, str]) -> None:
    """Check a feature's parameters: at most 25, keys and values up to 255 characters.

    Raises:
        InvalidInput: naming the parameter.
    """
    if not isinstance(parameters, Mapping):
        raise InvalidInput(f"the parameters of {subject} are {parameters!r}", subject=subject, hint="give a mapping")
    if len(parameters) > _MAX_PARAMETERS:
        raise InvalidInput(f"{len(parameters)} parameters", subject=subject, hint=f"at most {_MAX_PARAMETERS}")
    for key, value in parameters.items():
        if not isinstance(key, str) or not isinstance(value, str) or not key or max(len(key), len(value)) > 255:
            raise InvalidInput(
                f"parameter {key!r}={value!r} of {subject} is not allowed",
                subject=subject,
                hint="keys are 1 to 255, values up to 255 characters of text",
            )


def check_ttl(subject: str, ttl: object) -> None:
    """Check a life span.

    Raises:
        InvalidInput: not a timedelta between a microsecond and 1,000 years.
    """
    if not isinstance(ttl, timedelta) or not timedelta(0) < ttl <= _MAX_TTL:
        raise InvalidInput(
            f"ttl {ttl!r} is not a timedelta between a microsecond and 1,000 years",
            subject=subject,
            hint="e.g. timedelta(days=7); None keeps records for ever",
        )


def check_zone(subject: str, zone: object) -> None:
    """Check the zone of a group's naive timestamps.

    Raises:
        InvalidInput: not the name of an IANA zone.
    """
    try:
        if zone is not None:
            ZoneInfo(zone)  # type: ignore[arg-type]
    except (KeyError, ValueError, OSError, TypeError, AttributeError):
        raise InvalidInput(
            f"time zone {zone!r} is unknown", subject=subject, hint="use an IANA name such as UTC or America/New_York"
        ) from None


def check_tags(subject: str, tags: Mapping[str, str]) -> None:
    """Check tags: at most 50, keys up to 128 and values up to 256 characters.

    Raises:
        InvalidInput: naming the tag.
    """
    if len(tags) > _MAX_TAGS:
        raise InvalidInput(f"{len(tags)} tags", subject=subject, hint=f"at most {_MAX_TAGS}")
    for key, value in tags.items():
        if not isinstance(key, str) or not isinstance(value, str) or not key or len(key) > 128 or len(value) > 256:
            raise InvalidInput(
                f"tag {key!r}={value!r} is not allowed",
                subject=subject,
                hint="keys are 1 to 128, values up to 256 characters of text",
            )


def _check_described(
    group: str, schema: Schema, descriptions: Mapping[str, str], parameters: Mapping[str, Mapping[str, str]]
) -> None:
    for name in [*descriptions, *parameters]:
        if name not in schema:
            raise NotFound.of(f"feature of group {group!r}:", name, schema.names)
    for name, text in descriptions.items():
        check_description(f"feature {name!r}", text)
    for name, values in parameters.items():
        check_parameters(f"feature {name!r}", values)


def _check_count(count: int) -> None:
    if count > _MAX_FEATURES:
        raise InvalidInput(f"{count} features", hint=f"a group has at most {_MAX_FEATURES}")


def _check_roles(subject: str, identifiers: tuple[str, ...], event_time: str, schema: Schema) -> None:
    _check_count(len(schema))
    for each in schema:
        check_feature_name(each.name)
    if not identifiers or len(set(identifiers)) != len(identifiers):
        raise InvalidInput(f"record_id {list(identifiers)} must name distinct columns", subject=subject)
    for name in identifiers:
        column = schema.get(name)
        if column is None:
            raise InvalidInput(
                f"record_id column {name!r} is not in the schema", subject=subject, hint=f"columns: {schema.names}"
            )
        if column.type.kind not in KEY_KINDS:
            raise InvalidInput(
                f"record_id column {name!r} is {column.type.name}",
                subject=f"column {name!r}",
                hint=f"identifiers are {', '.join(sorted(KEY_KINDS))}",
            )
    if event_time in identifiers:
        raise InvalidInput(f"{event_time!r} cannot be both record_id and event_time", subject=subject)
    moment = schema.get(event_time)
    if moment is None:
        raise InvalidInput(
            f"event_time column {event_time!r} is not in the schema", subject=subject, hint=f"columns: {schema.names}"
        )
    if moment.type.kind not in EVENT_TIME_KINDS:
        raise InvalidInput(
            f"event_time column {event_time!r} is {moment.type.name}",
            subject=f"column {event_time!r}",
            hint="use a timestamp, ISO 8601 text, or epoch seconds",
        )
