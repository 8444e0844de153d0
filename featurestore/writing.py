"""Single and small writes: check, log, apply. All of a call or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from featurestore.groups import FeatureGroup, check_ttl
from featurestore.loading.loads import LoadOptions, LoadReport
from featurestore.parts import Parts, View
from featurestore.records import DELETED, HARD, OFFLINE, ONLINE, Row, expiry_of
from featurestore.values import parse_instant
from featurestore.writes import Append, Receipt
from featurestore.writes.embedded import check_newer
from foundation.clock import micros_of_delta
from foundation.engines import Scan
from foundation.errors import InvalidInput, LimitExceeded

__all__ = ["MAX_BATCH", "WriteOptions", "delete", "load", "put"]

MAX_BATCH = 100_000
"""Most records of one all-or-nothing batch."""
_MAX_NAME = 200


@dataclass(frozen=True)
class WriteOptions:
    """How records are written.

    Attributes:
        ttl: life from event time, over the group's own.
        known_at: when the values were known (a moment as for event times); None is the time of the write.
        target_stores: ``"online"``, ``"offline"`` or both; None for all the group has.
        producer: (producer id, its own sequence from 1): retries are no-ops, gaps a Conflict.
        idempotency_key: within 24 hours the first receipt is returned again.
        wait: ``"online"`` returns when the write is readable online, ``"log"`` when it is durable.
        replaces: win over a record of the same event time, whatever the group's tie rule.
    """

    ttl: timedelta | None = None
    known_at: object = None
    target_stores: Sequence[str] | None = None
    producer: tuple[str, int] | None = None
    idempotency_key: str | None = None
    wait: str = "online"
    replaces: bool = False


def put(parts: Parts, name: str, records: Sequence[Mapping[str, object]], options: WriteOptions) -> Receipt:
    """Write records.

    Raises:
        InvalidInput: a record does not fit, naming it, the feature, the value and the fix; nothing was written.
        LimitExceeded: more than ``MAX_BATCH`` records, or a full disk.
    """
    if isinstance(records, Mapping | str) or not isinstance(records, Sequence):
        raise InvalidInput(f"records must be a list of mappings, got {type(records).__name__}", subject="records")
    if len(records) > MAX_BATCH:
        raise LimitExceeded(
            f"{len(records)} records in one batch", subject="records", hint=f"at most {MAX_BATCH}; or use ingest"
        )

    def act(view: View) -> Receipt:
        now = parts.clock.now()
        targets = _targets(view.group, options.target_stores)
        rows = [
            _row(
                view, record, options, targets, now=now, latest=now + parts.future_bound, place=place, many=len(records)
            )
            for place, record in enumerate(records)
        ]
        return parts.append(_batch(view, rows, options), wait=options.wait)

    _check_options(options)
    return parts.current(name, act)


def delete(parts: Parts, name: str, key: object, event_time: object, *, hard: bool, options: WriteOptions) -> Receipt:
    """Write a delete.

    Raises:
        InvalidInput: the key or event time does not fit.
        Conflict: ``hard`` and the record's event time is the same or later.
    """
    if not isinstance(hard, bool):
        raise InvalidInput(f"hard = {hard!r} is neither True nor False", subject="hard")

    def act(view: View) -> Receipt:
        now = parts.clock.now()
        codec = view.codec
        event = codec.instant(event_time, latest=now + parts.future_bound)
        flags = _targets(view.group, options.target_stores) | DELETED | (HARD if hard else 0)
        row = Row(
            key=codec.key(key),
            event_time=event,
            rank=_sign(view.group, options),
            flags=flags,
            expires_at=0,
            known_at=_known(options, view.group),
            write_time=0,
            invocation_time=now,
            version=view.group.version,
            values=codec.tombstone(key, event),
        )
        if hard and view.group.online and not parts.online.abilities.fused:
            parts.appliers.catch_up(view.group)
            held = parts.online.get_many(view.group, [row.key])[0]
            check_newer(view.group, row, None if held is None or held.flags & HARD else held.event_time)
        return parts.append(_batch(view, [row], options, newer=hard), wait=options.wait)

    _check_options(options)
    return parts.current(name, act)


def load(
    parts: Parts, name: str, source: Scan, options: LoadOptions, target_stores: Sequence[str] | None
) -> LoadReport:
    """Load a source into the stores of a group; see ``FeatureStore.ingest``."""
    view = parts.view(name)
    targets = _targets(view.group, target_stores)
    if options.ttl is not None:
        check_ttl("ttl", options.ttl)
    options = replace(options, online=bool(targets & ONLINE), offline=bool(targets & OFFLINE))
    if options.offline:
        return parts.loader.run(view.group, view.codec, source, options)
    return parts.loader.run_online(
        view.group, view.codec, source, options, lambda rows, step: _step(parts, view, rows, step)
    )


def _step(parts: Parts, view: View, rows: list[Row], step: tuple[str, int]) -> Receipt:
    """One part of a load meant for the online store alone: exactly once by the load's id and the part's number."""
    return parts.append(
        Append(view.group, rows, producer=step, generation=parts.view(view.group.name).generation), wait="online"
    )


def _row(
    view: View,
    record: Mapping[str, object],
    options: WriteOptions,
    targets: int,
    *,
    now: int,
    latest: int,
    place: int,
    many: int,
) -> Row:
    try:
        key, event, values = view.codec.row(record, latest=latest)
        ttl = options.ttl or view.group.ttl
        return Row(
            key=key,
            event_time=event,
            rank=_sign(view.group, options),
            flags=targets,
            expires_at=expiry_of(event, micros_of_delta(ttl)) if ttl else 0,
            known_at=_known(options, view.group),
            write_time=0,
            invocation_time=now,
            version=view.group.version,
            values=values,
        )
    except InvalidInput as error:
        if many == 1:
            raise
        raise InvalidInput(f"record {place}: {error.message}", subject=error.subject, hint=error.hint) from None


def _batch(view: View, rows: list[Row], options: WriteOptions, *, newer: bool = False) -> Append:
    return Append(
        view.group,
        rows,
        producer=options.producer,
        request=options.idempotency_key,
        generation=view.generation,
        newer=newer,
    )


def _sign(group: FeatureGroup, options: WriteOptions) -> int:
    return 1 if options.replaces or group.on_equal == "replace" else -1


def _known(options: WriteOptions, group: FeatureGroup) -> int | None:
    return None if options.known_at is None else parse_instant(options.known_at, "known_at", zone=group.zone)


def _targets(group: FeatureGroup, stores: Sequence[str] | None) -> int:
    """Flags of the stores to write."""
    has = (ONLINE if group.online else 0) | (OFFLINE if group.offline else 0)
    if stores is None:
        return has
    wanted = 0
    for store in (stores,) if isinstance(stores, str) else stores:
        flag = {"online": ONLINE, "offline": OFFLINE}.get(store, 0)
        if not flag & has:
            raise InvalidInput(
                f"group {group.name!r} has no {store!r} store",
                subject="target_stores",
                hint="name online, offline or both, as the group was created",
            )
        wanted |= flag
    if not wanted:
        raise InvalidInput("target_stores is empty", subject="target_stores", hint="name online, offline or both")
    return wanted


def _check_options(options: WriteOptions) -> None:
    if options.wait not in ("online", "log"):
        raise InvalidInput(f"wait {options.wait!r} is unknown", subject="wait", hint='use "online" or "log"')
    if options.ttl is not None:
        check_ttl("ttl", options.ttl)
    if options.producer is not None:
        name, own = options.producer
        if not name or len(name) > _MAX_NAME or own < 1:
            raise InvalidInput(
                f"producer {options.producer!r} is not allowed",
                subject="producer",
                hint=f"give (an id of 1 to {_MAX_NAME} characters, a sequence from 1)",
            )
    if options.idempotency_key is not None and not 1 <= len(options.idempotency_key) <= _MAX_NAME:
        raise InvalidInput("the idempotency key is empty or too long", hint=f"1 to {_MAX_NAME} characters")
