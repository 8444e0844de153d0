"""Seam Sink: where rows go, each part exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from featurestore import FeatureStore
from foundation.checks import Suite
from foundation.engines import Scan
from foundation.errors import InvalidInput
from foundation.progress import Progress

__all__ = ["Sink", "Written", "open_sink"]

_KINDS = {"group": "ingest.sinks.groups", "table": "ingest.sinks.tables"}


@dataclass(frozen=True)
class Written:
    """What became of a part.

    Attributes:
        load: id under which it was written, from its content.
        rows: rows accepted.
        rejected: rows set aside, with reasons.
        repeated: it had been written before; nothing was done.
    """

    load: str
    rows: int
    rejected: int
    repeated: bool


class Sink(Protocol):
    """Writes a part whole or not at all; the same content again is a no-op."""

    def write(self, store: FeatureStore, scan: Scan, *, gate: Suite | None, again: bool, progress: Progress) -> Written:
        """Write a part.

        Args:
            store: the feature store the pipeline runs in.
            scan: the rows.
            gate: checks they must pass.
            again: write even what was written before.
            progress: told about rows; may stop the work by raising.

        Raises:
            InvalidInput: the rows do not fit, or the gate refuses them; nothing was written.
        """

    def to_document(self) -> dict[str, Any]:
        """What ``open_sink`` reads."""


def open_sink(document: Mapping[str, Any], folder: Path) -> Sink:
    """Read a declaration: ``{"group": name, ...}`` or ``{"table": folder}``.

    Args:
        document: the declaration.
        folder: relative paths start here.

    Raises:
        InvalidInput: not of that form.
    """
    kind = next((kind for kind in _KINDS if kind in document), None)
    if kind is None:
        raise InvalidInput(
            f"the sink {dict(document)!r} says neither group nor table",
            subject="sink",
            hint='write {"group": "weather"} or {"table": "folder"}',
        )
    sink: Sink = import_module(_KINDS[kind]).open_sink(document, folder)
    return sink
