"""What an online store is: every backend holds, for every key, what ``records.fold`` makes of the rows in log order."""

import asyncio
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from online_backends import BOTH, Backend, key, new_group, race, racing_rows, row

from featurestore.online import ConcurrentReads, OnlineStore
from featurestore.online.codec import decode_values, encode_values, stored_of
from featurestore.records import DELETED, HARD, OFFLINE, ONLINE, Row, Stored, fold, is_visible, status_of

pytestmark = pytest.mark.xdist_group("online store")  # one process starts the servers
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
GONE = BOTH | DELETED | HARD


@dataclass
class Place:
    backend: Backend
    store: OnlineStore


@pytest.fixture(scope="module", params=["embedded", "redis", "cluster"])
def place(request, tmp_path_factory):
    kind = request.param
    chosen = request.config.getoption("--backend")
    if chosen and kind not in chosen:
        pytest.skip(f"--backend {' '.join(chosen)}")
    if kind == "embedded":
        where = str(tmp_path_factory.mktemp("embedded"))
    else:
        where = request.getfixturevalue({"redis": "valkey", "cluster": "valkey_cluster"}[kind]).url
    backend = Backend(kind, where)
    store = backend.open()
    yield Place(backend, store)
    store.close()


@pytest.fixture
def store(place):
    return place.store


@pytest.fixture
def group():
    return new_group()


def held(store: OnlineStore, group, *names: str) -> list[Stored | None]:
    return store.get_many(group, [key(name) for name in names])


def one(store: OnlineStore, group, name: str) -> Stored:
    found = held(store, group, name)[0]
    assert found is not None
    return found


def model(rows: list[Row]) -> dict[bytes, Stored]:
    by_key: dict[bytes, list[Stored]] = {}
    for each in rows:
        if each.flags & ONLINE:
            by_key.setdefault(each.key, []).append(stored_of(each))
    return {name: folded for name, chain in by_key.items() if (folded := fold(chain)) is not None}


NAMES = ("a", "b", "c")
FLAGS = st.sampled_from((BOTH, BOTH, BOTH, ONLINE, OFFLINE, BOTH | DELETED, GONE))


@st.composite
def logs(draw):
    """Rows in log order over few keys and few instants: ties, late rows, tombstones and barriers are common."""
    rows = []
    for sequence in range(1, draw(st.integers(1, 25)) + 1):
        flags = draw(FLAGS)
        rows.append(
            Row(
                key=key(draw(st.sampled_from(NAMES))),
                event_time=draw(st.integers(-2, 3) | st.sampled_from((2**53, 2**53 + 1, -(2**62)))),
                rank=sequence * draw(st.sampled_from((1, -1))),
                flags=flags,
                expires_at=draw(st.sampled_from((0, 5, 2**60))),
                known_at=None,
                write_time=draw(st.integers(0, 2**50)),
                invocation_time=0,
                version=draw(st.integers(1, 3)),
                values=[draw(st.none() | st.integers(0, 9) | st.text(max_size=3))],
            )
        )
    return rows


def batches(draw, rows: list[Row]) -> list[list[Row]]:
    parts = []
    while rows:
        size = draw(st.integers(1, len(rows)))
        parts.append(rows[:size])
        rows = rows[size:]
    return parts


@SLOW
@given(data=st.data(), rows=logs())
def test_holds_the_fold_of_the_log_however_it_is_cut(store, data, rows):
    group = new_group()
    expected = model(rows)
    for part in batches(data.draw, rows):
        store.apply(group, part)
    assert store.get_many(group, [key(name) for name in NAMES]) == [expected.get(key(name)) for name in NAMES]
    again = data.draw(st.integers(0, len(rows) - 1), label="applied again from here")
    store.apply(group, rows[again:])
    assert dict(store.scan(group)) == expected


@SLOW
@given(data=st.data(), rows=logs())
def test_late_arrival_changes_nothing_as_long_as_barriers_come_in_log_order(store, data, rows):
    group = new_group()
    delays = [0 if each.flags & HARD else data.draw(st.integers(0, 30)) for each in rows]
    late = [
        each
        for _, _, each in sorted((abs(r.rank) + wait, abs(r.rank), r) for r, wait in zip(rows, delays, strict=True))
    ]
    for part in batches(data.draw, late):
        store.apply(group, part)
    assert dict(store.scan(group)) == model(rows)


def test_the_greater_event_time_wins_whatever_comes_first(store, group):
    store.apply(group, [row("a", 10, -1), row("b", 20, -2), row("a", 20, -3), row("b", 10, -4)])
    assert [found.rank for found in held(store, group, "a", "b")] == [-3, -2]


