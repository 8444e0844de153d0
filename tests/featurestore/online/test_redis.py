"""What only the Redis store promises: refusals at connect, faults of the server, its commands, clusters on the move."""

import asyncio
import random
import shutil
import subprocess
import threading
import time
from itertools import count

import pytest
import servers
from hypothesis import given, settings
from hypothesis import strategies as st
from online_backends import BOTH, key, new_group, racing_rows, row

from featurestore.online.codec import stored_of
from featurestore.online.redis import RedisStore, _chains, open_store
from featurestore.records import DELETED, HARD, ONLINE, fold
from foundation.errors import AccessDenied, Conflict, InvalidInput, LimitExceeded, Unavailable

pytestmark = pytest.mark.xdist_group("redis store")  # one process starts the servers
_namespaces = count()


@pytest.fixture
def store(valkey):
    opened = RedisStore(valkey.url, f"only{next(_namespaces)}")
    yield opened
    opened.close()


@pytest.fixture
def group():
    return new_group()


@pytest.fixture
def own():
    """A server this test may kill, freeze or change."""
    with servers.required_parts(), servers.server("--enable-debug-command", "yes") as one:
        yield one


def opened(url: str, timeout: float = 5.0) -> RedisStore:
    return RedisStore(url, "suite", timeout=timeout)


def events(store: RedisStore, group, *names: str) -> list[int | None]:
    found = store.get_many(group, [key(name) for name in names])
    return [None if each is None else each.event_time for each in found]


def calls_of(server, command: str) -> int:
    """How often the server has run a command."""
    for line in server.ask("INFO", "commandstats").decode().splitlines():
        if line.startswith(f"cmdstat_{command}:"):
            return int(line.partition("calls=")[2].partition(",")[0])
    return 0


# -- leaving rows out before sending ------------------------------------------------------------------------------


@st.composite
def chains_of_one_key(draw):
    sequences = draw(st.lists(st.integers(1, 12), min_size=1, max_size=10, unique=True))
    if draw(st.booleans()):
        sequences.sort()
    return [
        row(
            "a",
            draw(st.integers(0, 3)),
            sequence * draw(st.sampled_from((1, -1))),
            draw(st.sampled_from((BOTH, BOTH, BOTH, BOTH | DELETED, BOTH | DELETED | HARD))),
        )
        for sequence in sequences
    ]


@settings(max_examples=500, deadline=None)
@given(before=chains_of_one_key(), batch=chains_of_one_key())
def test_rows_left_out_of_a_batch_could_not_have_mattered(before, batch):
    kept = _chains(batch)[key("a")]
    assert all(each in batch for each in kept)
    held = [stored_of(each) for each in before]
    assert fold(held + [stored_of(each) for each in kept]) == fold(held + [stored_of(each) for each in batch])


def test_a_history_in_order_shrinks_to_its_last_row():
    rows = [row("a", place, place + 1) for place in range(100)] + [row("b", 1, -101, BOTH & ~ONLINE)]
    assert _chains(rows) == {key("a"): [rows[99]]}


# -- connecting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_an_evicting_server_is_refused_with_setting_and_fix(own, policy):
    own.ask("CONFIG", "SET", "maxmemory-policy", policy)
    with pytest.raises(
        Conflict, match=f"maxmemory-policy '{policy}'.*CONFIG SET maxmemory-policy noeviction"
    ) as refused:
        opened(own.url)
    assert refused.value.subject == "maxmemory-policy"
    own.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    opened(own.url).close()


def test_nobody_there_is_unavailable_and_soon():
    start = time.monotonic()
    with pytest.raises(Unavailable, match="does not answer"):
        opened(f"redis://127.0.0.1:{servers.free_port()}")
    with pytest.raises(Unavailable, match="does not answer"):
        opened(f"redis+cluster://127.0.0.1:{servers.free_port()}")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:6379", "redis+cluster://127.0.0.1", "127.0.0.1:6379", "redis://h:no"]
)
def test_urls_of_no_known_form_are_refused(url):
    with pytest.raises(InvalidInput, match="url"):
        opened(url)


@pytest.mark.parametrize("namespace", ["", "a b", "{a}", "a:b", "x" * 65])
def test_namespaces_that_would_break_the_hash_tag_are_refused(namespace):
    with pytest.raises(InvalidInput, match="namespace"):
        RedisStore("redis://127.0.0.1:1", namespace)


