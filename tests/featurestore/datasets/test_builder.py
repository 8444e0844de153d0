"""Datasets: one row per spine row, in order, with what each row could have known, however the result is taken out."""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import threading
from datetime import UTC, datetime, timedelta

import deltalake
import numpy as np
import oracle
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import Place, at

from featurestore.datasets.builder import start_dataset
from featurestore.datasets.building import Build
from featurestore.pit.questions import REASONS, Asked
from foundation.errors import AlreadyExists, Conflict, InvalidInput, LimitExceeded, NotFound
from foundation.progress import Cancelled

HOUR = 3_600_000_000
_names = (f"g{n}" for n in itertools.count())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    one = Place(tmp_path_factory.mktemp("place"))
    yield one
    one.close()


@pytest.fixture
def weather(place):
    """Hourly weather of one airport, its name, and a spine at half past."""
    name = next(_names)
    place.create(
        name, "airport", [("airport", "String"), ("at", "Timestamp"), ("temp", "Fractional"), ("wind", "Integral")]
    )
    place.write(name, [{"airport": "JFK", "at": at(n), "temp": n / 2, "wind": n} for n in range(10)])
    spine = pa.table({"airport": ["JFK"] * 3, "ts": pa.array([at(3.5), at(0), at(-1)], pa.timestamp("us", "UTC"))})
    return name, spine


# -- the rule ----------------------------------------------------------------------------------------------------------

HOURS = st.integers(0, 9)
ROWS = st.lists(
    st.tuples(
        st.sampled_from([(1, "23"), (1, "23"), (12, "3"), (1, "2")]),
        HOURS,
        st.integers(0, 4),
        st.sampled_from([None, None, 0, 2, 5, 9]),
        st.sampled_from([None, None, None, 4, 8]),
        st.sampled_from(["row", "row", "row", "row", "row", "soft", "hard"]),
        st.booleans(),
    ),
    min_size=4,
    max_size=20,
)
KEYS = [(1, "23"), (1, "23"), (1, "23"), (12, "3"), (1, "2"), (5, "3"), (None, "23"), (1, None)]
SPINE = st.lists(
    st.tuples(
        st.sampled_from(KEYS),
        st.sampled_from([None, *range(10), 3, 5, 6, 7, 8, 9]),
        st.sampled_from([None, *range(10), 6, 7, 8, 9]),
    ),
    min_size=3,
    max_size=12,
)
OPTIONS = st.fixed_dictionaries(
    {
        "boundary": st.sampled_from(["<=", "<"]),
        "known_by": st.sampled_from([None, None, "row", "seen"]),
        "as_of": st.sampled_from([None, None, None, 2, 6, 9]),
        "max_age": st.sampled_from([None, None, 1, 2, 4]),
        "include_deleted": st.booleans(),
        "recent": st.sampled_from([None, None, 1, 3]),
        "event_range": st.sampled_from([(None, None), (None, None), (2, None), (None, 6), (1, 7)]),
        "within": st.sampled_from([None, None, None, 2, 5]),
    }
)


