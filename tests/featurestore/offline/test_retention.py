"""Vacuum's decision against a loop over versions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.offline.retention import lives, spare
from foundation.delta import Added, LogEntry
from foundation.errors import NotFound

STEP = 10_000


@st.composite
def histories(draw):
    """Versions adding and removing files at (mostly) rising instants."""
    held: list[str] = []
    entries = []
    at = 1_000_000
    for version in range(draw(st.integers(1, 8))):
        at += draw(st.integers(-2, 6)) * STEP
        removed = draw(st.lists(st.sampled_from(held), unique=True)) if held else []
        added = [f"f{version}-{number}" for number in range(draw(st.integers(0, 2)))]
        held = [path for path in held if path not in removed] + added
        entries.append(
            LogEntry(version, at, "WRITE", tuple(Added(path, 1, 1, True) for path in added), tuple(removed), {})
        )
    return entries


def states(entries):
    """Files of every version."""
    held: set[str] = set()
    for entry in entries:
        held = (held - set(entry.removed)) | {added.path for added in entry.added}
        yield frozenset(held)


@given(histories(), st.data())
def test_nothing_a_kept_or_young_version_needs_is_spared_to_vacuum(entries, data):
    newest = entries[-1].version
    keep = data.draw(st.sets(st.integers(0, newest)))
    older_than = 1_000_000 + data.draw(st.integers(-2, 60)) * STEP
    orphans_before = 1_000_000 + data.draw(st.integers(-2, 60)) * STEP
    held = list(states(entries))
    present = {path: 0 for files in held for path in files}
    present |= {"orphan-old": 900_000, "orphan-new": 1_000_000 + 100 * STEP}
    needed = set(held[newest])
    ended = 0
    for version in range(newest):
        ended = max(ended, entries[version].at + 1000, entries[version + 1].at + 1000)
        if version in keep or ended >= older_than:
            needed |= held[version]
    got = spare(
        lives(entries),
        present,
        newest=newest,
        keep_versions=keep,
        older_than=older_than,
        orphans_before=orphans_before,
    )
    wanted = {path for path in present if path.startswith("f")} - needed
    wanted |= {"orphan-old"} if min(older_than, orphans_before) > 900_000 else set()
    assert set(got) == wanted


def test_a_version_to_keep_must_exist():
    with pytest.raises(NotFound, match="version 3"):
        spare({}, {}, newest=2, keep_versions={3}, older_than=0, orphans_before=0)
