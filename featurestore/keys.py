"""Canonical keys: typed, length-prefixed bytes of the identifier columns. Equal keys, equal bytes; never otherwise."""

from __future__ import annotations

import struct
from datetime import date, datetime
from typing import Final

from foundation.clock import instant_of
from foundation.errors import InvalidInput
from foundation.schema import Column

__all__ = ["KEY_KINDS", "KEY_LIMIT", "decode_key", "encode_key", "integral_key"]

KEY_KINDS: Final = frozenset({"Integral", "String", "Boolean", "Timestamp", "Date"})
"""Types a record identifier may have; floats and collections have no dependable equality."""
KEY_LIMIT: Final = 2048
"""Longest canonical key in bytes (AWS allows 2 KB identifiers)."""
_SIGN = 1 << 63
_INT = struct.Struct(">cQ")
_TEXT = struct.Struct(">cI")
_EPOCH_DAY = date(1970, 1, 1).toordinal()


def encode_key(columns: tuple[Column, ...], values: tuple[object, ...]) -> bytes:
    """Encode one value per identifier column.

    Integers sort as numbers, so a scan in byte order is a scan in key order for them.

    Raises:
        InvalidInput: wrong number of parts, a null, a type that does not match its column, or over 2,048 bytes.
    """
    if len(values) != len(columns):
        names = ", ".join(column.name for column in columns)
        raise InvalidInput(
            f"a key needs {len(columns)} value(s) ({names}), got {len(values)}: {values!r}",
            subject="key",
            hint="give a scalar for one identifier column, a tuple in column order for several",
        )
    key = b"".join([_part(column, value) for column, value in zip(columns, values, strict=True)])
    if len(key) > KEY_LIMIT:
        raise InvalidInput(f"the key has {len(key)} bytes", subject="key", hint=f"keep keys within {KEY_LIMIT} bytes")
    return key


def integral_key(value: int) -> bytes:
    """The canonical key of a single Integral identifier: what ``encode_key`` gives, without the checks.

    Raises:
        struct.error: the value is beyond 64 bits.
    """
    return _INT.pack(b"i", value + _SIGN)


def _part(column: Column, value: object) -> bytes:
    kind = column.type.kind
    if type(value) is int and kind == "Integral":
        if -_SIGN <= value < _SIGN:
            return _INT.pack(b"i", value + _SIGN)
    elif kind == "String" and isinstance(value, str):
        try:
            text = value.encode()
        except UnicodeEncodeError:
            raise InvalidInput(
                f"key column {column.name!r} holds lone surrogates: {value!r}",
                subject=f"column {column.name!r}",
                hint="give valid Unicode text",
            ) from None
        return _TEXT.pack(b"s", len(text)) + text
    elif kind == "Boolean" and isinstance(value, bool):
        return _INT.pack(b"b", int(value) + _SIGN)
    elif kind == "Timestamp" and isinstance(value, datetime) and value.tzinfo is not None:
        return _INT.pack(b"t", instant_of(value) + _SIGN)
    elif kind == "Date" and isinstance(value, date) and not isinstance(value, datetime):
        return _INT.pack(b"d", value.toordinal() - _EPOCH_DAY + _SIGN)
    elif kind == "Integral" and not isinstance(value, bool) and hasattr(value, "__index__"):
        return _part(column, value.__index__())
    raise InvalidInput(
        f"key column {column.name!r} is {column.type.name}, got {value!r} ({type(value).__name__})",
        subject=f"column {column.name!r}",
        hint=f"give a {column.type.name} value that is not null",
    )


def decode_key(key: bytes) -> tuple[object, ...]:
    """Read a canonical key back: ints stay ints; timestamps are instants, dates days since 1970-01-01."""
    parts: list[object] = []
    place = 0
    while place < len(key):
        tag = key[place : place + 1]
        if tag == b"s":
            length = _TEXT.unpack_from(key, place)[1]
            place += _TEXT.size
            parts.append(key[place : place + length].decode())
            place += length
            continue
        number = _INT.unpack_from(key, place)[1] - _SIGN
        parts.append(bool(number) if tag == b"b" else number)
        place += _INT.size
    return tuple(parts)
