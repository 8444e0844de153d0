"""Rows in memory: a frame, a table, a list of mappings, whatever an engine scans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from foundation.engines import scan
from foundation.errors import NotSupported
from ingest.sources import Part

__all__ = ["MemorySource"]


@dataclass(frozen=True)
class MemorySource:
    """One part: the rows given.

    Attributes:
        rows: a polars, pandas or Arrow frame, a DuckDB relation, or a list of mappings.
        name: for people.
    """

    rows: object = field(repr=False)
    name: str = "rows in memory"

    def parts(self) -> Iterator[Part]:
        """The rows."""
        yield Part(self.name, partial(scan, self.rows))

    def to_document(self) -> dict[str, Any]:
        """Refused: rows in memory cannot be written down."""
        raise NotSupported("rows in memory cannot be written down", subject="source", hint="save them to a file")
