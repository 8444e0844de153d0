"""Online reads: one, many, listed, async; status, age and expiry; wrong questions."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

import featurestore
from foundation.clock import Clock, instant_of
from foundation.errors import InvalidInput, NotFound, NotSupported

START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = pa.schema([("id", pa.int64()), ("ts", pa.timestamp("us", tz="UTC")), ("x", pa.float64()), ("s", pa.string())])


class Now:
    def __init__(self):
        self.moment = START + timedelta(days=10)
        self.ticks = itertools.count()

    def __call__(self):
        return instant_of(self.moment) + next(self.ticks)


@pytest.fixture
def now():
    return Now()


@pytest.fixture(params=["embedded", "redis"])
def store(request, tmp_path, now):
    online = "embedded:" if request.param == "embedded" else request.getfixturevalue("valkey").url
    with featurestore.open(tmp_path / "ws", online=online, clock=Clock(now)) as opened:
        opened.create_group("g", record_id="id", event_time="ts", schema=SCHEMA)
        opened.create_group("pair", record_id=["id", "s"], event_time="ts", schema=SCHEMA)
        yield opened


def record(key, **cells):
    return {"id": key, "ts": START, "x": 1.0, "s": "a"} | cells


def test_a_record_comes_back_as_it_was_put(store):
    store.put_record("g", record(1))
    assert store.get_record("g", 1) == record(1)
    assert store.get_record("g", 1, features=["x"]) == {"x": 1.0}
    assert store.get_record("g", 2) is None


def test_composite_keys_are_tuples_in_identifier_order(store):
    store.put_record("pair", record(1, s="23"))
    store.put_record("pair", record(12, s="3"))
    assert store.get_record("pair", (1, "23"))["id"] == 1
    assert store.get_record("pair", (12, "3"))["id"] == 12
    assert store.get_record("pair", (12, "23")) is None


def test_status_age_and_expiry(store, now):
    store.put_record("g", record(1), ttl=timedelta(days=20))
    store.put_record("g", record(2), ttl=timedelta(days=5))
    store.put_record("g", record(3))
    store.delete_record("g", 3, START + timedelta(days=1))
    found = [store.lookup("g", key) for key in (1, 2, 3, 4)]
    assert [answer.status for answer in found] == ["present", "expired", "deleted", "missing"]
    assert found[0].event_time == START
    assert found[0].expires_at == START + timedelta(days=20)
    assert timedelta(days=10) <= found[0].age < timedelta(days=10, seconds=1)
    assert [answer.record is not None for answer in found] == [True, False, False, False]
    now.moment += timedelta(days=11)
    assert store.get_record("g", 1) is None
    assert store.lookup("g", 1).status == "expired"


def test_many_keys_of_many_groups_with_an_error_of_their_own(store):
    store.put_records("g", [record(1), record(2, x=2.0)])
    store.put_record("pair", record(7))
    answers = store.get_records(
        [("g", [1, "no", 9, 2], ["x"]), ("pair", [(7, "a")]), ("nowhere", [1]), ("g", [1], ["y"])]
    )
    assert [answer.error is None for answer in answers] == [True, False, True, True, True, False, False]
    assert [a.answer.status for a in answers if a.answer] == ["present", "missing", "present", "present"]
    assert answers[0].answer.record == {"x": 1.0}
    assert [answers[place].code for place in (1, 5, 6)] == ["invalid_input", "not_found", "invalid_input"]


def test_listing_pages_through_every_key_once(store):
    store.put_records("g", [record(key) for key in range(25)])
    store.delete_record("g", 3, START + timedelta(days=1))
    seen, token = [], None
    while True:
        page = store.list_records("g", limit=7, token=token)
        assert len(page.keys) <= 7
        seen += page.keys
        token = page.next_token
        if token is None:
            break
    assert sorted(seen) == [key for key in range(25) if key != 3]
    assert 3 in store.list_records("g", limit=100, include_deleted=True).keys


def test_async_reads_answer_alike(store):
    store.put_records("g", [record(key) for key in range(50)])

    async def read():
        try:
            return await asyncio.gather(*(store.get_record_async("g", key) for key in range(51)))
        finally:
            await store.aclose()

    found = asyncio.run(read())
    assert found[:50] == [record(key) for key in range(50)]
    assert found[50] is None


@pytest.mark.parametrize("key", ["1", 1.0, None, (1, 2), True, 2**63])
def test_keys_that_do_not_fit_are_refused(store, key):
    with pytest.raises(InvalidInput):
        store.get_record("g", key)


def test_wrong_questions_are_typed(store):
    with pytest.raises(NotFound):
        store.get_record("h", 1)
    with pytest.raises(InvalidInput, match="nothing"):
        store.get_record("g", 1, features=["nothing"])
    with pytest.raises(InvalidInput, match="token"):
        store.list_records("g", token="é")
    with pytest.raises(InvalidInput, match="limit"):
        store.list_records("g", limit=0)
    store.create_group("offline", record_id="id", event_time="ts", schema=SCHEMA, online=False)
    with pytest.raises(NotSupported):
        store.get_record("offline", 1)


def test_history_answers_for_another_moment(store, now):
    store.put_record("g", record(1, x=1.0))
    then = now.moment + timedelta(seconds=30)
    now.moment += timedelta(minutes=1)
    store.put_record("g", record(1, ts=START + timedelta(days=1), x=2.0))
    assert store.get_record("g", 1, ["x"]) == {"x": 2.0}
    assert store.get_record("g", 1, ["x"], as_of=then) == {"x": 1.0}
    assert store.get_record("g", 1, ["x"], at=START + timedelta(hours=1)) == {"x": 1.0}
    assert store.get_record("g", 1, at=START - timedelta(hours=1)) is None
    assert store.history("g", 1, as_of=then).num_rows == 1