def test_wrong_credentials_are_refused_and_never_shown(own):
    own.ask("CONFIG", "SET", "requirepass", "secret/@1")
    host = own.url.removeprefix("redis://")
    for url in (f"redis://:wrong@{host}", own.url):
        with pytest.raises(AccessDenied) as refused:
            opened(url)
        assert "wrong" not in str(refused.value).replace("WRONGPASS", "")
    store = opened(f"redis://:secret%2F%401@{host}")
    assert "secret" not in str(vars(store))
    store.apply(new_group(), [row("a", 1, -1)])
    store.close()


def test_a_replica_is_refused(own):
    replicating = servers.server("--replicaof", f"127.0.0.1 {own.port}")
    with replicating as replica, pytest.raises(Conflict, match="is a replica"):
        opened(replica.url)


def test_unix_sockets_databases_and_the_other_name(group):
    with servers.required_parts(), servers.server("--unixsocket", "link") as one:
        store = opened(one.url + "/3")
        store.apply(group, [row("a", 5, -1)])
        for url in (f"unix://{one.folder}/link?db=3", f"valkey://127.0.0.1:{one.port}/3"):
            other = open_store(url, namespace="suite")
            assert events(other, group, "a") == [5]
            assert asyncio.run(_awaited(other, group, "a")) == [5]
            other.close()
        elsewhere = opened(one.url)
        assert events(elsewhere, group, "a") == [None]
        elsewhere.close()
        store.close()


async def _awaited(store: RedisStore, group, *names: str) -> list[int | None]:
    found = await store.get_many_async(group, [key(name) for name in names])
    await store.aclose()
    return [None if each is None else each.event_time for each in found]


def test_namespaces_keep_apart(valkey, store, group):
    other = RedisStore(valkey.url, "another")
    store.apply(group, [row("a", 1, -1)], 4)
    assert (events(other, group, "a"), other.position(group), other.scan(group)) == ([None], 0, [])
    other.close()


# -- commands -----------------------------------------------------------------------------------------------------


def test_a_batch_get_is_one_command(own, group):
    store = opened(own.url)
    store.apply(group, [row(f"k{number}", number, -1 - number) for number in range(1000)])
    before = calls_of(own, "mget"), calls_of(own, "get")
    assert events(store, group, *[f"k{number}" for number in range(1000)]) == list(range(1000))
    assert (calls_of(own, "mget"), calls_of(own, "get")) == (before[0] + 1, before[1])
    store.close()


def test_concurrent_look_ups_of_a_tick_are_one_command(own, group):
    store = opened(own.url)
    store.apply(group, [row(f"k{number}", number, -1 - number) for number in range(200)])

    async def main():
        await store.get_many_async(group, [key("k0")])
        before = calls_of(own, "mget")
        found = await asyncio.gather(*[store.get_many_async(group, [key(f"k{number}")]) for number in range(200)])
        assert [each[0].event_time for each in found] == list(range(200))
        await store.aclose()
        return calls_of(own, "mget") - before

    assert asyncio.run(main()) == 1
    store.close()


def test_records_have_no_time_to_live_so_a_header_outlives_its_values(valkey, store, group):
    expired = row("a", 10, -1)._replace(expires_at=11)
    store.apply(group, [expired, row("b", 10, -2, BOTH | DELETED)])
    assert valkey.ask("INFO", "keyspace").count(b"expires=0") == valkey.ask("INFO", "keyspace").count(b"expires=")
    store.apply(group, [row("a", 9, -3), row("b", 9, -4)])
    assert events(store, group, "a", "b") == [10, 10]


def test_a_forgotten_script_is_sent_again(own, group):
    store = opened(own.url)
    for place in range(3):
        own.ask("SCRIPT", "FLUSH")
        store.apply(group, [row(f"k{number}", place, -1 - number) for number in range(250)], place + 1)
        assert store.position(group) == place + 1
    assert len(store.scan(group)) == 250
    store.close()


def test_a_key_of_another_program_in_the_way_is_named(valkey, store, group):
    store.apply(group, [row("a", 1, -1)], 1)
    (name,) = [name for name in valkey.ask("KEYS", "*") if store._namespace.encode() in name and key("a") in name]
    valkey.ask("SET", name, "something else entirely")
    with pytest.raises(Conflict, match="not written by this store"):
        store.apply(group, [row("a", 2, -2)], 2)
    with pytest.raises(Conflict, match="cannot be read"):
        store.get_many(group, [key("a")])
    assert store.position(group) == 1


def test_a_position_never_goes_back(store, group):
    store.apply(group, [], 2**44 + 9)
    store.apply(group, [], 2**44 + 8)
    assert store.position(group) == 2**44 + 9


# -- faults -------------------------------------------------------------------------------------------------------