def test_at_equal_times_the_first_stays_and_a_replacing_write_replaces(store, group):
    store.apply(group, [row("keep", 10, -1), row("replace", 10, 2)])
    store.apply(group, [row("keep", 10, -3), row("replace", 10, 4)])
    store.apply(group, [row("both", 10, -5), row("both", 10, 6), row("both", 10, -7)])
    assert [found.rank for found in held(store, group, "keep", "replace", "both")] == [-1, 4, 6]


@pytest.mark.parametrize("event", [2**53, -(2**53) - 1, 2**62, -(2**63), 2**32 - 1, -1])
def test_event_times_one_microsecond_apart_are_told_apart(store, event):
    group = new_group()
    store.apply(group, [row("up", event, -2), row("down", event + 1, -1)])
    store.apply(group, [row("up", event + 1, -3), row("down", event, -4)])
    assert [found.event_time for found in held(store, group, "up", "down")] == [event + 1, event + 1]


def test_ranks_are_told_apart_up_to_the_last_sequence(store, group):
    top = 2**53 - 1
    store.apply(group, [row("a", 1, -(top - 1)), row("b", 1, top - 1)])
    store.apply(group, [row("a", 1, -top), row("b", 1, top)])
    assert [found.rank for found in held(store, group, "a", "b")] == [-(top - 1), top]
    store.apply(group, [row("c", 9, top - 2), row("c", 5, top - 1, GONE)])
    store.apply(group, [row("c", 20, top - 3), row("c", 1, top)])
    found = one(store, group, "c")
    assert (found.rank, found.barrier) == (top, top - 1)


def test_a_soft_tombstone_stays_and_keeps_older_writes_out(store, group):
    store.apply(group, [row("a", 10, -1), row("a", 20, -2, BOTH | DELETED)])
    store.apply(group, [row("a", 15, -3)])
    found = one(store, group, "a")
    assert (found.event_time, found.payload, status_of(found, 0)) == (20, b"", "deleted")
    store.apply(group, [row("a", 21, -4)])
    assert status_of(one(store, group, "a"), 0) == "present"


def test_a_hard_delete_hides_what_came_before_it_and_nothing_after(store, group):
    store.apply(group, [row("a", 100, -1), row("a", 5, -2, GONE)])
    hidden = one(store, group, "a")
    assert (status_of(hidden, 0), hidden.barrier, hidden.payload) == ("missing", 2, b"")
    store.apply(group, [row("a", 200, -1)])
    assert status_of(one(store, group, "a"), 0) == "missing"
    store.apply(group, [row("a", 1, -3)])
    found = one(store, group, "a")
    assert (status_of(found, 0), found.event_time, found.barrier) == ("present", 1, 2)
    assert decode_values(found.payload) == [1, -3, None]
    store.apply(group, [row("a", 0, -4, BOTH | DELETED)])
    assert one(store, group, "a") == found


def test_a_barrier_that_arrives_behind_newer_rows_lets_them_stand(store, group):
    store.apply(group, [row("a", 10, -5, values=["long " * 50])])
    before = one(store, group, "a")
    store.apply(group, [row("a", 50, -3, GONE)])
    assert one(store, group, "a") == before._replace(barrier=3)
    store.apply(group, [row("a", 50, -4, GONE), row("a", 60, -2), row("a", 5, -6)])
    assert one(store, group, "a") == before._replace(barrier=4)
    store.apply(group, [row("a", 1, -7, GONE), row("a", 0, -8)])
    found = one(store, group, "a")
    assert (found.rank, found.barrier) == (-8, 7)


def test_an_older_barrier_applied_again_does_not_lower_a_newer_one(store, group):
    rows = [row("a", 1, -2, GONE), row("a", 90, -3), row("a", 1, -4, GONE), row("a", 5, -5)]
    store.apply(group, rows)
    before = one(store, group, "a")
    assert (before.rank, before.barrier) == (-5, 4)
    store.apply(group, rows[:1])
    store.apply(group, rows[1:2])
    assert one(store, group, "a") == before


def test_a_barrier_on_an_unknown_key_is_remembered(store, group):
    store.apply(group, [row("a", 10, -2, GONE)])
    store.apply(group, [row("a", 99, -1)])
    assert status_of(one(store, group, "a"), 0) == "missing"


