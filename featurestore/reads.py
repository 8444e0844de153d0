"""Online reads: the record of a key, many at once across groups, and what is there at all."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from featurestore.online import ConcurrentReads, OnlineStore
from featurestore.online.codec import decode_values
from featurestore.parts import Parts, View
from featurestore.records import DELETED, Stored, status_of
from featurestore.values import ValueCodec
from foundation.clock import moment_of
from foundation.errors import InvalidInput, LimitExceeded, PlatformError, Unavailable

__all__ = [
    "Answer",
    "BatchAnswer",
    "RecordPage",
    "answer_of",
    "get_record",
    "get_record_async",
    "get_records",
    "list_page",
    "lookup",
]

_MAX_BATCH = 10_000


@dataclass(frozen=True)
class Answer:
    """What the online store says about one key.

    Attributes:
        status: ``present``, ``missing``, ``deleted`` or ``expired``.
        record: feature to value when present, else None.
        event_time, write_time: of the held record (aware, UTC), also when it is deleted or expired; None if missing.
        age: reading time minus event time.
        expires_at: when it stops being served; None for never.
    """

    status: str
    record: Mapping[str, Any] | None = None
    event_time: datetime | None = None
    write_time: datetime | None = None
    age: timedelta | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True)
class BatchAnswer:
    """One item of a batch: an answer, or why there is none.

    Attributes:
        group: group asked.
        key: key asked, as given.
        answer: None when ``error`` is set.
        error: message of the item's own failure; other items are unaffected.
        code: its error code.
    """

    group: str
    key: object
    answer: Answer | None
    error: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class RecordPage:
    """A page of record identifiers.

    Attributes:
        keys: scalars, or tuples for composite identifiers.
        next_token: pass it to get the next page; None at the end.
    """

    keys: list[Any]
    next_token: str | None


def answer_of(codec: ValueCodec, stored: Stored | None, now: int, places: Sequence[int] | None = None) -> Answer:
    """Turn what is held into an answer at an instant, projected to column places."""
    status = status_of(stored, now)
    if stored is None or status == "missing":
        return Answer("missing")
    record = None
    if status == "present":
        record = codec.record(decode_values(stored.payload))
        if places is not None:
            names = codec.group.names
            record = {names[place]: record[names[place]] for place in places}
    return Answer(
        status,
        record,
        moment_of(stored.event_time),
        moment_of(stored.write_time),
        timedelta(microseconds=now - stored.event_time),
        moment_of(stored.expires_at) if stored.expires_at else None,
    )


def get_record(parts: Parts, name: str, key: object, features: Sequence[str] | None = None) -> dict[str, Any] | None:
    """The latest record to serve, or None."""
    view, stored = parts.glance(name, key)
    return _serve(parts, view, stored, features)


async def get_record_async(
    parts: Parts, name: str, key: object, features: Sequence[str] | None = None
) -> dict[str, Any] | None:
    """``get_record`` on an event loop; look-ups of one tick share a round trip where the store can."""
    view = parts.online_view(name)
    keys = (view.codec.key(key),)
    if isinstance(parts.online, ConcurrentReads):
        stored = (await parts.online.get_many_async(view.group, keys))[0]
    else:
        stored = parts.online.get_many(view.group, keys)[0]
    return _serve(parts, view, stored, features)


def lookup(parts: Parts, name: str, key: object, features: Sequence[str] | None = None) -> Answer:
    """The answer for a key, with status and times."""
    view, stored = parts.glance(name, key)
    places = None if features is None else view.codec.places(features)
    return answer_of(view.codec, stored, parts.clock.now(), places)


def get_records(parts: Parts, asked: Sequence[Sequence[Any]]) -> list[BatchAnswer]:
    """Answers for (group, keys[, features]) items, each key on its own.

    Raises:
        InvalidInput: an item of another shape, or more than 10,000 keys.
    """
    answers: list[BatchAnswer] = []
    for item in asked:
        if isinstance(item, str) or len(item) not in (2, 3) or isinstance(item[1], str):
            raise InvalidInput(
                f"{item!r} is not (group, keys) or (group, keys, features)",
                subject="get_records",
                hint="keys is a list",
            )
        answers += _answers(parts, item[0], list(item[1]), item[2] if len(item) == 3 else None)
        if len(answers) > _MAX_BATCH:
            raise LimitExceeded(f"more than {_MAX_BATCH} keys in one call", subject="get_records")
    return answers


def _answers(parts: Parts, name: str, keys: Sequence[object], features: Sequence[str] | None) -> list[BatchAnswer]:
    try:
        view = parts.online_view(name)
        places = None if features is None else view.codec.places(features)
    except PlatformError as error:
        return [BatchAnswer(name, key, None, str(error), error.code) for key in keys]
    encoded: list[bytes] = []
    good: list[int] = []
    answers: list[BatchAnswer | None] = [None] * len(keys)
    for place, key in enumerate(keys):
        try:
            encoded.append(view.codec.key(key))
            good.append(place)
        except InvalidInput as error:
            answers[place] = BatchAnswer(name, key, None, str(error), error.code)
    try:
        found = parts.online.get_many(view.group, encoded)
    except Unavailable as error:
        return [each or BatchAnswer(name, keys[i], None, str(error), error.code) for i, each in enumerate(answers)]
    now = parts.clock.now()
    for place, stored in zip(good, found, strict=True):
        answers[place] = BatchAnswer(name, keys[place], answer_of(view.codec, stored, now, places))
    return [each for each in answers if each is not None]


def _serve(parts: Parts, view: View, stored: Stored | None, features: Sequence[str] | None) -> dict[str, Any] | None:
    codec = view.codec
    places = None if features is None else codec.places(features)
    if stored is None or stored.flags & DELETED or (stored.expires_at and stored.expires_at <= parts.clock.now()):
        return None
    record = codec.record(decode_values(stored.payload))
    if places is None:
        return record
    names = codec.group.names
    return {names[place]: record[names[place]] for place in places}


def list_page(
    store: OnlineStore, codec: ValueCodec, *, now: int, limit: int, token: str | None, include_deleted: bool
) -> RecordPage:
    """Keys with a visible record, and soft-deleted ones on request.

    Raises:
        InvalidInput: a token this did not give out, or a limit outside 1 to 10,000.
    """
    if not 1 <= limit <= 10_000:
        raise InvalidInput(f"limit {limit} is out of range", subject="limit", hint="1 to 10,000")
    group = codec.group
    after = _cursor(token)
    keys: list[Any] = []
    while True:
        page = store.scan(group, after, limit)
        for key, stored in page:
            after = key
            if _listed(stored, now, include_deleted=include_deleted):
                keys.append(codec.shown_key(key))
                if len(keys) == limit:
                    return RecordPage(keys, base64.urlsafe_b64encode(after).decode())
        if len(page) < limit:
            return RecordPage(keys, None)


def _listed(stored: Stored, now: int, *, include_deleted: bool) -> bool:
    status = status_of(stored, now)
    return status == "present" or (include_deleted and status == "deleted")


def _cursor(token: str | None) -> bytes:
    if token is None:
        return b""
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"token {token!r} is not one of ours", subject="token") from None