def test_a_killed_server_that_comes_back_is_used_again(own, group):
    durable(own)
    store = opened(own.url)
    store.apply(group, [row("a", 1, -1)], 1)
    asyncio.run(_awaited(store, group, "a"))
    own.kill()
    with pytest.raises(Unavailable, match="does not answer"):
        store.apply(group, [row("a", 2, -2)], 2)
    with pytest.raises(Unavailable):
        asyncio.run(_awaited(store, group, "a"))
    own.start()
    assert (events(store, group, "a"), store.position(group)) == ([1], 1)
    assert asyncio.run(_awaited(store, group, "a")) == [1]
    store.apply(group, [row("a", 2, -2)], 2)
    assert (events(store, group, "a"), store.position(group)) == ([2], 2)
    store.close()


def test_a_restart_between_two_calls_is_not_noticed(own, group):
    store = opened(own.url)

    async def main():
        for _ in range(2):
            await store.get_many_async(group, [key("a")])
            own.kill()
            own.start()
            store.apply(group, [row("a", 1, -1)])
        assert (await store.get_many_async(group, [key("a")]))[0].event_time == 1
        await store.aclose()

    asyncio.run(main())
    assert store.position(group) == 0
    store.close()


def test_a_frozen_server_is_unavailable_within_the_timeout(own, group):
    store = opened(own.url, timeout=0.5)
    store.apply(group, [row("a", 1, -1)], 1)
    asyncio.run(_awaited(store, group, "a"))
    own.pause()
    try:
        for attempt in (
            lambda: store.get_many(group, [key("a")]),
            lambda: store.apply(group, [row("a", 2, -2)], 2),
            lambda: asyncio.run(_awaited(store, group, "a")),
        ):
            start = time.monotonic()
            with pytest.raises(Unavailable, match="does not answer"):
                attempt()
            assert time.monotonic() - start < 3
    finally:
        own.resume()
    assert events(store, group, "a")[0] in (1, 2)  # the frozen server may have read the write after all
    store.apply(group, [row("a", 2, -2)], 2)
    assert (events(store, group, "a"), store.position(group)) == ([2], 2)
    store.close()


def test_a_full_server_refuses_and_the_position_stays(own, group):
    store = opened(own.url)
    store.apply(group, [row("a", 1, -1)], 1)
    own.ask("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(LimitExceeded, match=r"out of memory.*raise maxmemory"):
        store.apply(group, [row("b", 1, -2)], 2)
    assert (events(store, group, "a"), store.position(group)) == ([1], 1)
    own.ask("CONFIG", "SET", "maxmemory", 0)
    store.apply(group, [row("b", 1, -2)], 2)
    assert (events(store, group, "a", "b"), store.position(group)) == ([1, 1], 2)
    store.close()


def durable(server) -> None:
    """Restart the server so that it answers a write only when it is on disk."""
    server.kill()
    server.options = (*server.options, "--appendonly", "yes", "--appendfsync", "always")
    server.start()


def test_kills_in_the_middle_of_writing_lose_and_double_nothing(own, group):
    """The log is applied again from the remembered position after each kill; the end is the fold."""
    durable(own)
    store = opened(own.url, timeout=2)
    chance = random.Random(3)

    def destroy():
        for _ in range(6):
            time.sleep(0.05 + chance.random() * 0.15)
            own.kill()
            own.start()

    killer = threading.Thread(target=destroy)
    killer.start()
    log, failures = [], 0
    while killer.is_alive() or _position(store, group) < len(log):
        fresh = racing_rows(keys=40, count=50, seed=len(log))
        log += [each._replace(rank=each.rank + len(log) * (1 if each.rank > 0 else -1)) for each in fresh]
        position = _position(store, group)
        try:
            store.apply(group, log[position:], len(log))
        except Unavailable:
            failures += 1
    killer.join()
    expected = {}
    for each in log:
        expected.setdefault(each.key, []).append(stored_of(each))
    assert dict(store.scan(group)) == {name: fold(chain) for name, chain in expected.items()}
    assert len(log) > 50 * 6 > failures
    store.close()


def _position(store: RedisStore, group) -> int:
    for _ in range(100):
        try:
            return store.position(group)
        except Unavailable:
            time.sleep(0.05)
    raise AssertionError("the server did not come back")


def test_an_interrupted_write_leaves_no_link_half_read(store, group):
    def broken():
        yield (("EVALSHA", "0" * 40, 1, b"x"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store._connection.exchange(broken())
    assert events(store, group, "a") == [None]


# -- clusters -----------------------------------------------------------------------------------------------------


def test_a_cluster_is_recognised_from_one_server_and_shares_the_load(valkey_cluster, group):
    store = opened(valkey_cluster.masters[1].url)
    store.apply(group, [row(f"k{number}", number, -1 - number) for number in range(600)])
    sizes = [one.ask("DBSIZE") for one in valkey_cluster.masters]
    assert min(sizes) > 100
    assert events(store, group, "k1", "none", "k599") == [1, None, 599]
    store.drop(group)
    store.close()


def test_slots_that_move_while_in_use_are_followed(group):
    with servers.required_parts(), servers.cluster() as whole:
        store = opened(whole.url)
        store.apply(group, [row(f"k{number}", 1, -1 - number) for number in range(100)], 1)
        stop = threading.Event()
        mover = threading.Thread(target=_move_slots, args=(whole, stop))
        mover.start()
        try:
            for turn in range(2, 12):
                rows = [row(f"k{number}", turn, -turn * 1000 - number) for number in range(100)]
                store.apply(group, rows, turn)
                assert events(store, group, *[f"k{number}" for number in range(100)]) == [turn] * 100
                assert asyncio.run(_awaited(store, group, "k5", "k6")) == [turn, turn]
        finally:
            stop.set()
            mover.join(60)
        assert len(store.scan(group)) == 100
        store.close()


def _move_slots(whole: servers.Cluster, stop: threading.Event) -> None:
    """Move the used slots of the first master to the second, one after the other, keys and all."""
    source, target = whole.masters[:2]
    names = [one.ask("CLUSTER", "MYID") for one in (source, target)]
    used = sorted({source.ask("CLUSTER", "KEYSLOT", name) for name in source.ask("KEYS", "*")})
    for slot in used:
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[0])
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[1])
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 10):
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            time.sleep(0.002)
        for one in (target, source):
            one.ask("CLUSTER", "SETSLOT", slot, "NODE", names[1])
        if stop.is_set():
            return


