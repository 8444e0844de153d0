"""The rules every store obeys, against an oracle that keeps everything and decides at the end."""

from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from featurestore.records import (
    DELETED,
    HARD,
    OFFLINE,
    ONLINE,
    Stored,
    fold,
    is_visible,
    merge,
    rank_of,
    sequence_of,
    status_of,
)


def _stored(event: int, rank: int, flags: int = 0, expires_at: int = 0) -> Stored:
    return Stored(event, rank, expires_at, 1, flags, 0, 0, b"" if flags & DELETED else b"%d" % rank)


@st.composite
def _logs(draw: st.DrawFn) -> list[Stored]:
    """Writes to one key in log order: event times repeat, ranks are plus or minus the sequence, some are deletes."""
    kinds = st.sampled_from([0, 0, 0, DELETED, DELETED | HARD])
    writes = draw(st.lists(st.tuples(st.integers(0, 4), kinds, st.booleans()), max_size=12))
    return [
        _stored(event, rank_of(sequence, replaces=replaces or bool(flags & HARD)), flags)
        for sequence, (event, flags, replaces) in enumerate(writes, 1)
    ]


def _oracle(log: list[Stored]) -> tuple[int, int, int] | None:
    """(event time, rank, flags) of what must be held: the greatest row after the last barrier, or that barrier."""
    barriers = [row for row in log if row.flags & HARD]
    since = sequence_of(barriers[-1].rank) if barriers else 0
    rows = [row for row in log if not row.flags & HARD and sequence_of(row.rank) > since]
    if rows:
        best = max(rows, key=lambda row: (row.event_time, row.rank))
        return best.event_time, best.rank, best.flags
    if barriers:
        return barriers[-1].event_time, barriers[-1].rank, barriers[-1].flags
    return None


def _held(stored: Stored | None) -> tuple[int, int, int] | None:
    return None if stored is None else (stored.event_time, stored.rank, stored.flags)


@given(_logs())
def test_what_is_held_is_what_the_whole_log_says(log: list[Stored]) -> None:
    held = fold(log)
    assert _held(held) == _oracle(log)
    barriers = [sequence_of(row.rank) for row in log if row.flags & HARD]
    assert (held.barrier if held else 0) == max(barriers, default=0)


@given(_logs())
def test_applying_again_changes_nothing(log: list[Stored]) -> None:
    held = fold(log)
    assert fold(log + log) == held
    if held is not None:
        assert [merge(held, row) for row in log] == [None] * len(log)


@given(_logs().filter(lambda log: len(log) <= 5))
@example([_stored(1, 1), _stored(0, 2, DELETED | HARD), _stored(0, 3)])
def test_the_order_of_arrival_does_not_matter(log: list[Stored]) -> None:
    """As long as no row overtakes a barrier sequenced before it; rows a barrier hides may come late."""
    wanted = _held(fold(log))
    for order in itertools.permutations(log):
        barriers = [sequence_of(row.rank) for row in order if row.flags & HARD]
        seen: set[int] = set()
        for row in order:
            if any(sequence_of(row.rank) > barrier and barrier not in seen for barrier in barriers):
                break
            seen.add(sequence_of(row.rank))
        else:
            assert _held(fold(list(order))) == wanted


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_at_one_instant_keep_holds_the_first_and_replace_the_last(events: list[int]) -> None:
    keep = fold([_stored(event, rank_of(n, replaces=False)) for n, event in enumerate(events, 1)])
    replace = fold([_stored(event, rank_of(n, replaces=True)) for n, event in enumerate(events, 1)])
    newest = max(events)
    assert sequence_of(keep.rank) == events.index(newest) + 1
    assert sequence_of(replace.rank) == len(events) - events[::-1].index(newest)


def test_an_older_write_stays_beaten_by_a_tombstone() -> None:
    deleted = fold([_stored(5, 1), _stored(6, 2, DELETED)])
    assert deleted is not None
    assert merge(deleted, _stored(4, 3)) is None
    assert status_of(deleted, 0) == "deleted"
    assert not is_visible(deleted, 0)
    back = merge(deleted, _stored(7, 4))
    assert back is not None
    assert status_of(back, 0) == "present"


def test_after_a_hard_delete_any_event_time_is_accepted() -> None:
    hidden = fold([_stored(5, 1), _stored(6, 2, DELETED | HARD)])
    assert hidden is not None
    assert status_of(hidden, 0) == "missing"
    assert not is_visible(hidden, 0)
    back = merge(hidden, _stored(1, 3))
    assert back is not None
    assert (back.event_time, back.barrier, status_of(back, 0)) == (1, 2, "present")
    assert merge(back, _stored(9, 1)) is None, "written before the barrier"


def test_expiry_is_from_its_instant_on() -> None:
    stored = _stored(1, 1, expires_at=10)
    assert [is_visible(stored, now) for now in (9, 10, 11)] == [True, False, False]
    assert [status_of(stored, now) for now in (9, 10)] == ["present", "expired"]
    assert is_visible(_stored(1, 1), 1 << 62)
    assert status_of(None, 0) == "missing"
    assert status_of(_stored(1, 1, DELETED, expires_at=1), 5) == "deleted"


def test_flags_are_bits_of_their_own() -> None:
    assert len({DELETED, HARD, ONLINE, OFFLINE}) == 4
    assert DELETED | HARD | ONLINE | OFFLINE == 15


@given(st.integers(1, 2**62), st.booleans())
def test_a_rank_gives_its_sequence_back(sequence: int, replaces: bool) -> None:
    assert sequence_of(rank_of(sequence, replaces=replaces)) == sequence
    assert (rank_of(sequence, replaces=replaces) > 0) is replaces
