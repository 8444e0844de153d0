"""Ingest: the operations of the room."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from featurestore import FeatureStore
from foundation.operations import operation
from foundation.progress import Progress
from ingest import batch
from ingest.batch import RunReport
from ingest.pipeline import Pipeline

__all__ = ["Ingest"]

_PREVIEW_BATCH = 10_000


class Ingest:
    """Runs pipelines into a feature store.

    Args:
        store: an opened store; it stays the caller's to close.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    @operation
    def run(
        self,
        pipeline: Pipeline | Mapping[str, Any] | str | Path,
        *,
        again: bool = False,
        keep_going: bool = False,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
    ) -> RunReport:
        """Run a pipeline once; parts written by an earlier run are passed over.

        Args:
            pipeline: a Pipeline, its declaration, or the path of a JSON or TOML file that holds it.
            again: write even what was written before.
            keep_going: go on after a part that cannot be written and tell of it in the report.
            progress: told about the rows of each part.
            stop: set from elsewhere to stop at the next batch; the part under way is undone.

        Raises:
            Cancelled: ``stop`` was set; parts written before stay.
            InvalidInput: the declaration, or a part: unreadable or unfit; parts written before stay.
            NotFound: no such file, group, module or function.
        """
        return batch.run(
            _pipeline(pipeline), self._store, again=again, keep_going=keep_going, progress=progress, stop=stop
        )

    @operation
    def preview(self, pipeline: Pipeline | Mapping[str, Any] | str | Path, *, rows: int = 20) -> pa.Table:
        """The first rows as the sink would get them, before types and gate; nothing is written.

        Raises:
            InvalidInput: the declaration, or a part that cannot be read.
            NotFound: no such file, module or function.
        """
        chosen = _pipeline(pipeline)
        for part in chosen.source.parts():
            scan = chosen.scan_of(part.open())
            for table in scan.batches(_PREVIEW_BATCH):
                if table.num_rows:
                    return table.slice(0, rows)
        return pa.table({})


def _pipeline(given: Pipeline | Mapping[str, Any] | str | Path) -> Pipeline:
    if isinstance(given, Pipeline):
        return given
    return Pipeline.from_dict(given) if isinstance(given, Mapping) else Pipeline.from_file(given)