@pytest.mark.soak
def test_a_killed_master_is_replaced_and_writing_goes_on(group):
    with servers.required_parts(), servers.cluster() as whole:
        time.sleep(8)  # a replica that has not finished its first sync is not promoted
        store = opened(whole.url)
        rows = [row(f"k{number}", 1, -1 - number) for number in range(300)]
        store.apply(group, rows, 1)
        time.sleep(0.5)  # replication is asynchronous
        whole.masters[0].kill()
        start = time.monotonic()
        store_patiently(store, group, [each._replace(event_time=2, rank=each.rank - 1000) for each in rows], 2)
        assert time.monotonic() - start < 30
        assert events(store, group, *[f"k{number}" for number in range(300)]) == [2] * 300
        assert asyncio.run(_awaited(store, group, "k1", "k2", "k3")) == [2, 2, 2]
        assert store.position(group) == 2
        other = opened(whole.url)  # one of the servers named is gone
        assert len(other.scan(group)) == 300
        other.close()
        store.close()


def store_patiently(store: RedisStore, group, rows, position: int) -> None:
    for _ in range(20):
        try:
            return store.apply(group, rows, position)
        except Unavailable:
            time.sleep(0.5)
    raise AssertionError("the cluster did not recover")


# -- locale -------------------------------------------------------------------------------------------------------


def test_times_are_compared_as_numbers_under_any_locale(tmp_path, group):
    if not shutil.which("localedef"):
        pytest.skip("no localedef to compile en_US.UTF-8 with")
    made = subprocess.run(
        ["localedef", "--no-archive", "-i", "en_US", "-f", "UTF-8", str(tmp_path / "en_US.UTF-8")],
        capture_output=True,
        check=False,
    )
    if not (tmp_path / "en_US.UTF-8").exists():
        pytest.skip(f"en_US.UTF-8 cannot be compiled here: {made.stderr[-200:]!r}")
    environment = {"LC_ALL": "en_US.UTF-8", "LOCPATH": str(tmp_path)}
    with servers.required_parts(), servers.server(environment=environment) as one:
        store = opened(one.url)
        chance = random.Random(1)
        pairs = [(chance.getrandbits(52), chance.getrandbits(52)) for _ in range(2_000)]
        store.apply(group, [row(f"k{place}", first, -1 - place) for place, (first, _) in enumerate(pairs)])
        store.apply(group, [row(f"k{place}", second, -9_000 - place) for place, (_, second) in enumerate(pairs)])
        assert events(store, group, *[f"k{place}" for place in range(2_000)]) == [max(pair) for pair in pairs]
        store.close()
