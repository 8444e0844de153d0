"""Into a feature group, as a bulk load of the feature store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from featurestore import FeatureStore
from foundation.checks import Suite
from foundation.engines import Scan
from foundation.errors import InvalidInput
from foundation.progress import Progress
from ingest.sinks import Written

__all__ = ["GroupSink", "open_sink"]

_OPTIONS = frozenset({"group", "on_error", "known_at", "known_after_seconds", "zone"})


@dataclass(frozen=True)
class GroupSink:
    """A feature group.

    Attributes:
        group: its name.
        on_error: ``"quarantine"`` keeps refused rows aside, ``"reject"`` refuses the part.
        known_at: column, or delay after the event time, that says when rows were known.
        zone: IANA zone of naive timestamps.
    """

    group: str
    on_error: str = "quarantine"
    known_at: str | timedelta | None = None
    zone: str | None = None

    def write(self, store: FeatureStore, scan: Scan, *, gate: Suite | None, again: bool, progress: Progress) -> Written:
        """See ``ingest.sinks.Sink``."""
        report = store.ingest(
            self.group,
            scan,
            gate=gate,
            on_error=self.on_error,
            known_at=self.known_at,
            zone=self.zone,
            again=again,
            progress=progress,
        )
        return Written(report.load, report.rows, report.rejected, report.repeated)

    def to_document(self) -> dict[str, Any]:
        """``{"group": ..., "on_error": ..., ...}``."""
        document: dict[str, Any] = {"group": self.group, "on_error": self.on_error}
        if isinstance(self.known_at, timedelta):
            document["known_after_seconds"] = self.known_at.total_seconds()
        elif self.known_at is not None:
            document["known_at"] = self.known_at
        return document if self.zone is None else {**document, "zone": self.zone}


def open_sink(document: Mapping[str, Any], folder: Path) -> GroupSink:
    """Read what ``to_document`` writes.

    Raises:
        InvalidInput: an unknown option, or both kinds of ``known_at``.
    """
    del folder
    if unknown := set(document) - _OPTIONS:
        raise InvalidInput(
            f"the sink has an unknown option {min(unknown)!r}",
            subject="sink",
            hint=f"options: {', '.join(sorted(_OPTIONS))}",
        )
    after = document.get("known_after_seconds")
    if after is not None and ("known_at" in document or not isinstance(after, int | float)):
        raise InvalidInput(
            "known_after_seconds is a number, and excludes known_at", subject="sink", hint="give one of the two"
        )
    known = document.get("known_at") if after is None else timedelta(seconds=after)
    return GroupSink(document["group"], document.get("on_error", "quarantine"), known, document.get("zone"))
