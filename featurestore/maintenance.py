"""Looking after groups: making and removing their stores, flushing, compaction, vacuum."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from featurestore.datasets.saved import SavedDatasets
from featurestore.groups import FeatureGroup
from featurestore.parts import Parts, View
from featurestore.values import ValueCodec
from foundation.clock import micros_of_delta
from foundation.errors import InUse, Unavailable

__all__ = ["VacuumReport", "delete_group", "flush", "settle_all", "vacuum"]


@dataclass(frozen=True)
class VacuumReport:
    """What vacuum removed: paths relative to the group's table."""

    group: str
    removed: tuple[str, ...]


def delete_group(parts: Parts, name: str, *, offline: str, saved: SavedDatasets) -> None:
    """Delete a group: nobody gets it any more, then its stores go, then its entry. Repeating finishes a cut-off one.

    Raises:
        InUse: its offline files are to be purged while saved datasets are pinned to them.
    """
    half = {group.name: group for group, _ in parts.groups.deleting()}
    if offline == "purge" and saved.pinned_versions(half.get(name) or parts.group(name)):
        raise InUse(
            f"saved datasets are pinned to group {name!r}",
            subject=f"feature group {name!r}",
            hint='delete those datasets first, or use offline="keep"',
        )
    group = parts.groups.begin_delete(name, offline=offline)
    if group.offline and offline == "keep":
        # After the mark, so that nothing acknowledged comes in behind this flush.
        parts.settle(View(group, ValueCodec(group), 0), online=False)
    parts.online.drop(group)
    parts.log.drop(group)
    parts.pending.drop(group)
    if group.offline and offline == "purge":
        parts.offline.drop(group)
        parts.quarantine.drop(group)
    parts.groups.finish_delete(name)
    parts.forget(name)


def flush(parts: Parts, name: str | None) -> int:
    """Bring everything acknowledged into both stores, of one group or of all; return rows committed offline."""
    return sum(parts.settle(parts.view(each.name)) for each in _groups(parts, name))


def settle_all(parts: Parts) -> None:
    """Flush every group as far as its stores can be reached."""
    for group in _groups(parts, None):
        view = parts.view(group.name)
        try:
            parts.settle(view)
        except Unavailable:
            parts.settle(view, online=False)


def vacuum(parts: Parts, name: str, *, saved: SavedDatasets, older_than: timedelta | None) -> VacuumReport:
    """Delete offline files no version younger than the promise, and no saved dataset, needs.

    Args:
        parts: the opened store.
        name: feature group.
        saved: keeps the versions it is pinned to.
        older_than: keep what was current within this time; None for the setting ``time_travel``.
    """
    view = parts.offline_view(name)
    parts.settle(view)
    keep = parts.workspace.settings.time_travel if older_than is None else older_than
    pinned = saved.pinned_versions(view.group)
    removed = parts.offline.vacuum(
        view.group, keep_versions=pinned, older_than=parts.clock.now() - micros_of_delta(keep)
    )
    return VacuumReport(name, tuple(removed))


def _groups(parts: Parts, name: str | None) -> list[FeatureGroup]:
    if name is not None:
        return [parts.view(name).group]
    found: list[FeatureGroup] = []
    token: str | None = None
    while True:
        page = parts.groups.list(limit=1000, token=token)
        found += page.groups
        token = page.next_token
        if token is None:
            return found
