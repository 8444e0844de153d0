"""Which files of a table may go: none that a kept version, or a version still young, needs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from foundation.delta import LogEntry
from foundation.errors import NotFound

__all__ = ["Life", "lives", "spare"]


@dataclass(frozen=True)
class Life:
    """A file's time in the table.

    Attributes:
        path: relative to the table.
        first: version that added it.
        until: version that removed it, None while it is in the newest.
        ended: instant the last version with it was succeeded, None while it is in the newest.
    """

    path: str
    first: int
    until: int | None = None
    ended: int | None = None


def lives(entries: Iterable[LogEntry]) -> dict[str, Life]:
    """Every file the log ever knew, by path. A removal counts from the latest instant any commit up to it named."""
    found: dict[str, Life] = {}
    latest = 0
    for entry in entries:
        latest = max(latest, entry.at + 1000)
        for path in entry.removed:
            if path in found:
                found[path] = Life(path, found[path].first, entry.version, latest)
        for added in entry.added:
            found[added.path] = Life(added.path, entry.version)
    return found


def spare(
    known: Mapping[str, Life],
    present: Mapping[str, int],
    *,
    newest: int,
    keep_versions: Collection[int],
    older_than: int,
    orphans_before: int,
) -> list[str]:
    """Paths that may be deleted, sorted.

    Args:
        known: every file of the log (``lives``).
        present: files in the folder, path to modification instant.
        newest: the newest version.
        keep_versions: versions that must stay readable.
        older_than: versions in force at or after this instant stay readable too.
        orphans_before: files no version knows go when last modified before both this and ``older_than``.

    Raises:
        NotFound: a version to keep does not exist.
    """
    if missing := sorted(version for version in keep_versions if not 0 <= version <= newest):
        raise NotFound(f"there is no version {missing[0]} to keep", subject=f"version {missing[0]}")
    chosen: list[str] = []
    for path, modified in present.items():
        life = known.get(path)
        if life is None:
            if modified < min(older_than, orphans_before):
                chosen.append(path)
        elif life.until is not None and life.ended is not None and life.ended < older_than:
            needed = any(life.first <= version < life.until for version in keep_versions)
            chosen += [] if needed else [path]
    return sorted(chosen)
