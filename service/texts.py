"""Reading what people type: lengths of time, moments, schemas, keys, records, names and their values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    import pyarrow as pa

    from featurestore import FeatureGroup
    from foundation.schema import Column, Schema

__all__ = [
    "infer_from_file",
    "read_key",
    "read_moment",
    "read_names",
    "read_pairs",
    "read_record",
    "read_records",
    "read_schema",
    "read_span",
    "with_typed_key",
]

_SPANS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_LOOKED_AT = 10_000
_OPEN, _CLOSE = "<([{", ">)]}"


def read_span(text: str, what: str) -> timedelta:
    """A length of time such as ``90s``, ``15m``, ``6h``, ``7d`` or ``2w``.

    Raises:
        InvalidInput: anything else, naming the option.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text)
    if match is None or match[2] not in _SPANS:
        raise InvalidInput(f"{what} {text!r} is not a length of time", subject=what, hint="e.g. 90s, 15m, 6h, 7d or 2w")
    try:
        return timedelta(seconds=float(match[1]) * _SPANS[match[2]])
    except OverflowError:
        raise InvalidInput(f"{what} {text!r} is too long", subject=what, hint="at most 999,999,999 days") from None


def read_moment(text: str, what: str) -> datetime:
    """A moment: ISO 8601 with a zone, or epoch seconds.

    Raises:
        InvalidInput: not a moment, or without a zone.
    """
    try:
        seconds = float(text)
        if math.isfinite(seconds):
            return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{what} {text!r} is not a moment", subject=what, hint="e.g. 2013-07-01T12:00:00Z, or epoch seconds"
        ) from None
    if moment.tzinfo is None:
        raise InvalidInput(
            f"{what} {text!r} has no time zone", subject=what, hint=f"e.g. {moment.isoformat()}Z for UTC"
        )
    return moment


def _split_outside(text: str, separator: str) -> list[str]:
    """Split where the separator stands outside brackets; parts are stripped."""
    parts, depth, start = [], 0, 0
    for place, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSE)
        if char == separator and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()]


def read_schema(text: str) -> Schema:
    """Columns as ``name:Type, name:Type``; e.g. ``id:Integral, seen:Timestamp, tags:List<String>``.

    Raises:
        InvalidInput: a part that is not ``name:Type``, an unknown type, or a name given twice.
    """
    from foundation.schema import Schema

    pairs = []
    for part in _split_outside(text, ","):
        name, colon, kind = part.partition(":")
        if not colon or not name.strip() or not kind.strip():
            raise InvalidInput(
                f"{part!r} is not name:Type", subject="--schema", hint='e.g. --schema "id:Integral, seen:Timestamp"'
            )
        pairs.append((name.strip(), kind.strip()))
    return Schema.of(pairs)


def infer_from_file(path: str) -> pa.Schema:
    """The columns of a file or folder `ingest` can load; of CSV as its first 10,000 rows show them.

    Raises:
        NotFound: no such file.
        InvalidInput: it cannot be read.
    """
    import pyarrow as pa

    from foundation.engines import scan

    found = scan(path)
    if not found.text:
        return found.schema.remove_metadata()
    rows = next(iter(found.batches(_LOOKED_AT)), None)
    columns = found.schema.names if rows is None else rows.column_names
    return pa.schema([(name, pa.string() if rows is None else _kind_of(rows.column(name))) for name in columns])


def _kind_of(cells: pa.ChunkedArray) -> pa.DataType:
    """The narrowest type all cells of text can be read as."""
    import pyarrow as pa

    if cells.null_count == len(cells):
        return pa.string()
    for kind in (pa.int64(), pa.float64(), pa.date32(), pa.timestamp("us", tz="UTC"), pa.timestamp("us"), pa.bool_()):
        try:
            cells.cast(kind)
        except pa.ArrowInvalid:
            continue
        return kind
    return pa.string()


def read_names(text: str | None) -> list[str] | None:
    """Names separated by commas; None for none given."""
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip()]


