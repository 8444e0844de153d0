"""Into a plain Delta table, one commit a part; rows the gate sets aside go to a table beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa

from featurestore import FeatureStore
from foundation.appends import AppendTable
from foundation.checks import Suite
from foundation.clock import system_clock
from foundation.engines import Scan
from foundation.errors import InvalidInput
from foundation.files.local import LocalFiles
from foundation.progress import Progress
from foundation.schema import Schema
from ingest.sinks import Written

__all__ = ["TableSink", "open_sink"]

_REJECTS = pa.schema([("row", pa.int64()), ("field", pa.string()), ("reason", pa.string()), ("record", pa.string())])
_NAME = 24
"""Characters of a part's identity that name its load."""


@dataclass(frozen=True)
class TableSink:
    """A Delta table in a local folder, made when it is not there; its columns are those of the first part.

    Attributes:
        path: the folder; ``<path>-quarantine`` holds rows the gate set aside.
    """

    path: str

    def write(self, store: FeatureStore, scan: Scan, *, gate: Suite | None, again: bool, progress: Progress) -> Written:
        """See ``ingest.sinks.Sink``."""
        del store
        place = Path(self.path).absolute()
        files = LocalFiles(place.parent)
        load = uuid4().hex[:_NAME] if again else scan.identity[:_NAME]
        table = AppendTable(files, place.name, _stored(scan.schema), title=place.name)
        if table.holds(load):
            return Written(load, 0, 0, True)
        aside: list[pa.Table] = []
        at = system_clock.now()
        progress.start(scan.rows, "rows")

        def set_aside() -> None:
            if aside:
                beside = AppendTable(files, f"{place.name}-quarantine", _REJECTS, title=f"{place.name} quarantine")
                beside.append(load, aside, at=at)

        rows = table.append(load, _checked(scan, gate, aside, progress), at=at, before=set_aside)
        progress.done()
        rejected = sum(part.num_rows for part in aside)
        return Written(load, rows, rejected, False)

    def to_document(self) -> dict[str, Any]:
        """``{"table": folder}``."""
        return {"table": self.path}


def _checked(scan: Scan, gate: Suite | None, aside: list[pa.Table], progress: Progress) -> Iterator[pa.Table]:
    read = 0
    for batch in scan.batches():
        kept = batch
        if gate is not None:
            kept, _, failed = gate.split(batch, np.arange(read, read + batch.num_rows))
            if failed.num_rows:
                aside.append(failed)
        read += batch.num_rows
        yield kept
        progress.advance(batch.num_rows)


def _stored(schema: pa.Schema) -> pa.Schema:
    """Columns as the closed set of types stores them; naive timestamps stay out of it."""
    for field in schema:
        if pa.types.is_timestamp(field.type) and field.type.tz is None:
            raise InvalidInput(
                f"column {field.name!r} holds timestamps without a time zone",
                subject=f"column {field.name!r}",
                hint="give them one in the transform",
            )
    return pa.schema([field.remove_metadata() for field in Schema.from_arrow(schema).arrow])


def open_sink(document: Mapping[str, Any], folder: Path) -> TableSink:
    """Read ``{"table": folder}``.

    Raises:
        InvalidInput: not of that form.
    """
    if set(document) != {"table"} or not isinstance(document["table"], str):
        raise InvalidInput(f"the sink {dict(document)!r} is not a table", subject="sink", hint='{"table": "folder"}')
    return TableSink(str(folder / document["table"]))
