"""Seam Source: where rows come from, in parts that are read, and remembered, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from foundation.engines import Scan
from foundation.errors import InvalidInput

__all__ = ["Part", "Source", "open_source"]

_KINDS = {"files": "ingest.sources.files", "sql": "ingest.sources.sql"}


class Part(NamedTuple):
    """A piece of a source: its name for people, and the way to open its rows."""

    name: str
    open: Callable[[], Scan]


class Source(Protocol):
    """Opens again and again; parts come in a fixed order."""

    def parts(self) -> Iterator[Part]:
        """The parts there are now; opening one may raise InvalidInput, naming it.

        Raises:
            NotFound: there is nothing.
        """

    def to_document(self) -> dict[str, Any]:
        """What ``open_source`` reads.

        Raises:
            NotSupported: it cannot be written down.
        """


def open_source(document: Mapping[str, Any], folder: Path) -> Source:
    """Read a declaration: ``{"files": [...]}`` or ``{"sql": "select ...", "from": "sqlite:///file.db"}``.

    Args:
        document: the declaration.
        folder: relative paths start here.

    Raises:
        InvalidInput: not of that form.
    """
    kind = next((kind for kind in _KINDS if kind in document), None)
    if kind is None:
        raise InvalidInput(
            f"the source {dict(document)!r} says neither files nor sql",
            subject="source",
            hint='write {"files": "data/*.csv"} or {"sql": "select ..."}',
        )
    source: Source = import_module(_KINDS[kind]).open_source(document, folder)
    return source
