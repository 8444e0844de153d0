"""What the catalog knows about feature groups, and the ways it changes; the stores are not touched here.

A group's document carries, beside ``FeatureGroup.to_document``, the field ``deleting``: null, or ``"keep"`` or
``"purge"`` from ``begin_delete`` until ``finish_delete``.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.groups import (
    FeatureGroup,
    check_description,
    check_options,
    check_parameters,
    check_tags,
    define_group,
)
from foundation.catalog import AuditEntry, Catalog, Entry
from foundation.clock import Clock, instant_of
from foundation.errors import AlreadyExists, Conflict, InvalidInput, NotFound
from foundation.schema import Schema

__all__ = ["GROUP_KIND", "GroupPage", "Groups", "infer_schema"]

GROUP_KIND = "feature group"
"""The kind of a group's document in the catalog."""
_COUNTER = "feature group"
_DELETING = "deleting"
_TRIES = 64

# ``Groups.list`` hides the builtin of that name from annotations inside the class.
_Found = list[FeatureGroup]
_Trail = list[AuditEntry]
_Unfinished = list[tuple[FeatureGroup, str]]
_Notes = list[str]
_Changed = tuple[FeatureGroup, _Notes]


@dataclass(frozen=True)
class GroupPage:
    """Some of the groups asked for; ``next_token`` is None on the last page."""

    groups: tuple[FeatureGroup, ...]
    next_token: str | None = None