def test_rows_not_meant_for_online_are_passed_over(store, group):
    store.apply(group, [row("a", 10, -1, OFFLINE), row("b", 10, -2, ONLINE)])
    absent, present = held(store, group, "a", "b")
    assert absent is None
    assert present.flags == ONLINE


def test_every_field_is_kept_and_expiry_is_the_readers_business(store, group):
    written = Row(key("a"), 10, -1, BOTH, 1_000, 7, 123_456_789, 5, 65_535, ["a", 10, 2.5])
    store.apply(group, [written])
    found = one(store, group, "a")
    assert found == Stored(10, -1, 1_000, 65_535, BOTH, 0, 123_456_789, encode_values(["a", 10, 2.5]))
    assert is_visible(found, 999)
    assert status_of(found, 1_000) == "expired"
    store.apply(group, [row("a", 9, -2)])
    assert one(store, group, "a") == found


def test_nulls_and_nested_values_come_back_as_they_were(store, group):
    values = [
        None,
        True,
        -(2**63),
        2**63 - 1,
        1.5,
        float("inf"),
        "",
        "naïve 名前 \x00\r\n",
        [],
        [1, None],
        {"a": [{"b": None}]},
    ]
    store.apply(group, [row("a", 1, -1, values=values), row("b", 1, -2, values=[])])
    first, second = held(store, group, "a", "b")
    assert decode_values(first.payload) == values
    assert decode_values(second.payload) == []


def test_keys_of_any_text_and_length(store, group):
    names = [
        "",
        " ",
        "\x00",
        "\r\n",
        "{a}",
        "}",
        "}!keys",
        "naïve",
        "名前",
        "é",
        "e\u0301",
        "a" * 2000,
        "a" * 1999 + "b",
        "*",
        "!",
    ]
    rows = [row(name, place, -1 - place) for place, name in enumerate(names)]
    store.apply(group, rows)
    assert [found.event_time for found in held(store, group, *names)] == list(range(len(names)))
    assert sorted(name for name, _ in store.scan(group)) == sorted(key(name) for name in names)
    store.apply(group, [row(name, place + 100, -100 - place) for place, name in enumerate(names)])
    assert [found.event_time - 100 for found in held(store, group, *names)] == list(range(len(names)))


def test_get_many_answers_in_order_with_repeats_and_gaps(store, group):
    assert store.get_many(group, []) == []
    assert held(store, group, "a") == [None]
    store.apply(group, [row(f"k{number}", number, -1 - number) for number in range(300)])
    names = ["k7", "none", "k7", *[f"k{number}" for number in range(299, -1, -1)], "none"]
    found = held(store, group, *names)
    assert [None if each is None else each.event_time for each in found] == [7, None, 7, *range(299, -1, -1), None]


def test_a_long_list_of_keys_in_one_call(store, group):
    store.apply(group, [row(f"k{number}", number, -1 - number) for number in range(2_500)])
    found = held(store, group, *[f"k{number}" for number in range(2_600)])
    assert [each.event_time for each in found[:2_500]] == list(range(2_500))
    assert found[2_500:] == [None] * 100


def test_groups_do_not_see_each_other(store):
    first, second = new_group(), new_group()
    store.apply(first, [row("a", 1, -1)], 5)
    assert held(store, second, "a") == [None]
    assert store.scan(second) == []
    assert store.position(second) == 0


def test_position_is_remembered_after_the_rows_and_without_rows(place, store, group):
    assert store.position(group) == 0
    store.apply(group, [row("a", 1, -1)])
    assert store.position(group) == 0
    store.apply(group, [row("a", 2, -2)], 2**44 + 2)
    assert store.position(group) == 2**44 + 2
    store.apply(group, [], 2**53 - 1)
    assert store.position(group) == 2**53 - 1
    other = place.backend.open()
    assert other.position(group) == 2**53 - 1
    other.close()


def test_a_batch_that_cannot_be_stored_moves_no_position(store, group):
    with pytest.raises(Exception, match="cannot be stored"):
        store.apply(group, [row("a", 1, -1), row("b", 1, -2, values=[object()])], 7)
    assert store.position(group) == 0


def test_replace_sets_without_comparing_and_removes(store, group):
    store.apply(group, [row("a", 50, -5), row("b", 50, -6)])
    older = stored_of(row("a", 1, -1))._replace(barrier=3)
    store.replace(group, key("a"), older)
    store.replace(group, key("new"), older)
    store.replace(group, key("b"), None)
    store.replace(group, key("never there"), None)
    assert held(store, group, "a", "new", "b") == [older, older, None]
    assert dict(store.scan(group)) == {key("a"): older, key("new"): older}
    store.apply(group, [row("a", 9, -2), row("b", 1, -7)])
    assert [found.rank for found in held(store, group, "a", "b")] == [-1, -7]


