"""Verify finds what differs, only what differs, also while others write; repair and rebuild set it right."""

import threading
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

import featurestore
from featurestore.online.codec import encode_values
from foundation.errors import NotSupported

START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = pa.schema([("id", pa.int64()), ("ts", pa.timestamp("us", tz="UTC")), ("x", pa.float64()), ("s", pa.string())])


def at(hours):
    return START + timedelta(hours=hours)


def record(key, hours, x=1.0, s="a"):
    return {"id": key, "ts": at(hours), "x": x, "s": s}


@pytest.fixture(params=["embedded", "redis"])
def store(request, tmp_path):
    online = "embedded:" if request.param == "embedded" else request.getfixturevalue("valkey").url
    with featurestore.open(tmp_path / "ws", online=online) as opened:
        opened.create_group("g", record_id="id", event_time="ts", schema=SCHEMA)
        opened.put_records("g", [record(key, key) for key in range(20)])
        yield opened


def held(store, key):
    parts = store._parts
    view = parts.view("g")
    canonical = view.codec.key(key)
    return parts, view.group, canonical, parts.online.get_many(view.group, [canonical])[0]


def test_agreement(store):
    report = store.verify("g")
    assert (report.ok, report.checked, report.cells, report.different) == (True, 20, 80, 0)


def lose(stored):
    return None


def change_a_value(stored):
    return stored._replace(payload=encode_values([3, stored.event_time, 99.0, "a"]))


def move_in_time(stored):
    return stored._replace(event_time=stored.event_time + 1)


def forget_a_delete(stored):
    return stored._replace(flags=stored.flags & ~1, payload=encode_values([3, stored.event_time, 1.0, "a"]))


def change_the_expiry(stored):
    return stored._replace(expires_at=stored.event_time + 5)


@pytest.mark.parametrize(
    ("damage", "what"),
    [(lose, "missing online"), (change_a_value, "x"), (move_in_time, "other record"), (change_the_expiry, "expiry")],
)
def test_each_kind_of_difference_is_found_named_and_repaired(store, damage, what):
    parts, group, key, stored = held(store, 3)
    parts.online.replace(group, key, damage(stored))
    report = store.verify("g")
    assert not report.ok
    assert [(difference.key, difference.what) for difference in report.differences] == [(3, what)]
    assert store.verify("g", repair=True).repaired == 1
    assert store.verify("g").ok
    assert store.get_record("g", 3) == record(3, 3)


def test_a_delete_served_again_is_found(store):
    store.delete_record("g", 3, at(30))
    parts, group, key, stored = held(store, 3)
    parts.online.replace(group, key, forget_a_delete(stored))
    assert [difference.what for difference in store.verify("g").differences] == ["deleted"]


def test_a_record_only_online_knows_is_found(store):
    parts, group, _, stored = held(store, 3)
    parts.online.replace(group, parts.view("g").codec.key(777), stored)
    report = store.verify("g")
    assert [(difference.key, difference.what) for difference in report.differences] == [(777, "missing offline")]
    store.verify("g", repair=True)
    assert store.get_record("g", 777) is None


def test_single_store_writes_are_counted_apart(store):
    store.put_record("g", record(3, 40), target_stores=["online"])
    store.put_record("g", record(4, 40), target_stores=["offline"])
    report = store.verify("g")
    assert (report.ok, report.single_store) == (True, 1)


def test_a_sample_is_the_same_keys_every_time(store):
    first, second = store.verify("g", sample=0.5), store.verify("g", sample=0.5)
    assert first.checked == second.checked
    assert 0 < first.checked < 20


def test_verify_agrees_while_writers_are_busy(store):
    stop = threading.Event()
    failures = []

    def write(worker):
        count = 0
        try:
            while not stop.is_set():
                count += 1
                store.put_records("g", [record(key, 50 + count, x=float(worker)) for key in range(worker, 20, 3)])
        except Exception as error:
            failures.append(error)

    writers = [threading.Thread(target=write, args=(worker,)) for worker in range(3)]
    for writer in writers:
        writer.start()
    try:
        reports = [store.verify("g") for _ in range(5)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert not failures
    assert all(report.ok for report in reports), [report.differences for report in reports if not report.ok]


def test_rebuild_online_keeps_deletes_and_barriers(store):
    store.delete_record("g", 3, at(30))
    store.delete_record("g", 4, at(30), hard=True)
    store.delete_record("g", 5, at(30), hard=True)
    store.put_record("g", record(5, 1))
    assert store.rebuild("g") > 0
    assert store.verify("g").ok
    store.put_record("g", record(3, 10))  # older than the tombstone
    assert store.get_record("g", 3) is None
    assert store.get_record("g", 5) == record(5, 1)
    store.put_record("g", record(4, 1))  # after a hard delete anything goes
    assert store.get_record("g", 4) == record(4, 1)
    assert store.verify("g").ok


def test_rebuild_offline_brings_back_what_its_files_lost(store):
    store.flush()
    store.close()
    parts_root = store.workspace.root
    with featurestore.open(parts_root) as again:
        group = again.get_group("g")
        again._parts.offline.drop(group)
    with featurestore.open(parts_root) as again:
        assert not again.verify("g").ok
        assert again.rebuild("g", "offline") == 20
        assert again.verify("g").ok
        assert again.history("g", 7).num_rows == 1


def test_a_group_of_one_store_cannot_be_compared(store):
    store.create_group("only", record_id="id", event_time="ts", schema=SCHEMA, offline=False)
    with pytest.raises(NotSupported):
        store.verify("only")
