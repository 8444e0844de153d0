"""A query through DuckDB: one part, kept while the pipeline runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from foundation.engines import scan
from foundation.errors import InvalidInput
from ingest.sources import Part

__all__ = ["SqlSource", "open_source"]


@dataclass(frozen=True)
class SqlSource:
    """A query over files, or over the tables of a SQLite file.

    Attributes:
        sql: the query.
        over: what it may name as ``source``, or a SQLite file; None for files named in the query.
    """

    sql: str
    over: str | None = None

    def parts(self) -> Iterator[Part]:
        """The result."""
        yield Part(" ".join(self.sql.split())[:60], partial(scan, self.over, sql=self.sql))

    def to_document(self) -> dict[str, Any]:
        """``{"sql": ..., "from": ...}``."""
        return {"sql": self.sql} if self.over is None else {"sql": self.sql, "from": self.over}


def open_source(document: Mapping[str, Any], folder: Path) -> SqlSource:
    """Read ``{"sql": "select ...", "from": file or sqlite: URL}``; paths inside the query are taken as they are.

    Raises:
        InvalidInput: not of that form.
    """
    sql, over = document["sql"], document.get("from")
    if set(document) - {"sql", "from"} or not isinstance(sql, str) or not isinstance(over, str | None):
        raise InvalidInput(f"the source {dict(document)!r} is not a query", subject="source", hint='{"sql": "select"}')
    if over is not None and not over.startswith("sqlite:"):
        over = str(folder / over)
    return SqlSource(sql, over)