def micros(hours):
    return None if hours is None else (at(hours) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def build_of(place, rows, spine, options):
    """(builder, oracle's rows) of one drawn example."""
    name = next(_names)
    place.create(name, ["a", "b"], [("a", "Integral"), ("b", "String"), ("at", "Timestamp"), ("f", "Integral")])
    kept, records = [], []
    for number, (key, event, write, known, expires, kind, replaces) in enumerate(rows, 1):
        value = None if kind != "row" or number % 3 == 0 else number
        moments = {"at": at(event), "write": at(write), "known": None if known is None else at(known)}
        moments["expires"] = None if expires is None or kind != "row" else at(expires)
        flags = {"deleted": kind != "row", "hard": kind == "hard", "replaces": replaces, "sequence": number}
        kept.append({"a": key[0], "b": key[1], "f": value, **moments, **flags})
        records.append(
            oracle.Rec(
                key,
                micros(event),
                number if replaces else -number,
                micros(write),
                micros(known),
                kind != "row",
                kind == "hard",
                micros(expires) if kind == "row" else None,
                values={"f": value},
            )
        )
    for half in (kept[::2], kept[1::2]):
        if half:
            place.write(name, half)
    stamp = pa.timestamp("us", "UTC")
    table = pa.table(
        {
            "left": pa.array([a for (a, _), _, _ in spine], pa.int32()),
            "right": pa.array([b for (_, b), _, _ in spine], pa.large_string()),
            "when": pa.array([None if t is None else at(t) for _, t, _ in spine], stamp),
            "seen": pa.array([None if k is None else at(k) for _, _, k in spine], stamp),
            "n": pa.array(range(len(spine)), pa.int16()),
        }
    )
    builder = start_dataset(place, table, "when", boundary=options["boundary"], known_by=options["known_by"])
    on = {"a": "left", "b": "right"}
    if options["within"] is not None:
        builder = builder.join_label(name, on=on, within=timedelta(hours=options["within"]))
    else:
        low, high = options["event_range"]
        builder = builder.join(
            name,
            on=on,
            max_age=None if options["max_age"] is None else timedelta(hours=options["max_age"]),
            include_deleted=options["include_deleted"],
            recent=options["recent"],
            event_range=(None if low is None else at(low), None if high is None else at(high)),
        )
    if options["as_of"] is not None:
        builder = builder.as_of(at(options["as_of"]))
    return builder, table, records


def asked_of(options):
    """The drawn options as the loops take them."""
    label = options["within"] is not None
    low, high = (micros(each) for each in options["event_range"])
    as_of = micros(options["as_of"])
    return Asked(
        features=("f",),
        inclusive=options["boundary"] == "<=",
        max_age=None if label or options["max_age"] is None else options["max_age"] * HOUR,
        as_of=as_of,
        event_range=(None, None) if label else (low, high),
        include_deleted=options["include_deleted"] and not label,
        recent=None if label else options["recent"],
        label_within=options["within"] * HOUR if label else None,
        matured_by=micros(10_000) if as_of is None else as_of,
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, spine=SPINE, options=OPTIONS, slice_rows=st.integers(1, 5))
def test_every_row_gets_what_the_loops_say(place, rows, spine, options, slice_rows):
    builder, table, records = build_of(place, rows, spine, options)
    asked = asked_of(options)
    wanted, reasons = [], []
    for (a, b), time, seen in spine:
        known = {"row": time, "seen": seen, None: None}[options["known_by"]]
        given_known = options["known_by"] is not None
        found, why = oracle.winners(records, asked, (a, b), micros(time), micros(known), given_known)
        values = [row.values["f"] for row in found]
        wanted.append(None if why else values if options["recent"] and options["within"] is None else values[0])
        reasons.append(why)
    made = builder.build()
    assert made.table["f"].to_pylist() == wanted
    assert made.table.select(table.column_names).equals(table), "the spine's columns, rows and order are as given"
    streamed = builder.batches(2, slice_rows=slice_rows).read_all()
    assert streamed.to_pydict() == made.table.to_pydict()
    (evidence,) = made.certificate.features
    assert made.certificate.passed
    assert (evidence.rows, evidence.filled) == (len(spine), sum(value is not None for value in wanted))
    counted = {reason: reasons.count(REASONS.index(reason)) for reason in evidence.nulls if reason in REASONS}
    in_record = sum(why == 0 and value is None for why, value in zip(reasons, wanted, strict=True))
    assert evidence.nulls == counted | ({"null in the record": in_record} if in_record else {})
    assert sum(evidence.nulls.values()) + evidence.filled == len(spine)


def test_rows_that_repeat_stay_apart(place, weather):
    name, spine = weather
    many = pa.concat_tables([spine, spine, spine.slice(1)])
    found = start_dataset(place, many, "ts").join(name, features="temp").to_arrow()
    assert found["temp"].to_pylist() == [1.5, 0.0, None, 1.5, 0.0, None, 0.0, None]


# -- columns and names -------------------------------------------------------------------------------------------------


def test_columns_come_as_given_then_in_join_order(place, weather):
    name, spine = weather
    given_ = spine.append_column("label", pa.array([1, 0, 1], pa.int8()))
    given_ = given_.set_column(1, "ts", pa.array(["2024-01-01T03:30:00Z", "2024-01-01T00:00:00Z", None]))
    found = (
        start_dataset(place, given_, "ts", columns=["label", "ts"])
        .join(name, prefix="last_")
        .join(name, features=["at", "temp"], recent=2, prefix="two_")
        .to_arrow()
    )
    assert found.column_names == ["label", "ts", "last_temp", "last_wind", "two_at", "two_temp"]
    assert found.schema.field("ts").type == pa.string(), "the event time column is what the caller gave"
    assert found["two_temp"].to_pylist() == [[1.5, 1.0], [0.0], None]
    assert found["two_at"].to_pylist()[0] == [at(3), at(2)]


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ({"features": ["temp"]}, "column 'temp' comes from group"),
        ({"features": ["airport"], "prefix": ""}, "column 'airport' comes from the spine"),
        ({"features": ["wind"], "prefix": "t"}, "column 'twind' comes from the split"),
    ],
)
def test_names_that_collide_are_refused(place, weather, second, told):
    name, spine = weather
    builder = start_dataset(place, spine, "ts").join(name, features=["temp"])
    builder = builder.split({"a": 0.5, "b": 0.5}, column="twind")
    with pytest.raises(InvalidInput) as caught:
        builder.join(name, **second)
    assert told in caught.value.message
    assert "prefix=" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "told", "fix"),
    [
        ({"features": ["tmp"]}, "feature 'tmp' is not in group", "did you mean 'temp'"),
        ({"features": ["temp", "temp"]}, "'temp' is asked for twice", "once"),
        ({"features": []}, "no feature", "name at least one"),
        ({"on": "nowhere"}, "no column 'nowhere'", "columns: airport, ts"),
        ({"on": ["airport", "ts"]}, "1 identifier(s)", "in that order"),
        ({"on": {"ts": "airport"}}, "does not map the identifiers", "{'airport': 'ts'}"),
        ({"on": {"code": "airport"}}, "does not map the identifiers", "record_id column to a spine column"),
        ({"on": {"airport": "ts"}}, "'ts' is timestamp", "cast 'ts' to String"),
        ({"max_age": timedelta(0)}, "max_age=", "above zero"),
        ({"max_age": 5}, "max_age=5", "timedelta"),
        ({"recent": 0}, "recent=0", "1 to 10,000"),
        ({"event_range": (datetime(2024, 1, 1), None)}, "no time zone", "tzinfo=UTC"),
        ({"event_range": (at(2), at(1))}, "ends before it starts", "(start, end)"),
    ],
)
def test_joins_that_make_no_sense_are_refused(place, weather, options, told, fix):
    name, spine = weather
    with pytest.raises(InvalidInput) as caught:
        start_dataset(place, spine, "ts").join(name, **options)
    assert told in caught.value.message
    assert fix in caught.value.hint


