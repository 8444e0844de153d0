"""Seam Catalog: named, versioned, tagged JSON documents with an audit trail of every change."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from foundation.clock import Clock
from foundation.errors import InvalidInput

__all__ = ["AuditEntry", "Catalog", "Entry", "Page", "default_actor", "open_catalog"]

_BACKENDS = {"sqlite": "foundation.catalog.sqlite"}


@dataclass(frozen=True)
class Entry:
    """One document as it stands.

    Attributes:
        kind: what it describes, e.g. ``"feature group"``.
        name: unique within its kind.
        version: rises by one with every update; a name used again after a delete goes on from where it stopped.
        document: plain JSON, a fresh copy for every answer.
        created_at, updated_at: instants (microseconds, UTC).
    """

    kind: str
    name: str
    version: int
    document: dict[str, Any]
    created_at: int
    updated_at: int


@dataclass(frozen=True)
class Page:
    """Some of the entries asked for; ``next_token`` is None on the last page."""

    entries: tuple[Entry, ...]
    next_token: str | None = None


@dataclass(frozen=True)
class AuditEntry:
    """Who did what when.

    Attributes:
        at: instant (microseconds, UTC).
        actor: who.
        action: what, e.g. ``"create"``, ``"update"``, ``"delete"`` or the word given to ``update``.
        kind, name: of the document.
        version: the version this made, or the one it removed.
        detail: the note given with the change.
    """

    at: int
    actor: str
    action: str
    kind: str
    name: str
    version: int
    detail: str


class Catalog(Protocol):
    """Safe to share between threads and, through the same URL, between processes. Every change is durable on return.

    Every create, update and delete raises ``generation`` by one. ``on_change`` is called with the coming generation
    inside the transaction, just before it commits; an error it raises undoes the change. A cache is therefore never
    stale when it (1) keeps what it read under the ``generation()`` taken *before* reading and (2) reads again while a
    mirrored generation is above the one it kept. Nothing that already holds a lock ``on_change`` needs may write here.

    ``actor`` defaults to the operating system's user name.
    """

    on_change: Callable[[int], None] | None

    def create(self, kind: str, name: str, document: Mapping[str, Any], *, actor: str = "", note: str = "") -> Entry:
        """Add a document.

        Raises:
            AlreadyExists: the name is taken.
            InvalidInput: the document is not plain JSON, or kind or name is empty or over 512 characters.
        """

    def get(self, kind: str, name: str) -> Entry:
        """Read one document.

        Raises:
            NotFound: no such name; a close one is suggested.
        """

    def update(
        self,
        kind: str,
        name: str,
        document: Mapping[str, Any],
        *,
        expected_version: int,
        actor: str = "",
        action: str = "update",
        note: str = "",
    ) -> Entry:
        """Replace a document.

        Raises:
            Conflict: its version is not ``expected_version`` any more; read it again and decide again.
            NotFound: no such name.
            InvalidInput: the document is not plain JSON.
        """

    def delete(
        self, kind: str, name: str, *, expected_version: int | None = None, actor: str = "", note: str = ""
    ) -> None:
        """Remove a document; its audit trail stays.

        Raises:
            Conflict: its version is not ``expected_version``, where that is given.
            NotFound: no such name.
        """

    def find(
        self,
        kind: str,
        *,
        name_contains: str = "",
        filters: Mapping[str, object] | None = None,
        sort: str = "name",
        descending: bool = False,
        limit: int = 100,
        token: str | None = None,
    ) -> Page:
        """List documents of a kind, a page at a time.

        Args:
            kind: which documents.
            name_contains: part of the name, upper and lower case alike.
            filters: all must hold. A key is ``"created_at"``, ``"updated_at"``, ``"version"``, a top field of the
                document (``"online"``) or a field below one (``"tags.team"``: the part after the first dot is taken
                literally). A value is compared for equality; a pair ``(low, high)`` is an inclusive range, either
                end None for open.
            sort: ``"name"``, ``"created_at"`` or ``"updated_at"``; names break ties.
            descending: reverse the order.
            limit: entries per page, 1 to 1,000.
            token: ``next_token`` of the previous page of the same question.

        Raises:
            InvalidInput: an unknown sort, a limit out of range, or a token of another question.
        """

    def search(self, text: str, kinds: Sequence[str] = (), *, limit: int = 50) -> list[Entry]:
        """Documents holding every word of ``text``, upper and lower case alike, best first.

        Searched are the name and whatever stands under ``name``, ``description``, ``tags`` or ``parameters`` at any
        depth of the document. Words match anywhere inside; a hit in the name counts more, a whole name most.

        Args:
            text: words; without any, nothing is found.
            kinds: only these kinds; empty for all.
            limit: most entries returned.
        """

    def audit(
        self, kind: str | None = None, name: str | None = None, *, since: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """The latest changes, newest first, of everything, a kind or one name, from an instant on."""

    def next_number(self, counter: str) -> int:
        """Count up durably and return the number: 1, 2, 3 …, never the same one twice."""

    def generation(self) -> int:
        """How many changes were made so far, by anyone."""

    def close(self) -> None:
        """Release the file or connection; the catalog is not used afterwards."""


def default_actor() -> str:
    """The operating system's user name, or its number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def open_catalog(url: str, *, clock: Clock | None = None) -> Catalog:
    """Open the backend of a URL's scheme: ``sqlite:///folder/file``.

    Args:
        url: where the catalog is; it is made when it is not there.
        clock: gives the instants of changes; the system's without.

    Raises:
        InvalidInput: an unknown scheme, or a file that is something else.
        AccessDenied: the place cannot be written.
    """
    scheme = url.partition(":")[0]
    if scheme not in _BACKENDS:
        raise InvalidInput(
            f"catalog URL {url!r} has an unknown scheme", subject="setting catalog", hint="use sqlite:///folder/file"
        )
    catalog: Catalog = import_module(_BACKENDS[scheme]).open_catalog(url, clock=clock)
    return catalog
