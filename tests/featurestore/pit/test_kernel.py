"""The kernel's vectorised searches agree with loops over every slice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featurestore.pit import kernel
from featurestore.pit.kernel import View


@st.composite
def sliced(draw):
    """(events, starts, low and high of each query): slices of very different length, events ascending in each."""
    lengths = draw(st.lists(st.one_of(st.integers(0, 4), st.integers(0, 90)), min_size=1, max_size=6))
    spread = draw(st.sampled_from([3, 1000]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    events = [np.sort(random.integers(0, spread, length)) for length in lengths]
    starts = np.cumsum([0, *lengths[:-1]]).astype(np.int64)
    ends = np.cumsum(lengths).astype(np.int64)
    chosen = random.integers(0, len(lengths), draw(st.integers(0, 40)))
    times = random.integers(-2, spread + 2, len(chosen))
    return np.concatenate(events).astype(np.int64), starts, starts[chosen], ends[chosen], times, random


@settings(deadline=None)
@given(sliced(), st.booleans())
def test_last_before(case, inclusive):
    events, _, low, high, times, _ = case
    found = kernel.last_before(events, low, high, times, inclusive=inclusive)
    for place, time in enumerate(times):
        inside = [at for at in range(low[place], high[place]) if events[at] < time + inclusive]
        assert found[place] == (inside[-1] if inside else low[place] - 1)


@settings(deadline=None)
@given(sliced(), st.sampled_from([2, 10, 200]))
def test_latest_available_skips_rows_not_yet_known(case, spread):
    events, _, low, high, times, random = case
    available = random.integers(0, spread, len(events))
    known = random.integers(0, 3, len(times))
    last = kernel.last_before(events, low, high, times)
    found = kernel.latest_available(available, low, last, known)
    for place in range(len(times)):
        inside = [at for at in range(low[place], last[place] + 1) if available[at] <= known[place]]
        assert found[place] == (inside[-1] if inside else -1)


def test_a_long_run_of_unknown_rows_is_skipped():
    available = np.full(100_000, 9, np.int64)
    available[5] = 1
    low, last = np.array([0, 6, 0, 0]), np.array([99_999, 99_999, 5, 4])
    found = kernel.latest_available(available, low, last, np.ones(4, np.int64))
    assert found.tolist() == [5, -1, 5, -1]


@settings(deadline=None)
@given(sliced(), st.integers(1, 4), st.booleans())
def test_latest_instants(case, count, bitemporal):
    events, starts, low, high, times, random = case
    available = random.integers(0, 4, len(events)) if bitemporal else None
    known = random.integers(0, 4, len(times)) if bitemporal else None
    last = kernel.last_before(events, low, high, times)
    found = kernel.latest_instants(View(events, None, available), starts, low, last, known, count)
    for place, time in enumerate(times):
        best = {}
        for at in range(low[place], high[place]):
            if events[at] <= time and (available is None or available[at] <= known[place]):
                best[events[at]] = at
        expected = [best[event] for event in sorted(best, reverse=True)][:count]
        assert found[place].tolist() == expected + [-1] * (count - len(expected))


@settings(deadline=None)
@given(sliced(), st.integers(1, 4))
def test_first_instants(case, count):
    events, starts, low, high, times, _ = case
    first = kernel.last_before(events, low, high, times) + 1
    found = kernel.first_instants(View(events, None, None), starts, first, high, count)
    for place, time in enumerate(times):
        best = {events[at]: at for at in range(low[place], high[place]) if events[at] > time}
        expected = [best[event] for event in sorted(best)][:count]
        assert found[place].tolist() == expected + [-1] * (count - len(expected))


def test_first_instants_stops_at_the_end_of_the_window():
    view = View(np.array([1, 2, 2, 3, 9]), None, None)
    found = kernel.first_instants(view, np.array([0]), np.array([1, 3]), np.array([3, 3]), 3)
    assert found.tolist() == [[2, -1, -1], [-1, -1, -1]]


def test_a_view_keeps_where_its_rows_came_from():
    view = View(np.array([1, 2, 3, 4]), None, np.array([9, 8, 7, 6])).subset(np.array([1, 3])).subset(np.array([1]))
    assert (view.events.tolist(), view.rows.tolist(), view.available.tolist()) == ([4], [3], [6])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [([], [], []), ([3], [3], []), ([5, 0, 9], [7, 0, 12], [5, 6, 9, 10, 11])],
)
def test_expand(low, high, expected):
    assert kernel.expand(np.array(low, np.int64), np.array(high, np.int64)).tolist() == expected