def test_a_mapping_the_wrong_way_round_is_explained(place, weather):
    name, spine = weather
    turned = spine.rename_columns(["origin", "ts"])
    with pytest.raises(InvalidInput) as caught:
        start_dataset(place, turned, "ts").join(name, on={"origin": "airport"})
    assert "wrong way round: write {'airport': 'origin'}" in caught.value.hint
    assert start_dataset(place, turned, "ts").join(name, on={"airport": "origin"}).to_arrow().num_rows == 3


def test_unknown_groups_and_options(place, weather):
    name, spine = weather
    builder = start_dataset(place, spine, "ts")
    with pytest.raises(NotFound, match="does not exist"):
        builder.join("nothing")
    with pytest.raises(InvalidInput, match="boundary '=<'"):
        builder.boundary("=<")
    with pytest.raises(InvalidInput, match="no time zone"):
        builder.as_of(datetime(2024, 1, 1))
    with pytest.raises(InvalidInput, match="no column 'later'"):
        builder.known_by("later")
    with pytest.raises(InvalidInput, match="within="):
        builder.join_label(name, within=timedelta(-1))
    with pytest.raises(InvalidInput, match="no split"):
        builder.to_splits()


def test_builders_do_not_change(place, weather):
    name, spine = weather
    first = start_dataset(place, spine, "ts")
    second = first.join(name)
    third = second.boundary("<").as_of(at(100)).known_by("row")
    assert first.joins == ()
    assert (second.options.inclusive, second.options.as_of, second.options.known_by) == (True, None, None)
    assert third.joins == second.joins
    assert first.to_arrow().column_names == ["airport", "ts"]


