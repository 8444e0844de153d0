"""Online reads: the record of a key, many at once across groups, and what is there at all."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from featurestore.online import OnlineStore
from featurestore.online.codec import decode_values
from featurestore.records import Stored, status_of
from featurestore.values import ValueCodec
from foundation.clock import moment_of
from foundation.errors import InvalidInput

__all__ = ["Answer", "BatchAnswer", "RecordPage", "answer_of", "list_page"]


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


def answer_of(
    codec: ValueCodec, stored: Stored | None, now: int, places: Sequence[int] | None = None
) -> Answer:
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
        return base64.urlsafe_b64decode(token.encode())
    except (binascii.Error, ValueError):
        raise InvalidInput(f"token {token!r} is not one of ours", subject="token") from None


