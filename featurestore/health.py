"""What is well with a store and what is not: findings a person can act on. Looking changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.fs as pafs

from featurestore.apply import LOG_APP
from featurestore.groups import FeatureGroup
from featurestore.offline.footers import read_footer
from featurestore.offline.retention import lives
from foundation.errors import PlatformError

if TYPE_CHECKING:
    from featurestore.parts import Parts

__all__ = ["Finding", "examine"]

_MANY_RUNS = 64
_FULL = 0.8
_MOST = 1_000_000


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        what: what it is about.
        status: ``ok``, ``warn`` (go on, but see to it) or ``fail``.
        detail: what was found.
        fix: what to do, "" when there is nothing to do.
    """

    what: str
    status: str
    detail: str
    fix: str = ""


def examine(parts: Parts) -> list[Finding]:
    """Look at the log, the stores and every group of an opened store."""
    found = [_log(parts)]
    groups = list(_groups(parts))
    for group in groups:
        found += [*_offline(parts, group), *_waiting(parts, group)] if group.offline else []
    half = parts.groups.deleting()
    if half:
        names = ", ".join(group.name for group, _ in half)
        found.append(Finding("groups", "warn", f"half deleted: {names}", f"tilth group delete {half[0][0].name}"))
    found.append(Finding("groups", "ok", f"{len(groups)} feature groups"))
    return found


def _groups(parts: Parts) -> Iterator[FeatureGroup]:
    token: str | None = None
    while True:
        page = parts.groups.list(limit=1000, token=token)
        yield from page.groups
        token = page.next_token
        if token is None:
            return


def _log(parts: Parts) -> Finding:
    usage = parts.usage()
    share = usage.used / usage.map_size
    detail = (
        f"{usage.used / 1e6:.1f} MB of a map of {usage.map_size / 1e9:.1f} GB in use; {usage.readers} readers, "
        f"{usage.stale} stale ones cleared"
    )
    if share > _FULL:
        return Finding("write log", "warn", detail, "raise the setting map_size")
    return Finding("write log", "ok", detail)


def _offline(parts: Parts, group: FeatureGroup) -> Iterator[Finding]:
    what = f"offline table of {group.name}"
    try:
        snapshot = parts.offline.snapshot(group)
        for run in snapshot.runs:
            read_footer(snapshot.files, f"{snapshot.folder}/{run.path}")
    except PlatformError as error:
        yield Finding(what, "fail", error.message, error.hint)
        return
    rows = sum(run.rows for run in snapshot.runs)
    detail = f"version {snapshot.version}, {rows:,} rows in {len(snapshot.runs)} runs, every file readable"
    if len(snapshot.runs) > _MANY_RUNS:
        yield Finding(what, "warn", detail, f"tilth compact {group.name}")
    else:
        yield Finding(what, "ok", detail)
    orphans = _orphans(parts, group, snapshot.folder)
    if orphans:
        yield Finding(
            what,
            "warn",
            f"{len(orphans)} files no table version knows, {orphans[0]} first: of work cut off, or under way",
            f"tilth vacuum {group.name} removes those older than a day",
        )


def _orphans(parts: Parts, group: FeatureGroup, folder: str) -> list[str]:
    known = lives(parts.offline.history(group))
    listed = parts.workspace.files.filesystem.get_file_info(pafs.FileSelector(folder, allow_not_found=True))
    names = (info.base_name for info in listed if info.type == pafs.FileType.File)
    return sorted(name for name in names if name.endswith(".parquet") and name not in known)


def _waiting(parts: Parts, group: FeatureGroup) -> Iterator[Finding]:
    for pending in parts.pending.of(group):
        yield Finding(
            f"loads of {group.name}",
            "warn",
            f"load {pending.load} is under way, or was cut off before its records were online",
            f"tilth flush {group.name} finishes it",
        )
    waiting = len(parts.log.read(group, parts.offline.position(group, LOG_APP), _MOST))
    if waiting:
        yield Finding(
            f"log of {group.name}",
            "ok",
            f"{waiting:,} rows are durable in the log and not yet in the offline table",
            "none needed: the next flush, build or close brings them there; tilth flush does it now",
        )
    try:
        parts.appliers.check_online(group)
    except PlatformError as error:
        yield Finding(f"online records of {group.name}", "fail", error.message, error.hint)