def test_a_group_made_anew_is_not_joined_by_its_name(place, weather):
    name, spine = weather
    builder = start_dataset(place, spine, "ts").join(name)
    old = place.groups[name]
    place.create(name, "airport", [("airport", "String"), ("at", "Timestamp"), ("temp", "Fractional")])
    assert place.groups[name].number != old.number
    with pytest.raises(Conflict, match="made anew"):
        builder.to_arrow()


# -- ways out ----------------------------------------------------------------------------------------------------------


def test_all_ways_out_give_the_same(place, weather, tmp_path):
    name, spine = weather
    builder = start_dataset(place, spine, "ts").join(name)
    table = builder.to_arrow()
    assert pl.DataFrame(pl.from_arrow(table)).equals(builder.to_polars())
    assert builder.to_pandas()["temp"].tolist()[:2] == [1.5, 0.0]
    assert builder.write_parquet(tmp_path / "new" / "d.parquet") == 3
    assert (
        pq.read_table(tmp_path / "new" / "d.parquet")
        .replace_schema_metadata(None)
        .equals(table.replace_schema_metadata(None))
    )
    assert builder.write_delta(tmp_path / "delta", slice_rows=2) == 3
    read = pl.read_delta(str(tmp_path / "delta"))
    assert read.sort("ts").equals(builder.to_polars().sort("ts"))
    assert len(deltalake.DeltaTable(str(tmp_path / "delta")).file_uris()) == 2
    with pytest.raises(AlreadyExists):
        builder.write_delta(tmp_path / "delta")


def test_metadata_says_what_was_null(place, weather, tmp_path):
    name, _ = weather
    spine = pa.table({"airport": ["JFK", None, "JFK"], "ts": [1.0, 2.0, None]})
    builder = start_dataset(place, spine, "ts").join(name)
    note = json.loads(builder.to_arrow().schema.metadata[b"tilth.dataset"])
    assert (note["rows"], note["null_times"]) == (3, 1)
    assert note["null_keys"] == [{"group": name, "on": {"airport": "airport"}, "rows": 1}]
    assert note["table_versions"] == {name: place.snapshot(name).version}
    builder.write_parquet(tmp_path / "d.parquet", slice_rows=1)
    assert json.loads(pq.read_metadata(tmp_path / "d.parquet").metadata[b"tilth.dataset"]) == note


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_batches_have_the_size_asked_for(place, weather, size, tmp_path):
    name, _ = weather
    pq.write_table(pa.table({"airport": ["JFK"] * 23, "ts": [float(n) for n in range(23)]}), tmp_path / "s.parquet")
    builder = start_dataset(place, tmp_path / "s.parquet", "ts").join(name)
    sizes = [batch.num_rows for batch in builder.batches(size, slice_rows=5)]
    assert sizes == [min(size, 23 - start) for start in range(0, 23, size)]


def test_splits_are_a_column_or_tables(place, weather):
    name, spine = weather
    many = pa.concat_tables([spine] * 50)
    builder = start_dataset(place, many, "ts").join(name).split({"train": 0.7, "test": 0.3}, seed=2)
    table = builder.to_arrow()
    parts = builder.to_splits()
    assert {name: part.num_rows for name, part in parts.items()} == {
        name: table["split"].to_pylist().count(name) for name in ("train", "test")
    }
    assert sum(part.num_rows for part in parts.values()) == 150


class Counting:
    def __init__(self):
        self.told = []

    def start(self, total, unit):
        self.told.append(("start", total, unit))

    def advance(self, count):
        self.told.append(("advance", count))

    def done(self):
        self.told.append(("done",))


def test_progress_adds_up(place, weather, tmp_path):
    name, spine = weather
    seen = Counting()
    many = pa.concat_tables([spine] * 5)
    start_dataset(place, many, "ts").join(name).write_parquet(tmp_path / "d.parquet", slice_rows=4, progress=seen)
    assert seen.told[0] == ("start", 15, "rows")
    assert seen.told[-1] == ("done",)
    assert sum(step[1] for step in seen.told if step[0] == "advance") == 15


