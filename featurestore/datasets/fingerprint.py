"""Fingerprint: a hash of what a table says, column by column, whatever its chunks, buffers or encodings.

Every column is hashed by ``foundation.content.TableHash``: values bit for bit in row order in blocks of 65,536 rows,
so a null is neither NaN nor zero nor an empty list, -0.0 is not 0.0, and what lies under a null does not count; text
layout (large, view, dictionary) does not count either. The content hash covers row count and, in column order, every
name and column hash. Arrow metadata does not take part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from foundation.content import TableHash, hash_texts

__all__ = ["ContentHash", "Fingerprint", "fingerprint_of"]


@dataclass(frozen=True)
class Fingerprint:
    """The hash of a table and of its columns.

    Attributes:
        content_hash: 64 hexadecimal digits.
        rows: row count.
        columns: (name, hash of name, type and values) in column order.
    """

    content_hash: str
    rows: int
    columns: tuple[tuple[str, str], ...]

    def differing_column(self, other: Fingerprint) -> str | None:
        """Name of the first column that is not the same in both, None when all are."""
        for mine, theirs in zip(self.columns, other.columns, strict=False):
            if mine != theirs:
                return mine[0]
        rest = max(self.columns, other.columns, key=len)[min(len(self.columns), len(other.columns)) :]
        return rest[0][0] if rest else None

    def to_document(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"content_hash": self.content_hash, "rows": self.rows, "columns": [list(each) for each in self.columns]}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Fingerprint:
        """Read what ``to_document`` wrote."""
        columns = tuple((name, digest) for name, digest in document["columns"])
        return cls(document["content_hash"], document["rows"], columns)


class ContentHash:
    """Streaming: feed tables of one schema in row order, then ask for the fingerprint."""

    def __init__(self, schema: pa.Schema) -> None:
        self._hashes = {field.name: TableHash(pa.schema([field])) for field in schema.remove_metadata()}
        self._rows = 0

    def update(self, table: pa.Table) -> None:
        """Add rows."""
        self._rows += table.num_rows
        for name, digest in self._hashes.items():
            digest.update(pa.table([table.column(name)], names=[name]))

    def fingerprint(self) -> Fingerprint:
        """The fingerprint of everything fed; nothing may be fed afterwards."""
        columns = tuple((name, digest.hexdigest()) for name, digest in self._hashes.items())
        parts = [str(self._rows), *(part for column in columns for part in column)]
        return Fingerprint(hash_texts(parts), self._rows, columns)


def fingerprint_of(tables: pa.Table | Iterable[pa.Table]) -> Fingerprint:
    """Fingerprint of one table, or of several that follow each other (at least one)."""
    parts = [tables] if isinstance(tables, pa.Table) else list(tables)
    content = ContentHash(parts[0].schema)
    for part in parts:
        content.update(part)
    return content.fingerprint()
