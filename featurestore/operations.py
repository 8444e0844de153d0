"""FeatureStore: the room's operations. Bodies are short; the noun files do the work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from featurestore import maintenance, reads, writing
from featurestore.administration import GROUP_KIND, GroupPage
from featurestore.asof import history_of, record_as_of
from featurestore.datasets.builder import DatasetBuilder, start_dataset
from featurestore.datasets.retrieval import Retrieval, retrieve
from featurestore.datasets.saved import SavedDatasets
from featurestore.groups import FeatureGroup
from featurestore.health import Finding, examine
from featurestore.loading.loads import LoadOptions, LoadReport
from featurestore.maintenance import VacuumReport
from featurestore.offline.compaction import CompactionReport, compact
from featurestore.offline.export import ExportReport, export_sagemaker
from featurestore.online import ConcurrentReads
from featurestore.parts import Parts, View
from featurestore.reads import Answer, BatchAnswer, RecordPage
from featurestore.values import parse_instant
from featurestore.verify import VerifyReport
from featurestore.writes import Receipt
from featurestore.writing import WriteOptions
from foundation.catalog import AuditEntry
from foundation.checks import Suite
from foundation.clock import Clock
from foundation.engines import open_engine
from foundation.errors import InvalidInput, NotSupported
from foundation.operations import checked, operation
from foundation.progress import Progress
from foundation.schema import Schema
from foundation.workspace import Workspace

__all__ = ["FeatureStore", "open_store"]


class FeatureStore:
    """An opened feature store. Thread-safe; close it, or use it as a context manager.

    Args:
        workspace: the opened place it lives in.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._parts = Parts(workspace)
        self._saved = SavedDatasets(self._parts)
        self._open = True
        self.workspace = workspace

    # -- feature groups ---------------------------------------------------------------------------------------------

    @operation
    def create_group(
        self,
        name: str,
        record_id: str | Sequence[str],
        event_time: str,
        schema: pa.Schema | Schema,
        *,
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
        """Declare a feature group.

        Args:
            name: 1 to 64 letters, digits, ``_`` or ``-``.
            record_id: identifier column, or several for a composite key.
            event_time: event time column: timestamps, ISO 8601 text or epoch seconds; stored as microseconds UTC.
            schema: every column, identifiers and event time included, as an Arrow schema or a ``Schema``.
            online: keep the latest record of every key.
            offline: keep every record.
            ttl: default life of a record from its event time.
            on_equal: ``"keep"``: the first write at an event time stays; ``"replace"``: the last one wins.
            zone: IANA zone for naive timestamps; without one they are refused.
            description: free text, shown and searched.
            tags: key-value text, shown, searched and filtered by.
            descriptions: feature name to text.
            parameters: feature name to key-value text.
            kind: ``"records"``; ``"events"`` is reserved for event streams.
            event_id: reserved for event streams.

        Raises:
            InvalidInput: naming the field, the value and the rule.
            AlreadyExists: the name is taken.
        """
        self._parts.groups.create(
            name,
            record_id=record_id,
            event_time=event_time,
            schema=schema,
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
        return self._parts.view(name).group

    @operation
    def get_group(self, name: str) -> FeatureGroup:
        """Describe one feature group.

        Raises:
            NotFound: no such group; a close name is suggested.
        """
        return self._parts.view(name).group

    @operation
    def list_groups(
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
        """List feature groups, a page at a time.

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
        """
        return self._parts.groups.list(
            name_contains=name_contains,
            tags=tags,
            online=online,
            offline=offline,
            created_after=created_after,
            created_before=created_before,
            sort=sort,
            descending=descending,
            limit=limit,
            token=token,
        )

    @operation
    def search_groups(self, text: str, *, limit: int = 50) -> list[FeatureGroup]:
        """Groups holding every word in a name, description, tag, parameter or feature name; best first."""
        return self._parts.groups.search(text, limit=limit)

    @operation
    def update_group(
        self,
        name: str,
        *,
        add_features: pa.Schema | Schema | None = None,
        ttl: timedelta | None = None,
        no_ttl: bool = False,
        description: str | None = None,
        descriptions: Mapping[str, str] | None = None,
        parameters: Mapping[str, Mapping[str, str | None]] | None = None,
        tags: Mapping[str, str] | None = None,
        remove_tags: Sequence[str] = (),
    ) -> FeatureGroup:
        """Change a group, all of it or nothing; what is not given stays. Features are only ever added.

        Args:
            name: the group.
            add_features: new columns; the schema version rises by one.
            ttl: life of records written from now on.
            no_ttl: records written from now on live for ever.
            description: new text about the group.
            descriptions: feature name to new text.
            parameters: feature name to text to set; a value of None removes the parameter.
            tags: to set.
            remove_tags: keys to remove.

        Raises:
            InvalidInput: a feature that exists or is illegal, a TTL that is not positive, nothing to change.
        """
        self._parts.groups.update(
            name,
            add_features=add_features,
            ttl=ttl,
            no_ttl=no_ttl,
            description=description,
            descriptions=descriptions,
            parameters=parameters,
            tags=tags,
            remove_tags=remove_tags,
        )
        return self._parts.view(name).group

    @operation
    def delete_group(self, name: str, *, offline: str = "keep") -> None:
        """Delete a group: online at once; offline files stay (``"keep"``) or go (``"purge"``).

        Raises:
            InUse: ``"purge"`` while a saved dataset is pinned to the group's history.
        """
        maintenance.delete_group(self._parts, name, offline=offline, saved=self._saved)

    @operation
    def audit(self, name: str | None = None, *, since: datetime | None = None, limit: int = 100) -> list[AuditEntry]:
        """Who changed what when, newest first; of one group or of everything."""
        instant = None if since is None else parse_instant(since, "since", zone=None)
        return self._parts.catalog.audit(None if name is None else GROUP_KIND, name, since=instant, limit=limit)

    # -- writes -----------------------------------------------------------------------------------------------------

    @operation
    def put_record(
        self,
        name: str,
        record: Mapping[str, object],
        *,
        ttl: timedelta | None = None,
        known_at: datetime | str | None = None,
        target_stores: Sequence[str] | None = None,
        producer: tuple[str, int] | None = None,
        idempotency_key: str | None = None,
        wait: str = "online",
    ) -> Receipt:
        """Write one record, whole: features it leaves out are null. Durable when this returns; see ``put_records``."""
        return self.put_records(
            name,
            [record],
            ttl=ttl,
            known_at=known_at,
            target_stores=target_stores,
            producer=producer,
            idempotency_key=idempotency_key,
            wait=wait,
        )

    @operation
    def put_records(
        self,
        name: str,
        records: Sequence[Mapping[str, object]],
        *,
        ttl: timedelta | None = None,
        known_at: datetime | str | None = None,
        target_stores: Sequence[str] | None = None,
        producer: tuple[str, int] | None = None,
        idempotency_key: str | None = None,
        wait: str = "online",
    ) -> Receipt:
        """Write records, all or none.

        Args:
            name: feature group.
            records: mappings of feature to value; NaN becomes null, infinities are refused.
            ttl: life from event time, over the group's.
            known_at: when the values were known; None is now.
            target_stores: ``["online"]``, ``["offline"]`` or both; None for all the group has.
            producer: (producer id, its own sequence from 1): the next applies, a seen one is a no-op, a gap a Conflict.
            idempotency_key: within 24 hours the first receipt is returned again.
            wait: ``"online"`` returns when the records are readable online, ``"log"`` as soon as they are durable.

        Raises:
            InvalidInput: naming the record, feature, value and fix; nothing was written.
            Conflict: a gap in the producer's sequence.
            LimitExceeded: over 100,000 records, or the disk is full.
        """
        options = WriteOptions(ttl, known_at, target_stores, producer, idempotency_key, wait)
        return writing.put(self._parts, name, records, options)

    @operation
    def delete_record(
        self,
        name: str,
        key: object,
        event_time: datetime | str | float,
        hard: bool = False,
        *,
        target_stores: Sequence[str] | None = None,
        producer: tuple[str, int] | None = None,
        idempotency_key: str | None = None,
        wait: str = "online",
    ) -> Receipt:
        """Delete a record from an event time on.

        A soft delete is a tombstone at that event time: older writes stay beaten. A hard delete hides everything
        written before it; writes after it are accepted whatever their event time. History keeps its rows either way.

        Raises:
            Conflict: ``hard`` while the record served is as new or newer.
        """
        options = WriteOptions(None, None, target_stores, producer, idempotency_key, wait)
        return writing.delete(self._parts, name, key, event_time, hard=hard, options=options)

    @operation
    def ingest(
        self,
        name: str,
        source: object = None,
        *,
        sql: str | None = None,
        gate: Suite | None = None,
        on_error: str = "quarantine",
        known_at: str | timedelta | None = None,
        zone: str | None = None,
        target_stores: Sequence[str] | None = None,
        ttl: timedelta | None = None,
        again: bool = False,
        progress: Progress | None = None,
    ) -> LoadReport:
        """Load a whole source: visible all at once, or not at all. The same content again is a no-op.

        Args:
            name: feature group.
            source: path, glob, folder or list of paths (CSV, JSON lines, Parquet, Arrow, Delta, SQLite), Arrow table
                or reader, polars, pandas or DuckDB frame, or a list of mappings.
            sql: a DuckDB query over files or over ``source``.
            gate: checks each batch must pass.
            on_error: ``"quarantine"`` keeps refused rows aside with the reason; ``"reject"`` refuses the load.
            known_at: column, or delay after the event time, that says when rows were known; None is the load's commit.
            zone: IANA zone of this source's naive timestamps.
            target_stores: as for ``put_records``.
            ttl: life from event time, over the group's.
            again: load even if the same content was loaded before.
            progress: told about rows as they are done.

        Raises:
            InvalidInput: the source does not fit the group; nothing was written.
            NotFound: no such file or group.
            LimitExceeded: the disk is full; nothing became visible.
        """
        options = LoadOptions(
            gate=gate, on_error=on_error, known_at=known_at, zone=zone, again=again, ttl=ttl, progress=progress
        )
        opened = open_engine(self.workspace.settings.engine).scan(source, sql=sql)
        return writing.load(self._parts, name, opened, options, target_stores)

    @operation
    def flush(self, name: str | None = None) -> int:
        """Bring everything acknowledged into both stores (of one group or all); return rows committed offline."""
        return maintenance.flush(self._parts, name)

    # -- online reads -----------------------------------------------------------------------------------------------

    @operation
    def get_record(
        self,
        name: str,
        key: object,
        features: Sequence[str] | None = None,
        *,
        as_of: datetime | None = None,
        at: datetime | None = None,
    ) -> dict[str, Any] | None:
        """Read the latest record of a key, or None when there is none to serve (missing, deleted, expired).

        Args:
            name: feature group.
            key: a scalar, or a tuple in identifier order.
            features: only these.
            as_of: answer from history as it stood at this write time.
            at: answer from history with event times up to this moment.

        Returns:
            Feature to value; timestamps are aware datetimes in UTC.
        """
        if as_of is not None or at is not None:
            return record_as_of(self._parts, name, key, features, as_of=as_of, at=at)
        return reads.get_record(self._parts, name, key, features)

    @operation
    def lookup(self, name: str, key: object, features: Sequence[str] | None = None) -> Answer:
        """Read a key with its status, event time, write time, age and expiry."""
        return reads.lookup(self._parts, name, key, features)

    @operation
    def get_records(
        self, asked: Sequence[tuple[str, Sequence[object]] | tuple[str, Sequence[object], Sequence[str]]]
    ) -> list[BatchAnswer]:
        """Read many keys of many groups at once; each item has its answer or its own error.

        Args:
            asked: (group, keys) or (group, keys, features).
        """
        return reads.get_records(self._parts, asked)

    async def get_record_async(
        self, name: str, key: object, features: Sequence[str] | None = None
    ) -> dict[str, Any] | None:
        """``get_record`` for asyncio: on Redis, look-ups of one tick of the event loop share one MGET."""
        return await reads.get_record_async(self._parts, name, key, features)

    @operation
    def list_records(
        self, name: str, *, limit: int = 100, token: str | None = None, include_deleted: bool = False
    ) -> RecordPage:
        """List the keys that have a record online, a page at a time; soft-deleted ones on request."""
        view = self._parts.online_view(name)
        return reads.list_page(
            self._parts.online,
            view.codec,
            now=self._parts.clock.now(),
            limit=limit,
            token=token,
            include_deleted=include_deleted,
        )

    # -- history and datasets ---------------------------------------------------------------------------------------

    @operation
    def history(self, name: str, key: object, *, as_of: datetime | None = None) -> pa.Table:
        """Every row ever accepted for a key, with its times, rank and deletes, in (event time, rank) order."""
        return history_of(self._parts, name, key, as_of=as_of)

    @checked
    def dataset(
        self,
        spine: object,
        event_time: str,
        *,
        known_by: str | None = None,
        boundary: str = "<=",
        timezone: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> DatasetBuilder:
        """Begin a training set: one row per spine row, in order, each seeing only what it could have known.

        Args:
            spine: polars, pandas or Arrow table, Parquet or CSV path, SQL text, or a list of mappings.
            event_time: the spine's column of moments.
            known_by: ``"row"`` or a spine column: use only records known by then.
            boundary: ``"<="`` or ``"<"``: whether a record at exactly the row's moment counts.
            timezone: IANA zone of naive moments; without one they are refused.
            columns: spine columns that go into the result, None for all.

        Returns:
            A builder: ``.join(…)``, ``.join_label(…)``, ``.as_of(…)``, ``.split(…)``, then ``.to_arrow()`` and so on.
        """
        return start_dataset(
            self._parts,
            spine,
            event_time,
            known_by=known_by,
            boundary=boundary,
            timezone=timezone,
            columns=columns,
        )

    @operation
    def retrieve(
        self,
        name: str,
        *,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
        features: Sequence[str] | None = None,
        as_of: datetime | str | None = None,
        include_deleted: bool = False,
    ) -> Retrieval:
        """Read a group's records in a range of event times, without a spine: one per key and instant.

        Args:
            name: feature group.
            start: first event time, inclusive; None for the beginning.
            end: last event time, inclusive; None for the end.
            features: only these; identifiers and event time always come along.
            as_of: rows written later do not exist.
            include_deleted: deletes are passed over.

        Returns:
            ``.to_arrow()``, ``.to_polars()``, ``.batches()`` and ``.write_parquet(path)``.
        """
        return retrieve(
            self._parts, name, start=start, end=end, features=features, as_of=as_of, include_deleted=include_deleted
        )

    @property
    def datasets(self) -> SavedDatasets:
        """Saved datasets: get, list, load, recreate, delete."""
        return self._saved

    # -- care -------------------------------------------------------------------------------------------------------

    @operation
    def compact(self, name: str, *, full: bool = True, progress: Progress | None = None) -> CompactionReport:
        """Merge a group's sorted runs; writers go on meanwhile and no row is dropped.

        Args:
            name: feature group.
            full: leave one sorted run; False merges only where the sizes make it pay.
            progress: told about rows as they are merged.
        """
        view = self._parts.offline_view(name)
        self._parts.settle(view)
        memory = self.workspace.settings.memory
        return compact(self._parts.offline, view.group, full=full, memory=memory, progress=progress)

    @operation
    def vacuum(self, name: str, *, older_than: timedelta | None = None) -> VacuumReport:
        """Delete offline files that no table version younger than ``older_than`` and no saved dataset needs.

        Args:
            name: feature group.
            older_than: how long table versions stay readable; None for the setting ``time_travel``.
        """
        return maintenance.vacuum(self._parts, name, saved=self._saved, older_than=older_than)

    @operation
    def verify(self, name: str, *, sample: float | None = None, repair: bool = False) -> VerifyReport:
        """Compare what is served online with what the offline store says, cell by cell.

        Args:
            name: feature group, in both stores.
            sample: share of the keys to compare, chosen by hash; None for all.
            repair: set differing online records right from the offline store.
        """
        return self._parts.verifier(self._both(name)).verify(sample=sample, repair=repair)

    @operation
    def rebuild(self, name: str, store: str = "online") -> int:
        """Compute a store again from the other; return the records written.

        ``"online"`` is forgotten and made anew from the offline table and the log. ``"offline"`` gets every online
        record it lacks; nothing offline is taken away.
        """
        verifier = self._parts.verifier(self._both(name))
        if store == "online":
            return verifier.rebuild_online()
        if store == "offline":
            return verifier.rebuild_offline()
        raise InvalidInput(f"store {store!r} is unknown", subject="store", hint='use "online" or "offline"')

    @operation
    def quarantined(self, name: str, *, load: str | None = None, limit: int = 1000) -> pa.Table:
        """Rows loads of a group refused, newest first: load, time, row number, field, reason, record as JSON."""
        if limit < 1:
            raise InvalidInput(f"limit {limit} is out of range", subject="limit", hint="1 or more")
        return self._parts.quarantine.read(self._parts.view(name).group, load=load, limit=limit)

    @operation
    def export(self, name: str, destination: str | Path, *, progress: Progress | None = None) -> ExportReport:
        """Write a group's history as Parquet in SageMaker's offline layout."""
        view = self._parts.offline_view(name)
        self._parts.settle(view, online=False)
        return export_sagemaker(self._parts.offline.snapshot(view.group), destination, progress=progress)

    @operation
    def examine(self) -> list[Finding]:
        """Look the store over: log, offline tables, loads cut off, files nobody knows. Changes nothing."""
        return examine(self._parts)

    def _both(self, name: str) -> View:
        view = self._parts.view(name)
        if not (view.group.online and view.group.offline):
            raise NotSupported(
                f"group {name!r} lives in one store only",
                subject=f"feature group {name!r}",
                hint="only a group in both stores can be compared or rebuilt",
            )
        return view

    def close(self) -> None:
        """Flush what was acknowledged and let go of the workspace; closing twice does no harm.

        An online store that is away keeps nothing from closing: what it lacks stays in the log.
        """
        if self._open:
            self._open = False
            try:
                maintenance.settle_all(self._parts)
            finally:
                self._parts.close()

    async def aclose(self) -> None:
        """``close`` for whoever read on an event loop: the loop's own connections go first."""
        if isinstance(self._parts.online, ConcurrentReads):
            await self._parts.online.aclose()
        self.close()

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_store(
    path: str | Path, *, clock: Clock | None = None, actor: str | None = None, **settings: object
) -> FeatureStore:
    """Open the feature store of a workspace directory, making it when it is new.

    Several processes may have it open at once. Open it after a fork, not before.

    Args:
        path: the directory.
        clock: gives every instant; the system's without.
        actor: who works here, for the audit trail; the operating system's user without.
        **settings: see ``docs/settings.md``, e.g. ``online="redis://127.0.0.1:6379/0"``.

    Raises:
        InvalidInput: a bad setting or directory.
        Conflict: the workspace was made with other URLs.
    """
    return FeatureStore(Workspace.open(path, clock=clock, actor=actor, **settings))