@pytest.mark.parametrize("way", ["write_parquet", "write_delta"])
def test_cancelling_leaves_nothing_behind(place, weather, tmp_path, way):
    name, spine = weather
    builder = start_dataset(place, pa.concat_tables([spine] * 5), "ts").join(name)
    cancel = threading.Event()

    class Stop(Counting):
        def advance(self, count):
            cancel.set()

    with pytest.raises(Cancelled):
        getattr(builder, way)(tmp_path / "out", slice_rows=2, progress=Stop(), cancel=cancel)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_can_be_cancelled_or_closed(place, weather):
    name, spine = weather
    builder = start_dataset(place, pa.concat_tables([spine] * 5), "ts").join(name)
    cancel = threading.Event()
    reader = builder.batches(2, slice_rows=2, cancel=cancel)
    assert reader.read_next_batch().num_rows == 2
    cancel.set()
    with pytest.raises(Cancelled):
        reader.read_all()
    other = builder.batches(2, slice_rows=2)
    other.read_next_batch()
    other.close()


def test_what_stood_there_stays_when_writing_fails(place, weather, tmp_path):
    name, _ = weather
    (tmp_path / "d.parquet").write_bytes(b"before")
    spine = pa.table({"airport": ["JFK"] * 4, "ts": ["2024-01-01T00:00:00Z"] * 3 + ["late"]})
    with pytest.raises(InvalidInput, match="row 3"):
        start_dataset(place, spine, "ts").join(name).write_parquet(tmp_path / "d.parquet", slice_rows=2)
    assert (tmp_path / "d.parquet").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["d.parquet"]


def test_a_spine_file_that_changes_meanwhile_is_noticed(place, weather, tmp_path):
    name, spine = weather
    pq.write_table(spine, tmp_path / "s.parquet")
    builder = start_dataset(place, tmp_path / "s.parquet", "ts").join(name)
    pq.write_table(spine.slice(1), tmp_path / "s.parquet")
    with pytest.raises(Conflict, match="had 3 rows and now has 2"):
        builder.to_arrow()


def test_types_delta_lacks_are_widened_or_refused(place, weather, tmp_path):
    name, spine = weather
    odd = spine.append_column("u", pa.array([1, 2, 3], pa.uint16())).append_column(
        "d", pa.array(["x", "y", None]).dictionary_encode()
    )
    start_dataset(place, odd, "ts").join(name).write_delta(tmp_path / "t")
    read = pl.read_delta(str(tmp_path / "t"))
    assert read["u"].to_list() == [1, 2, 3]
    assert read["d"].to_list() == ["x", "y", None]
    refused = spine.append_column("span", pa.array([timedelta(1)] * 3))
    with pytest.raises(InvalidInput, match="'span' is duration"):
        start_dataset(place, refused, "ts").join(name).write_delta(tmp_path / "u")
    assert not (tmp_path / "u").exists()


@contextlib.contextmanager
def small_files(limit):
    """No file may grow beyond a limit, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("way", ["write_parquet", "write_delta", "save"])
def test_a_full_disk_is_named_and_nothing_is_left(place, weather, tmp_path, way):
    name, _ = weather
    rng = np.random.default_rng(0)
    spine = pa.table(
        {"airport": ["JFK"] * 400_000, "ts": rng.uniform(0, 1e9, 400_000), "x": rng.uniform(0, 1, 400_000)}
    )
    builder = start_dataset(place, spine, "ts").join(name)
    target = "full" if way == "save" else tmp_path / "out"
    with small_files(3 << 20), pytest.raises(LimitExceeded, match="no space left"):
        getattr(builder, way)(target, slice_rows=400_000)
    assert list(tmp_path.iterdir()) == []
    assert not place.files.exists("datasets/full")
    assert place.catalog.find("dataset in the making").entries == ()


def test_one_row_too_few_from_below_is_an_error(place, weather, monkeypatch):
    """Should the join ever lose a row, no dataset comes out."""
    from featurestore.datasets import building

    name, spine = weather
    whole = building.answer

    def losing(snapshot, asked, rows, **options):
        import dataclasses

        got = whole(snapshot, asked, rows, **options)
        return dataclasses.replace(got, columns=got.columns.slice(1))

    monkeypatch.setattr(building, "answer", losing)
    with pytest.raises(Exception, match="gave 2 rows for 3"):
        start_dataset(place, spine, "ts").join(name).to_arrow()
    assert isinstance(start_dataset(place, spine, "ts").pin(), Build)
