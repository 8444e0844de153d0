"""Run a pipeline once: part by part, each whole or not at all; what was written before is passed over."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from featurestore import FeatureStore
from foundation.errors import PlatformError
from foundation.progress import Cancelled, Progress, Silent, Stoppable
from ingest.pipeline import Pipeline

__all__ = ["PartReport", "RunReport", "run"]


@dataclass(frozen=True)
class PartReport:
    """What became of one part.

    Attributes:
        part: the part's name.
        load: id under which it was written, "" when it was not.
        rows: rows accepted.
        rejected: rows set aside.
        repeated: it had been written by an earlier run.
        seconds: wall time.
        error: why it was not written, "" when it was.
    """

    part: str
    load: str = ""
    rows: int = 0
    rejected: int = 0
    repeated: bool = False
    seconds: float = 0.0
    error: str = ""


@dataclass(frozen=True)
class RunReport:
    """What a run did."""

    pipeline: str
    parts: tuple[PartReport, ...]

    @property
    def rows(self) -> int:
        """Rows written by this run."""
        return sum(part.rows for part in self.parts)

    @property
    def rejected(self) -> int:
        """Rows set aside by this run."""
        return sum(part.rejected for part in self.parts)

    @property
    def skipped(self) -> int:
        """Parts an earlier run had written."""
        return sum(part.repeated for part in self.parts)

    @property
    def failures(self) -> tuple[PartReport, ...]:
        """Parts that were not written."""
        return tuple(part for part in self.parts if part.error)


def run(
    pipeline: Pipeline,
    store: FeatureStore,
    *,
    again: bool = False,
    keep_going: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> RunReport:
    """Run a pipeline over the parts its source has now.

    A run that was stopped, killed or failed is gone on with by running again: parts are known by their content.

    Args:
        pipeline: what to run.
        store: the feature store it runs in.
        again: write even what was written before.
        keep_going: go on after a part that cannot be written and tell of it in the report.
        progress: told about the rows of each part.
        stop: set from elsewhere to stop at the next batch; the part under way is undone.

    Raises:
        Cancelled: ``stop`` was set; parts written before stay.
        InvalidInput: a part cannot be read or does not fit; parts written before stay.
        NotFound: the source has no parts, or there is no such group.
    """
    watched = Stoppable(stop or threading.Event(), progress or Silent())
    reports: list[PartReport] = []
    for part in pipeline.source.parts():
        started = time.perf_counter()
        try:
            watched.check()
            scan = pipeline.scan_of(part.open())
            written = pipeline.sink.write(store, scan, gate=pipeline.gate, again=again, progress=watched)
        except Cancelled:
            raise
        except PlatformError as error:
            if not keep_going:
                raise
            reports.append(PartReport(part.name, seconds=time.perf_counter() - started, error=str(error)))
            continue
        seconds = time.perf_counter() - started
        reports.append(PartReport(part.name, written.load, written.rows, written.rejected, written.repeated, seconds))
    return RunReport(pipeline.name, tuple(reports))
