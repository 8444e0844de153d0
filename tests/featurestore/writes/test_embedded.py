"""The embedded log: sequences, producers, idempotency keys, group commit, staleness."""

import itertools
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.groups import define_group
from featurestore.online.embedded import DATABASES as STORE_DATABASES
from featurestore.online.embedded import EmbeddedStore
from featurestore.records import OFFLINE, ONLINE, Row
from featurestore.values import ValueCodec
from featurestore.writes import Append, Stale
from featurestore.writes.embedded import DATABASES, EPOCH_SHIFT, EmbeddedLog
from foundation.clock import Clock
from foundation.errors import Conflict, LimitExceeded
from foundation.lmdb import Environment
from foundation.schema import Schema

SCHEMA = Schema.from_arrow(pa.schema([("id", pa.int64()), ("ts", pa.timestamp("us", tz="UTC")), ("x", pa.float64())]))
DAY = 24 * 3600 * 1_000_000


class Place:
    def __init__(self, folder: Path) -> None:
        self.moment = 1_700_000_000_000_000
        ticks = itertools.count()
        databases = tuple(dict.fromkeys((*STORE_DATABASES, *DATABASES)))
        self.environment = Environment.share(folder, databases=databases, map_size=1 << 30)
        self.store = EmbeddedStore(self.environment)
        self.log = EmbeddedLog(self.environment, Clock(lambda: self.moment + next(ticks)), store=self.store)
        self.group = define_group("g", record_id="id", event_time="ts", schema=SCHEMA, number=1)
        self.codec = ValueCodec(self.group)

    def row(self, key, event, x=1.0):
        return Row(self.codec.key(key), event, -1, ONLINE | OFFLINE, 0, None, 0, 0, 1, [key, event, x])


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path / "log")
    yield made
    made.environment.release()


def test_sequences_rise_by_one_from_the_first_epoch(place):
    first = place.log.append(Append(place.group, [place.row(1, 10), place.row(2, 10)]))
    second = place.log.append(Append(place.group, [place.row(3, 10)]))
    assert first.position == (1 << EPOCH_SHIFT) + 2
    assert second.position == first.position + 1
    assert [sequence for sequence, _ in place.log.read(place.group, 0)] == [
        first.position - 1,
        first.position,
        second.position,
    ]
    assert [abs(row.rank) for _, row in place.log.read(place.group, first.position)] == [second.position]


def test_reserved_sequences_are_never_given_to_a_row(place):
    start = place.log.reserve(place.group, 100)
    receipt = place.log.append(Append(place.group, [place.row(1, 10)]))
    assert receipt.position == start + 100
    assert place.log.head(place.group) == receipt.position


def test_write_times_rise_with_the_sequence(place):
    for _ in range(5):
        place.log.append(Append(place.group, [place.row(1, 10)]))
    times = [row.write_time for _, row in place.log.read(place.group, 0)]
    assert times == sorted(set(times))


def test_a_producer_applies_once_and_in_order(place):
    assert not place.log.append(Append(place.group, [place.row(1, 1)], producer=("p", 1))).repeated
    again = place.log.append(Append(place.group, [place.row(1, 1)], producer=("p", 1)))
    assert again.repeated
    with pytest.raises(Conflict, match="sent 3 after 1"):
        place.log.append(Append(place.group, [place.row(1, 2)], producer=("p", 3)))
    assert place.log.seen(place.group, "p") == 1
    assert place.log.seen(place.group, "other") == 0
    assert len(place.log.read(place.group, 0)) == 1


def test_an_idempotency_key_returns_the_first_receipt_for_a_day(place):
    first = place.log.append(Append(place.group, [place.row(1, 1)], request="k"))
    again = place.log.append(Append(place.group, [place.row(1, 2)], request="k"))
    assert (again.position, again.repeated) == (first.position, True)
    place.moment += DAY + 1_000_000
    later = place.log.append(Append(place.group, [place.row(1, 3)], request="k"))
    assert not later.repeated
    assert len(place.log.read(place.group, 0)) == 2


def test_old_idempotency_keys_are_forgotten_with_the_log(place):
    place.log.append(Append(place.group, [place.row(1, 1)], request="k"))
    place.moment += 2 * DAY
    place.log.trim(place.group, place.log.head(place.group))
    with place.environment.begin() as transaction:
        assert transaction.stat(place.environment.databases["requests"])["entries"] == 0


def test_a_conflict_leaves_the_other_batches_of_the_commit_alone(place):
    batches = [Append(place.group, [place.row(key, 1)], producer=(f"p{key}", 1 + key % 2)) for key in range(20)]
    errors = []

    def write(batch):
        try:
            place.log.append(batch)
        except Conflict as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 10
    assert sorted(row.values[0] for _, row in place.log.read(place.group, 0)) == list(range(0, 20, 2))


def test_many_threads_share_commits_and_lose_nothing(place):
    def write(worker):
        for count in range(25):
            place.log.append(Append(place.group, [place.row(worker * 100 + count, 5)]))

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pairs = place.log.read(place.group, 0)
    assert len(pairs) == 200
    assert [sequence for sequence, _ in pairs] == list(range(pairs[0][0], pairs[0][0] + 200))
    assert all(place.store.get_many(place.group, [row.key])[0] is not None for _, row in pairs)


def test_a_batch_written_against_an_old_catalogue_is_stale(place):
    place.log.mirror(7)
    with pytest.raises(Stale):
        place.log.append(Append(place.group, [place.row(1, 1)], generation=6))
    place.log.append(Append(place.group, [place.row(1, 1)], generation=7))
    assert place.log.generation == 7


def test_trim_and_drop_touch_one_group(place):
    other = define_group("h", record_id="id", event_time="ts", schema=SCHEMA, number=2)
    last = place.log.append(Append(place.group, [place.row(1, 1), place.row(2, 1)])).position
    place.log.append(Append(other, [place.row(1, 1)], producer=("p", 1)))
    place.log.trim(place.group, last - 1)
    assert [sequence for sequence, _ in place.log.read(place.group, 0)] == [last]
    place.log.drop(place.group)
    assert place.log.read(place.group, 0) == []
    assert len(place.log.read(other, 0)) == 1
    assert place.log.seen(other, "p") == 1
    assert place.log.head(place.group) == last


def test_one_environment_is_shared_and_closed_with_its_last_holder(tmp_path):
    first, second = (Environment.share(tmp_path / "e", databases=("a",), map_size=1 << 20) for _ in range(2))
    assert first is second
    first.release()
    with second.write() as transaction:
        transaction.put(b"k", b"v", db=second.databases["a"])
    second.release()
    third = Environment.share(tmp_path / "e", databases=("a",), map_size=1 << 20)
    assert third is not first
    third.release()


def test_a_full_map_is_a_typed_error_and_nothing_is_written(tmp_path):
    environment = Environment.share(tmp_path / "e", databases=("a",), map_size=1 << 17)

    def fill():
        with environment.write() as transaction:
            for count in range(1000):
                transaction.put(str(count).encode(), b"x" * 1000, db=environment.databases["a"])

    with pytest.raises(LimitExceeded, match="map"):
        fill()
    with environment.begin() as transaction:
        assert transaction.stat(environment.databases["a"])["entries"] == 0
    environment.release()