def test_drop_forgets_one_group_and_its_position(store, group):
    other = new_group()
    rows = [row(f"k{number}", 1, -1 - number) for number in range(1_500)]
    for each in (group, other):
        store.apply(each, rows, 9)
    store.drop(group)
    assert (store.scan(group), store.position(group), held(store, group, "k1")) == ([], 0, [None])
    assert (len(all_pages(store, other, 700)), store.position(other)) == (1_500, 9)
    store.drop(group)
    store.apply(group, [row("k1", 0, -1)])
    assert [name for name, _ in store.scan(group)] == [key("k1")]


def all_pages(store: OnlineStore, group, limit: int) -> list[tuple[bytes, Stored]]:
    found: list[tuple[bytes, Stored]] = []
    while page := store.scan(group, found[-1][0] if found else b"", limit):
        assert len(page) <= limit
        found += page
    return found


@pytest.mark.parametrize("limit", [1, 2, 7, 50, 1000])
def test_scan_pages_cover_everything_once_hidden_records_included(store, limit):
    group = new_group()
    rows = [row(f"k{number}", 1, -1 - number, (BOTH, BOTH | DELETED, GONE)[number % 3]) for number in range(50)]
    store.apply(group, rows)
    found = all_pages(store, group, limit)
    assert len(found) == 50
    assert dict(found) == model(rows)


def test_scan_of_ten_thousand_keys_sees_each_once_while_others_write(place, store, group):
    rows = [row(f"k{number:05}" + "x" * (number % 3 * 300), 1, -1 - number) for number in range(10_000)]
    store.apply(group, rows)
    stop, rounds = threading.Event(), []

    def disturb() -> None:
        other = place.backend.open()
        sequence = 20_000
        while not stop.is_set():
            fresh = [row(f"new{sequence + step}", 1, -(sequence + step)) for step in range(20)]
            touched = [
                row(rows[(sequence * 7 + step) % 10_000].key, sequence, -(sequence + 50 + step)) for step in range(20)
            ]
            other.apply(group, fresh + touched)
            other.replace(group, fresh[0].key, None)
            sequence += 100
            rounds.append(sequence)
        other.close()

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(disturb)
        try:
            found = [name for name, _ in all_pages(store, group, 333)]
        finally:
            stop.set()
        writer.result(60)
    assert rounds
    assert len(found) == len(set(found))
    assert {each.key for each in rows} <= set(found)


def test_racing_threads_end_in_the_fold(place, store, group):
    rows = racing_rows(keys=6, count=150, seed=group.number)
    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(race, place.backend, group.number, rows, seed) for seed in range(4)]:
            each.result(120)
    assert dict(store.scan(group)) == model(rows)


def test_threads_may_share_one_store(store, group):
    rows = racing_rows(keys=40, count=200, seed=group.number)
    names = [each.key for each in rows]

    def work(number: int) -> None:
        for start in range(number * 10, len(rows), 40):
            store.apply(group, rows[start : start + 10])
            assert len(store.get_many(group, names[start : start + 30])) == len(names[start : start + 30])

    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(work, number) for number in range(4)]:
            each.result(120)
    assert dict(store.scan(group)) == model(rows)


def test_racing_processes_end_in_the_fold(place, store, group):
    rows = racing_rows(keys=6, count=120, seed=group.number)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=race, args=(place.backend, group.number, rows, seed)) for seed in range(3)]
    for each in workers:
        each.start()
    for each in workers:
        each.join(120)
    assert [each.exitcode for each in workers] == [0, 0, 0]
    assert dict(store.scan(group)) == model(rows)


def test_concurrent_reads_give_what_get_many_gives(store, group):
    if not store.abilities.concurrent_reads:
        assert not isinstance(store, ConcurrentReads)
        return
    assert isinstance(store, ConcurrentReads)
    rows = [row(f"k{number}", number, -1 - number) for number in range(200)]
    store.apply(group, rows)
    wanted = [[each.key for each in rows[start : start + 3]] + [key("none")] for start in range(0, 200, 2)]

    async def ask() -> list[list[Stored | None]]:
        found = await asyncio.gather(*[store.get_many_async(group, names) for names in wanted])
        assert await store.get_many_async(group, []) == []
        await store.aclose()
        return found

    for _ in range(2):  # a second event loop of the same store
        assert asyncio.run(ask()) == [store.get_many(group, names) for names in wanted]