class Groups:
    """The feature groups of a workspace, as its catalog has them.

    Args:
        catalog: where they are declared.
        clock: gives instants.
        actor: who, for the audit trail.
    """

    def __init__(self, catalog: Catalog, *, clock: Clock, actor: str) -> None:
        self._catalog = catalog
        self._clock = clock
        self._actor = actor

    def create(
        self,
        name: str,
        *,
        record_id: str | Sequence[str],
        event_time: str,
        schema: object,
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
        """Declare a group; see ``FeatureGroup`` and ``define_group`` for what the arguments mean.

        Args:
            name: unique in the workspace.
            record_id: identifier column or columns, in key order.
            event_time: event time column.
            schema: anything ``infer_schema`` reads.
            online: keep the latest record of every key.
            offline: keep every record.
            ttl: default life of a record from its event time.
            on_equal: ``"keep"`` or ``"replace"``.
            zone: IANA zone of naive timestamps.
            description: about the group.
            tags: key-value text.
            descriptions: feature name to text.
            parameters: feature name to key-value text.
            kind: ``"records"``.
            event_id: reserved.

        Raises:
            InvalidInput: a bad declaration, naming field, value and rule.
            AlreadyExists: the name is taken.
            Conflict: a group of that name is half deleted.
            NotSupported: ``kind="events"``.
        """
        declared = define_group(
            name,
            record_id=record_id,
            event_time=event_time,
            schema=infer_schema(schema),
            now=self._clock.now(),
            online=online,
            offline=offline,
            ttl=ttl,
            on_equal=on_equal,
            zone=zone,
            description=description,
            tags=tags,
            descriptions=descriptions,
            parameters=parameters,
            kind=kind,
            event_id=event_id,
        )
        group = dataclasses.replace(declared, number=self._catalog.next_number(_COUNTER))
        note = f"record_id {', '.join(group.record_id)}; event_time {event_time}; {len(group.features)} columns"
        try:
            entry = self._catalog.create(GROUP_KIND, name, _document(group), actor=self._actor, note=note)
        except AlreadyExists:
            self._living(name)
            raise
        return _group(entry)

    def get(self, name: str) -> FeatureGroup:
        """Describe one group.

        Raises:
            NotFound: no such group; a close name is suggested.
            Conflict: it is half deleted.
        """
        return _group(self._living(name))

    def list(
        self,
        *,
        name_contains: str = "",
        tags: Mapping[str, str] | None = None,
        online: bool | None = None,
        offline: bool | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        sort: str = "name",
        descending: bool = False,
        limit: int = 100,
        token: str | None = None,
    ) -> GroupPage:
        """List groups, a page at a time; half deleted ones are left out.

        Args:
            name_contains: part of the name, upper and lower case alike.
            tags: all must be there with these values.
            online: only groups with (or without) an online store.
            offline: only groups with (or without) an offline store.
            created_after: aware moment, inclusive.
            created_before: aware moment, inclusive.
            sort: ``"name"``, ``"created_at"`` or ``"updated_at"``.
            descending: reverse the order.
            limit: groups per page, 1 to 1,000.
            token: ``next_token`` of the previous page of the same listing.

        Raises:
            InvalidInput: an unknown sort, a limit out of range, a naive moment, or a token of another listing.
        """
        stores = {"online": online, "offline": offline}
        filters: dict[str, object] = {store: wanted for store, wanted in stores.items() if wanted is not None}
        filters |= {f"tags.{key}": value for key, value in (tags or {}).items()}
        filters["created_at"] = (_instant("created_after", created_after), _instant("created_before", created_before))
        filters[_DELETING] = None
        page = self._catalog.find(
            GROUP_KIND,
            name_contains=name_contains,
            filters=filters,
            sort=sort,
            descending=descending,
            limit=limit,
            token=token,
        )
        return GroupPage(tuple(_group(entry) for entry in page.entries), page.next_token)

    def search(self, text: str, *, limit: int = 50) -> _Found:
        """Groups holding every word of ``text`` in names, descriptions, tags, parameters or features; best first."""
        entries = self._catalog.search(text, [GROUP_KIND], limit=limit)
        return [_group(entry) for entry in entries if entry.document[_DELETING] is None]

    def update(
        self,
        name: str,
        *,
        add_features: object = None,
        ttl: timedelta | None = None,
        no_ttl: bool = False,
        description: str | None = None,
        descriptions: Mapping[str, str] | None = None,
        parameters: Mapping[str, Mapping[str, str | None]] | None = None,
        tags: Mapping[str, str] | None = None,
        remove_tags: Iterable[str] = (),
    ) -> FeatureGroup:
        """Change a group: all of it or nothing. What is not given stays.

        A change by someone else at the same time is not lost: this one is applied to what that one left.

        Args:
            name: the group.
            add_features: new columns, anything ``infer_schema`` reads; the schema version rises by one.
            ttl: new default life of records written from now on.
            no_ttl: records written from now on live for ever.
            description: new text about the group.
            descriptions: feature name to new text; added features may be named.
            parameters: feature name to text to set; a value of None removes the parameter.
            tags: to set.
            remove_tags: keys to remove.

        Raises:
            InvalidInput: a bad or contradicting value, a feature that exists, or nothing to change.
            NotFound: no such group or feature, or a tag to remove that is not there.
            Conflict: the group is half deleted.
        """
        subject = f"feature group {name!r}"
        if ttl is not None and no_ttl:
            raise InvalidInput("ttl and no_ttl contradict each other", subject=subject, hint="give one of them")
        removed = (remove_tags,) if isinstance(remove_tags, str) else tuple(remove_tags)
        if both := set(tags or {}) & set(removed):
            raise InvalidInput(f"tag {min(both)!r} is both set and removed", subject=subject, hint="give one of them")
        added = None if add_features is None else infer_schema(add_features)

        def change(group: FeatureGroup) -> _Changed:
            notes: _Notes = []
            if added is not None:
                group = group.with_features(added, now=group.updated_at)
                notes.append(f"features {', '.join(added.names)} added")
            group = _described(group, descriptions or {}, parameters or {}, notes)
            if ttl is not None or no_ttl:
                check_options(subject, online=group.online, offline=group.offline, ttl=ttl, on_equal=group.on_equal)
                group = dataclasses.replace(group, ttl=ttl)
                notes.append(f"ttl {ttl or 'removed'}")
            if description is not None:
                check_description(subject, description)
                group = dataclasses.replace(group, description=description)
                notes.append("description")
            return _tagged(group, tags or {}, removed, notes), notes

        return self._change(name, change)

    def begin_delete(self, name: str, *, offline: str = "keep") -> FeatureGroup:
        """Mark a group as being deleted; from here on nobody gets it. Repeating is how an interrupted delete goes on.

        The order that survives a crash anywhere: ``begin_delete``, clear the stores, ``finish_delete``.

        Args:
            name: the group.
            offline: ``"keep"`` the table's files, or ``"purge"`` them. Once begun, purge cannot become keep again.

        Raises:
            InvalidInput: another word for ``offline``.
            NotFound: no such group.
            Conflict: a purge was begun and ``"keep"`` is asked for.
        """
        subject = f"feature group {name!r}"
        if offline not in ("keep", "purge"):
            raise InvalidInput(f"offline {offline!r} is unknown", subject=subject, hint='use "keep" or "purge"')
        for _ in range(_TRIES):
            entry = self._catalog.get(GROUP_KIND, name)
            begun = entry.document[_DELETING]
            if begun == "purge" != offline:
                raise Conflict(f"{subject} is being purged already", subject=subject, hint='go on with offline="purge"')
            if begun == offline:
                return _group(entry)
            try:
                entry = self._catalog.update(
                    GROUP_KIND,
                    name,
                    {**entry.document, _DELETING: offline},
                    expected_version=entry.version,
                    actor=self._actor,
                    action="begin delete",
                    note=f"offline {offline}",
                )
            except Conflict:
                continue
            return _group(entry)
        raise _busy(name)

    def finish_delete(self, name: str) -> None:
        """Remove a group ``begin_delete`` marked and the stores forgot; nothing happens when it is gone already.

        Raises:
            Conflict: it was not marked.
        """
        try:
            entry = self._catalog.get(GROUP_KIND, name)
        except NotFound:
            return
        begun = entry.document[_DELETING]
        if begun is None:
            raise Conflict(
                f"feature group {name!r} is not being deleted", subject=f"feature group {name!r}", hint="begin first"
            )
        note = f"offline {begun}; table folder {entry.document['folder']}"
        self._catalog.delete(GROUP_KIND, name, expected_version=entry.version, actor=self._actor, note=note)

    def deleting(self) -> _Unfinished:
        """Groups whose delete was begun and not finished, with ``"keep"`` or ``"purge"``."""
        found: _Unfinished = []
        for choice in ("keep", "purge"):
            page = self._catalog.find(GROUP_KIND, filters={_DELETING: choice}, limit=1000)
            found += [(_group(entry), choice) for entry in page.entries]
        return found

    def audit(self, name: str | None = None, *, since: int | None = None, limit: int = 100) -> _Trail:
        """Who changed one group, or any, and when; newest first. Deleted groups are remembered."""
        return self._catalog.audit(GROUP_KIND, name, since=since, limit=limit)

    def _living(self, name: str) -> Entry:
        entry = self._catalog.get(GROUP_KIND, name)
        if entry.document[_DELETING] is not None:
            raise Conflict(
                f"feature group {name!r} is being deleted",
                subject=f"feature group {name!r}",
                hint="delete it again to finish an interrupted delete",
            )
        return entry

    def _change(self, name: str, change: Callable[[FeatureGroup], _Changed]) -> FeatureGroup:
        """Apply a change to the group as it stands; when another change came first, apply it to what that one left."""
        for _ in range(_TRIES):
            entry = self._living(name)
            group, notes = change(_group(entry))
            if not notes:
                raise InvalidInput("nothing to change", subject=f"feature group {name!r}", hint="give what to change")
            document, version = _document(group), entry.version
            try:
                entry = self._catalog.update(
                    GROUP_KIND, name, document, expected_version=version, actor=self._actor, note="; ".join(notes)
                )
            except Conflict:
                continue
            return _group(entry)
        raise _busy(name)


def infer_schema(source: object) -> Schema:
    """The columns of a Schema, an Arrow schema, table, batch or reader, a polars or pandas frame, or a Parquet file.

    Args:
        source: one of those; a file is given by its path. No rows are read.

    Raises:
        InvalidInput: a column without a feature type, a file that is missing or not Parquet, or something else.
    """
    if isinstance(source, Schema):
        return source
    if isinstance(source, pa.Schema):
        return Schema.from_arrow(source)
    if isinstance(source, str | os.PathLike):
        return Schema.from_arrow(_parquet_schema(os.fspath(source)))
    if type(source).__module__.partition(".")[0] == "pandas" and hasattr(source, "columns"):
        try:
            return Schema.from_arrow(pa.Schema.from_pandas(source, preserve_index=False).remove_metadata())
        except (pa.ArrowException, TypeError) as error:
            raise InvalidInput(f"the frame has a column Arrow cannot type: {error}", subject="schema") from error
    if hasattr(source, "collect_schema") and hasattr(source, "collect"):
        source = source.head(0).collect()  # type: ignore[attr-defined]
    inner = getattr(source, "schema", None)
    if isinstance(inner, pa.Schema):
        return Schema.from_arrow(inner)
    if hasattr(source, "__arrow_c_stream__") and hasattr(source, "head"):
        return Schema.from_arrow(pa.table(source.head(0)).schema)
    raise InvalidInput(
        f"a schema cannot be read from {type(source).__name__}",
        subject="schema",
        hint="give a pyarrow.Schema, a table, a polars or pandas frame, or the path of a Parquet file",
    )


def _parquet_schema(path: str) -> pa.Schema:
    try:
        return pq.read_schema(path).remove_metadata()
    except FileNotFoundError as error:
        raise InvalidInput(f"file {path} does not exist", subject=path, hint="check the path") from error
    except (pa.ArrowException, OSError) as error:
        raise InvalidInput(f"file {path} is not readable Parquet: {error}", subject=path) from error


def _document(group: FeatureGroup) -> dict[str, Any]:
    return {**group.to_document(), _DELETING: None}


def _group(entry: Entry) -> FeatureGroup:
    document = {key: value for key, value in entry.document.items() if key != _DELETING}
    return FeatureGroup.from_document({**document, "created_at": entry.created_at, "updated_at": entry.updated_at})


def _described(
    group: FeatureGroup,
    descriptions: Mapping[str, str],
    parameters: Mapping[str, Mapping[str, str | None]],
    notes: list[str],
) -> FeatureGroup:
    changed = {}
    for name in dict.fromkeys([*descriptions, *parameters]):
        feature = group.feature(name)
        merged: dict[str, str | None] = {**feature.parameters, **parameters.get(name, {})}
        kept = {key: value for key, value in merged.items() if value is not None}
        text = descriptions.get(name, feature.description)
        check_description(f"feature {name!r}", text)
        check_parameters(f"feature {name!r}", kept)
        changed[name] = dataclasses.replace(feature, description=text, parameters=kept)
        notes.append(f"feature {name} described")
    features = tuple(changed.get(feature.name, feature) for feature in group.features)
    return dataclasses.replace(group, features=features)


def _tagged(group: FeatureGroup, tags: Mapping[str, str], removed: Sequence[str], notes: list[str]) -> FeatureGroup:
    for key in removed:
        if key not in group.tags:
            raise NotFound.of(f"tag of group {group.name!r}:", key, group.tags)
    merged = {key: value for key, value in group.tags.items() if key not in removed} | dict(tags)
    check_tags(f"feature group {group.name!r}", merged)
    notes += [f"tag {key} = {value}" for key, value in tags.items()] + [f"tag {key} removed" for key in removed]
    return dataclasses.replace(group, tags=merged)


def _instant(name: str, moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise InvalidInput(
            f"{name} = {moment!r} is not a moment with a time zone", subject=name, hint="e.g. datetime.now(UTC)"
        )
    return instant_of(moment)


def _busy(name: str) -> Conflict:
    return Conflict(
        f"feature group {name!r} changed under every one of {_TRIES} tries",
        subject=f"feature group {name!r}",
        hint="find out who keeps changing it (audit), then try again",
    )