def read_pairs(texts: Sequence[str], what: str) -> dict[str, str]:
    """``name=value`` texts as a mapping.

    Raises:
        InvalidInput: without ``=``, without a name, or a name given twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            raise InvalidInput(f"{what} {text!r} is not name=value", subject=what, hint=f"e.g. {what} team=risk")
        if name in pairs:
            raise InvalidInput(f"{what} {name!r} is given twice", subject=what, hint="give each name once")
        pairs[name] = value
    return pairs


def read_key(group: FeatureGroup, parts: Sequence[str]) -> object:
    """A key from its parts in identifier order, each read as its column's type.

    Raises:
        InvalidInput: another number of parts than the group has identifiers, or a part of another type.
    """
    columns = group.key_columns
    if len(parts) != len(columns):
        names = " ".join(column.name.upper() for column in columns)
        raise InvalidInput(
            f"group {group.name!r} has {len(columns)} identifier(s), {len(parts)} given",
            subject="key",
            hint=f"give {names}",
        )
    values = [_key_part(column, part) for column, part in zip(columns, parts, strict=True)]
    return values[0] if len(values) == 1 else tuple(values)


def read_record(group: FeatureGroup, texts: Sequence[str]) -> dict[str, Any]:
    """A record from ``name=value`` texts, each value read as its column's type, or from one JSON object.

    Raises:
        InvalidInput: not a JSON object, no ``=``, an unknown feature, or a value of another type.
    """
    if len(texts) == 1 and texts[0].lstrip().startswith("{"):
        return with_typed_key(group, _object(texts[0], "the record"))
    columns = {column.name: column for column in group.schema}
    record: dict[str, Any] = {}
    for name, text in read_pairs(texts, "feature").items():
        if name not in columns:
            error = NotFound.of("feature", name, columns)
            raise InvalidInput(
                f"feature {name!r} is not in group {group.name!r}",
                subject=f"column {name!r}",
                hint=error.hint or f"features: {', '.join(columns)}",
            )
        record[name] = text if name == group.event_time else _typed(columns[name], text)
    return with_typed_key(group, record)


def with_typed_key(group: FeatureGroup, record: dict[str, Any]) -> dict[str, Any]:
    """The record with moments and dates of its key, which JSON can only give as text, read."""
    for column in group.key_columns:
        if column.type.kind in ("Timestamp", "Date") and isinstance(record.get(column.name), str):
            record[column.name] = _key_part(column, record[column.name])
    return record


def _key_part(column: Column, text: str) -> Any:  # noqa: ANN401
    if column.type.kind == "Timestamp":
        return read_moment(text, column.name)
    if column.type.kind == "Date":
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise InvalidInput(
                f"{column.name} = {text!r} is not a date", subject=f"column {column.name!r}", hint="e.g. 2013-07-01"
            ) from None
    return _typed(column, text)


def read_records(path: str) -> list[dict[str, Any]]:
    """Records of a JSON lines file, or of stdin (``-``): one object a line.

    Raises:
        NotFound: no such file.
        InvalidInput: a line that is not a JSON object, naming it.
    """
    import sys

    try:
        lines = sys.stdin.read().splitlines() if path == "-" else Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise NotFound(f"file {path!r} does not exist", subject=f"file {path!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"file {path!r} cannot be read: {error}", subject=f"file {path!r}") from None
    return [_object(line, f"line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"{what} is not JSON: {error}", subject=what, hint="""e.g. '{"id": 7, "score": 0.5}', or id=7 score=0.5"""
        ) from None
    if not isinstance(found, dict):
        raise InvalidInput(f"{what} is not a JSON object: {text[:60]}", subject=what, hint='e.g. {"id": 7}')
    return found


def _typed(column: Column, text: str) -> Any:  # noqa: ANN401
    """Text as the Python value of a column's type; what the store reads from text itself stays text."""
    kind = column.type.kind
    try:
        if kind == "Integral":
            return int(text)
        if kind.startswith("Fractional"):
            return float(text)
        if kind == "Boolean":
            return {"true": True, "false": False}[text.strip().lower()]
        if kind in ("List", "Set", "Vector", "Struct"):
            return json.loads(text)
    except (ValueError, KeyError):
        raise InvalidInput(
            f"{column.name} = {text!r} is not {column.type.name}",
            subject=f"column {column.name!r}",
            hint=_EXAMPLES.get(kind, "give JSON, in quotes"),
        ) from None
    return text


_EXAMPLES = {
    "Integral": "give a whole number",
    "Fractional": "give a number",
    "Fractional32": "give a number",
    "Boolean": "give true or false",
}
