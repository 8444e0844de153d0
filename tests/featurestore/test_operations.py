"""The whole store through its operations: any sequence of them must leave what plain loops over the writes say."""

import itertools
from datetime import UTC, datetime, timedelta

import oracle
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import featurestore
from featurestore.pit.questions import Asked
from foundation.clock import Clock, instant_of
from foundation.errors import Conflict

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 6, 1, tzinfo=UTC)
SCHEMA = pa.schema(
    [("user", pa.int64()), ("item", pa.string()), ("ts", pa.timestamp("us", tz="UTC")), ("x", pa.float64())]
)
KEYS = [(1, "a"), (1, "b"), (23, "a"), (2, "3a")]
HOURS = st.integers(0, 6)


def at(hours):
    return START + timedelta(hours=hours)


def clock():
    ticks = itertools.count(instant_of(NOW))
    return Clock(lambda: next(ticks))


puts = st.tuples(
    st.just("put"),
    st.lists(st.tuples(st.sampled_from(KEYS), HOURS, st.floats(-5, 5)), min_size=1, max_size=4),
    st.sampled_from([None, None, None, timedelta(hours=2), timedelta(days=400)]),
    st.sampled_from([None, None, None, ("online",), ("offline",)]),
)
loads = st.tuples(
    st.just("ingest"),
    st.lists(st.tuples(st.sampled_from(KEYS), HOURS, st.floats(-5, 5)), min_size=1, max_size=6),
    st.just(None),
    st.just(None),
)
deletes = st.tuples(st.just("delete"), st.sampled_from(KEYS), HOURS, st.booleans())
cares = st.tuples(st.sampled_from(["flush", "compact", "reopen", "rebuild"]))
steps = st.lists(st.one_of(puts, puts, loads, deletes, cares), min_size=1, max_size=14)


class Model:
    """Every accepted write, in order."""

    def __init__(self, on_equal):
        self.sign = 1 if on_equal == "replace" else -1
        self.rows = []
        self.sequence = 0

    def write(self, key, hours, value, *, ttl=None, deleted=False, hard=False, targets=None):
        self.sequence += 1
        event = instant_of(at(hours))
        self.rows.append(
            (
                oracle.Rec(
                    key=key,
                    event=event,
                    rank=self.sign * self.sequence,
                    write=self.sequence,
                    deleted=deleted,
                    hard=hard,
                    expires=None if ttl is None else event + ttl // timedelta(microseconds=1),
                    values={"x": value},
                ),
                targets or ("online", "offline"),
            )
        )

    def online(self, key):
        """The row held online, found by one loop over the writes."""
        held = None
        for row, targets in self.rows:
            if row.key != key or "online" not in targets:
                continue
            if row.hard:
                held = None
            elif held is None or (row.event, row.rank) > (held.event, held.rank):
                held = row
        return held

    def offline(self, key):
        return [row for row, targets in self.rows if row.key == key and "offline" in targets]

    def served(self, key):
        held = self.online(key)
        if held is None or held.deleted or (held.expires is not None and held.expires <= instant_of(NOW)):
            return None
        return held.values["x"]


def run(store, model, step, reopen):
    kind = step[0]
    if kind in ("put", "ingest"):
        _, records, ttl, targets = step
        rows = [{"user": key[0], "item": key[1], "ts": at(hours), "x": value} for key, hours, value in records]
        if kind == "put":
            store.put_records("g", rows, ttl=ttl, target_stores=targets)
        else:
            store.ingest("g", pa.Table.from_pylist(rows, schema=SCHEMA), again=True)
        for key, hours, value in records:
            model.write(key, hours, value, ttl=ttl, targets=targets)
    elif kind == "delete":
        _, key, hours, hard = step
        held = model.online(key)
        if hard and held is not None and held.event >= instant_of(at(hours)):
            with pytest.raises(Conflict):
                store.delete_record("g", key, at(hours), hard=True)
        else:
            store.delete_record("g", key, at(hours), hard=hard)
            model.write(key, hours, None, deleted=True, hard=hard)
    elif kind == "reopen":
        store.close()
        return reopen()
    elif kind == "flush":
        store.flush()
    elif kind == "compact":
        store.compact("g")
    elif not any("offline" not in targets for _, targets in model.rows):
        store.rebuild("g")
    return store


def check(store, model):
    for key in KEYS:
        got = store.get_record("g", key)
        assert (None if got is None else got["x"]) == model.served(key), key
    spine = [(key, hours) for key in KEYS for hours in range(-1, 8)]
    frame = pl.DataFrame(
        {
            "user": [key[0] for key, _ in spine],
            "item": [key[1] for key, _ in spine],
            "ts": [at(hours) for _, hours in spine],
        }
    )
    got = store.dataset(frame, event_time="ts").join("g").to_arrow()
    assert got.num_rows == len(spine)
    for (key, hours), x in zip(spine, got.column("x").to_pylist(), strict=True):
        asked = Asked(features=("x",))
        found, _ = oracle.winners(model.offline(key), asked, key, instant_of(at(hours)), None, False)
        assert x == (found[0].values["x"] if found else None), (key, hours)
    report = store.verify("g")
    assert report.ok, report.differences


def scenario(place, online, on_equal, actions):
    def reopen():
        return featurestore.open(place, online=online, clock=clock())

    store = reopen()
    store.create_group("g", record_id=["user", "item"], event_time="ts", schema=SCHEMA, on_equal=on_equal)
    model = Model(on_equal)
    try:
        for step in actions:
            store = run(store, model, step, reopen)
        check(store, model)
    finally:
        store.close()


@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
@given(on_equal=st.sampled_from(["keep", "replace"]), actions=steps)
def test_any_sequence_of_operations_on_the_embedded_store(tmp_path_factory, on_equal, actions):
    scenario(tmp_path_factory.mktemp("place") / "ws", "embedded:", on_equal, actions)


@settings(max_examples=12, suppress_health_check=list(HealthCheck), deadline=None)
@given(on_equal=st.sampled_from(["keep", "replace"]), actions=steps)
def test_any_sequence_of_operations_in_front_of_redis(tmp_path_factory, valkey, on_equal, actions):
    scenario(tmp_path_factory.mktemp("place") / "ws", valkey.url, on_equal, actions)
