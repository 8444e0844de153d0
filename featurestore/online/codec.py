"""How a held record is laid out in bytes: one layout for every online backend.

All integers big-endian, all instants int64 microseconds since the epoch (UTC)::

    offset  size  field
         0     1  format, 0xB1
         1     1  flags (records.DELETED, HARD, ONLINE, OFFLINE)
         2     2  schema version, unsigned
         4     4  extensions, unsigned: bit 0 = a barrier follows the header; other bits are refused
         8     8  event time
        16     8  rank
        24     8  expires at, 0 for never
        32     8  write time
        40     8  barrier (a sequence), only when bit 0 of the extensions is set
     40|48     -  payload: the values as one MessagePack array, empty for a tombstone

Event time and rank stand at fixed offsets because the Redis script compares them where they lie.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from featurestore.records import DELETED, Row, Stored
from foundation.errors import Conflict, InvalidInput

__all__ = ["HEADER_BYTES", "decode_values", "encode_values", "pack", "pack_row", "stored_of", "unpack"]

HEADER_BYTES: Final = 40
"""Length of the fixed header."""
_FORMAT: Final = 0xB1
_BARRIER: Final = 1
_HEADER = struct.Struct(">BBHIqqqq")
_WITH_BARRIER = struct.Struct(">BBHIqqqqq")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list).decode
_new = tuple.__new__


def encode_values(values: Sequence[Any]) -> bytes:
    """Encode stored values (int64, float, str, bool, None, lists and string-keyed dicts of these).

    Raises:
        InvalidInput: a value of another type, an integer beyond 64 bits, or text that is not valid Unicode.
    """
    try:
        return _encode(values)
    except (TypeError, OverflowError, UnicodeEncodeError, msgspec.MsgspecError) as error:
        raise InvalidInput(
            f"values cannot be stored: {error}",
            subject="values",
            hint="stored values are whole numbers of 64 bits, floats, text, booleans, nulls, lists and structs",
        ) from error


def decode_values(payload: bytes) -> list[Any]:
    """The values of a payload, in the order of the schema version they were written under; ``[]`` for a tombstone.

    Raises:
        Conflict: the bytes are no MessagePack array.
    """
    if not payload:
        return []
    try:
        return _decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(f"its values cannot be read: {error}") from error


def stored_of(row: Row) -> Stored:
    """What one accepted row looks like to ``records.merge``; a tombstone carries no values."""
    payload = b"" if row.flags & DELETED else encode_values(row.values)
    return Stored(row.event_time, row.rank, row.expires_at, row.version, row.flags, 0, row.write_time, payload)


def pack(stored: Stored) -> bytes:
    """Lay a held record out in bytes; ``unpack`` gives it back.

    Raises:
        InvalidInput: a field outside its width (instants and ranks are int64, the schema version 16 bits).
    """
    event, rank, expires, version, flags, barrier, written, payload = stored
    try:
        if barrier:
            head = _WITH_BARRIER.pack(_FORMAT, flags, version, _BARRIER, event, rank, expires, written, barrier)
        else:
            head = _HEADER.pack(_FORMAT, flags, version, 0, event, rank, expires, written)
    except struct.error as error:
        raise InvalidInput(f"a record does not fit the online layout: {error}", subject="record") from error
    return head + payload


def pack_row(row: Row) -> bytes:
    """``pack(stored_of(row))`` in one step, for bulk writes."""
    _, event, rank, flags, expires, _, written, _, version, values = row
    try:
        head = _HEADER.pack(_FORMAT, flags, version, 0, event, rank, expires, written)
    except struct.error as error:
        raise InvalidInput(f"a row does not fit the online layout: {error}", subject="record") from error
    return head if flags & DELETED else head + encode_values(values)


def unpack(data: bytes) -> Stored:
    """Read the bytes of a held record.

    Raises:
        Conflict: cut short, or written in a format this version does not know.
    """
    try:
        form, flags, version, extensions, event, rank, expires, written = _HEADER.unpack_from(data)
        if form == _FORMAT and not extensions:
            return _new(Stored, (event, rank, expires, version, flags, 0, written, data[HEADER_BYTES:]))
        if form == _FORMAT and extensions == _BARRIER:
            barrier = _WITH_BARRIER.unpack_from(data)[8]
            payload = data[_WITH_BARRIER.size :]
            return Stored(event, rank, expires, version, flags, barrier, written, payload)
    except struct.error as error:
        raise _damaged(f"it has {len(data)} bytes, its header has {HEADER_BYTES} or more") from error
    raise _damaged(f"its format is {form:#04x} with extensions {extensions:#x}")


def _damaged(reason: str) -> Conflict:
    return Conflict(
        f"a held online record cannot be read: {reason}",
        subject="online record",
        hint="it was damaged or written by a newer version; rebuild the online store from the offline one",
    )
