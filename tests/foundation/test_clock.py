"""Instants: microseconds since the epoch, never repeated by one clock."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from foundation.clock import Clock, instant_of, micros_of_delta, moment_of, system_clock


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40))
def test_a_clock_never_repeats_or_goes_back(ticks: list[int]) -> None:
    source = iter(ticks)
    clock = Clock(lambda: next(source))
    seen = [clock.now() for _ in ticks]
    assert all(late > early for early, late in pairwise(seen))
    assert all(got >= tick for got, tick in zip(seen, ticks, strict=True))


def test_a_clock_follows_its_source_when_that_runs_ahead() -> None:
    source = iter([5, 100, 100, 7])
    clock = Clock(lambda: next(source))
    assert [clock.now() for _ in range(4)] == [5, 100, 101, 102]


def test_threads_never_share_an_instant() -> None:
    switching = threading.Barrier(4)

    class Slow(int):
        """Lets other threads in while it is compared."""

        def __lt__(self, other: int) -> bool:
            time.sleep(0)
            return int(self) < other

    clock = Clock(lambda: Slow(7))
    seen: list[int] = []

    def work() -> None:
        switching.wait(30)
        for _ in range(100):
            seen.append(clock.now())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(set(seen)) == len(seen) == 400


def test_the_system_clock_tells_the_time() -> None:
    before = time.time_ns() // 1000
    assert before <= system_clock.now() <= time.time_ns() // 1000 + 1000


@given(st.datetimes(timezones=st.just(UTC)))
def test_instants_and_moments_are_the_same_thing(moment: datetime) -> None:
    assert moment_of(instant_of(moment)) == moment


def test_instants_are_exact_in_any_zone_and_before_the_epoch() -> None:
    zone = timezone(timedelta(hours=-5, minutes=-30))
    assert instant_of(datetime(1969, 12, 31, 18, 30, 0, 1, zone)) == 1
    assert instant_of(datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)) == -1
    assert instant_of(datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)) == 253402300799999999
    assert moment_of(-1) == datetime(1969, 12, 31, 23, 59, 59, 999999, UTC)


@given(st.timedeltas())
def test_spans_are_whole_microseconds(delta: timedelta) -> None:
    assert timedelta(microseconds=micros_of_delta(delta)) == delta
