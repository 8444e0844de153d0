"""Creating, finding, changing and deleting groups in the catalog."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.administration import GROUP_KIND, Groups, infer_schema
from foundation.catalog import open_catalog
from foundation.clock import Clock, moment_of
from foundation.errors import AlreadyExists, Conflict, InvalidInput, NotFound, NotSupported, PlatformError
from foundation.schema import Schema

SCHEMA = pa.schema(
    [("user", pa.int64()), ("at", pa.timestamp("us", "UTC")), ("age", pa.int32()), ("city", pa.string())]
)
DAY = timedelta(days=1)


@pytest.fixture
def catalog(tmp_path: Path):
    opened = open_catalog(f"sqlite://{tmp_path}/catalog.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def groups(catalog) -> Groups:
    ticks = iter(range(1_000_000, 10**12, 1_000_000))
    return Groups(catalog, clock=Clock(lambda: next(ticks)), actor="ann")


def _make(groups: Groups, name: str = "users", **options):
    return groups.create(name, **{"record_id": "user", "event_time": "at", "schema": SCHEMA} | options)


def test_a_group_comes_back_as_it_was_declared(groups: Groups) -> None:
    made = _make(
        groups,
        ttl=timedelta(days=2, microseconds=3),
        on_equal="replace",
        zone="Europe/Berlin",
        description="People",
        tags={"team": "risk"},
        descriptions={"age": "in years"},
        parameters={"age": {"unit": "year"}},
    )
    assert groups.get("users") == made
    assert made.schema == Schema.of(
        [("user", "Integral"), ("at", "Timestamp"), ("age", "Integral"), ("city", "String")]
    )
    assert made.feature("age").description == "in years"
    assert made.feature("age").parameters == {"unit": "year"}
    assert (made.ttl, made.on_equal, made.zone) == (timedelta(days=2, microseconds=3), "replace", "Europe/Berlin")
    assert made.created_at == made.updated_at > 0


def test_numbers_and_folders_are_never_used_again(groups: Groups) -> None:
    first = _make(groups)
    groups.begin_delete("users")
    groups.finish_delete("users")
    second = _make(groups)
    assert second.number > first.number
    assert second.folder != first.folder
    assert groups.get("users").number == second.number


def test_a_taken_name_is_refused_and_nothing_changes(groups: Groups) -> None:
    made = _make(groups)
    with pytest.raises(AlreadyExists, match="feature group 'users' exists already"):
        _make(groups, ttl=DAY)
    assert groups.get("users") == made


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"name": "no spaces"}, InvalidInput, "feature group name 'no spaces'"),
        ({"name": "x" * 65}, InvalidInput, "65 characters"),
        ({"name": 5}, InvalidInput, "must be text"),
        ({"record_id": "usr"}, InvalidInput, "'usr' is not in the schema"),
        ({"record_id": []}, InvalidInput, "distinct columns"),
        ({"record_id": ["user", "user"]}, InvalidInput, "distinct columns"),
        ({"event_time": "when"}, InvalidInput, "'when' is not in the schema"),
        ({"event_time": "user"}, InvalidInput, "both record_id and event_time"),
        ({"online": False, "offline": False}, InvalidInput, "needs a store"),
        ({"ttl": timedelta(0)}, InvalidInput, "ttl"),
        ({"ttl": 60}, InvalidInput, "ttl 60"),
        ({"on_equal": "newest"}, InvalidInput, "on_equal 'newest'"),
        ({"description": "x" * 1025}, InvalidInput, "1025 characters"),
        ({"description": 7}, InvalidInput, "description"),
        ({"tags": {"": "x"}}, InvalidInput, "tag ''"),
        ({"tags": {"a": 1}}, InvalidInput, "tag 'a'=1"),
        ({"tags": {str(n): "x" for n in range(51)}}, InvalidInput, "51 tags"),
        ({"descriptions": {"agee": "x"}}, NotFound, "'agee' does not exist"),
        ({"descriptions": {"age": "x" * 1025}}, InvalidInput, "feature 'age' has 1025"),
        ({"parameters": {"agee": {}}}, NotFound, "'agee' does not exist"),
        ({"parameters": {"age": {"a": 1}}}, InvalidInput, "parameter 'a'=1 of feature 'age'"),
        ({"parameters": {"age": {str(n): "" for n in range(26)}}}, InvalidInput, "26 parameters"),
        ({"parameters": {"age": "unit"}}, InvalidInput, "parameters of feature 'age'"),
        ({"kind": "events"}, NotSupported, "reserved"),
        ({"event_id": "user"}, NotSupported, "reserved"),
        ({"kind": "things"}, InvalidInput, "kind 'things'"),
        ({"schema": {"user": "int"}}, InvalidInput, "cannot be read from dict"),
        ({"schema": SCHEMA.append(pa.field("raw", pa.binary()))}, InvalidInput, "column 'raw'"),
        ({"schema": SCHEMA.append(pa.field("age", pa.int64()))}, InvalidInput, "'age' is given twice"),
        ({"schema": SCHEMA.append(pa.field("write_time", pa.int64()))}, InvalidInput, "'write_time' is reserved"),
        ({"schema": SCHEMA.append(pa.field("tilth_x", pa.int64()))}, InvalidInput, "'tilth_x' is reserved"),
        ({"schema": SCHEMA.append(pa.field("a b", pa.int64()))}, InvalidInput, "'a b' is not allowed"),
        ({"schema": SCHEMA.append(pa.field("x" * 65, pa.int64()))}, InvalidInput, "65 characters"),
    ],
)
def test_a_bad_declaration_is_told_and_leaves_nothing(groups: Groups, catalog, options, error, says) -> None:
    with pytest.raises(error) as caught:
        _make(groups, **options)
    assert says in str(caught.value)
    assert groups.list().groups == ()
    assert catalog.audit() == []


def test_a_missing_group_is_told_with_a_close_name(groups: Groups) -> None:
    _make(groups)
    with pytest.raises(NotFound, match="did you mean 'users'"):
        groups.get("user")
    with pytest.raises(NotFound):
        groups.update("user", ttl=DAY)
    with pytest.raises(NotFound):
        groups.begin_delete("user")


# -- listing ----------------------------------------------------------------------------------------------------------


def _names(found) -> list[str]:
    return [group.name for group in found]


@pytest.fixture
def some(groups: Groups) -> Groups:
    _make(groups, "weather", tags={"team": "ops", "tier": "1"}, description="Hourly at airports")
    _make(groups, "users", tags={"team": "risk"}, online=False, descriptions={"city": "where they live"})
    _make(
        groups, "User-clicks", tags={"team": "risk", "tier": "1"}, offline=False, parameters={"age": {"unit": "year"}}
    )
    return groups


def test_groups_are_listed_filtered_and_sorted(some: Groups) -> None:
    assert _names(some.list().groups) == ["User-clicks", "users", "weather"]
    assert _names(some.list(sort="created_at", descending=True).groups) == ["User-clicks", "users", "weather"]
    assert _names(some.list(sort="created_at").groups) == ["weather", "users", "User-clicks"]
    assert _names(some.list(name_contains="USER").groups) == ["User-clicks", "users"]
    assert _names(some.list(tags={"team": "risk"}).groups) == ["User-clicks", "users"]
    assert _names(some.list(tags={"team": "risk", "tier": "1"}).groups) == ["User-clicks"]
    assert _names(some.list(online=True).groups) == ["User-clicks", "weather"]
    assert _names(some.list(offline=False).groups) == ["User-clicks"]
    some.update("weather", tags={"tier": "2"})
    assert _names(some.list(sort="updated_at", descending=True).groups)[0] == "weather"
    moment = moment_of(some.get("users").created_at)
    assert _names(some.list(created_after=moment).groups) == ["User-clicks", "users"]
    assert _names(some.list(created_before=moment).groups) == ["users", "weather"]
    assert _names(some.list(created_after=moment, created_before=moment).groups) == ["users"]


def test_listing_goes_on_page_by_page(some: Groups) -> None:
    seen, token = [], None
    while True:
        page = some.list(limit=1, token=token)
        seen += _names(page.groups)
        token = page.next_token
        if token is None:
            break
    assert seen == ["User-clicks", "users", "weather"]


@pytest.mark.parametrize(
    "bad",
    [
        {"sort": "ttl"},
        {"limit": 0},
        {"token": "x"},
        {"created_after": datetime(2026, 1, 1)},
        {"created_before": "2026"},
        {"tags": {"team": ["risk"]}},
    ],
)
def test_a_bad_listing_is_refused(some: Groups, bad: dict) -> None:
    with pytest.raises(InvalidInput):
        some.list(**bad)


def test_search_reads_what_people_wrote(some: Groups) -> None:
    assert _names(some.search("hourly")) == ["weather"]
    assert _names(some.search("RISK")) == ["User-clicks", "users"]
    assert _names(some.search("users")) == ["users"]
    assert _names(some.search("live where")) == ["users"]
    assert _names(some.search("year unit")) == ["User-clicks"]
    assert _names(some.search("city")) == ["User-clicks", "users", "weather"]
    assert _names(some.search("city", limit=2)) == ["User-clicks", "users"]
    assert some.search("nothing like this") == []


# -- changing ---------------------------------------------------------------------------------------------------------


def test_features_are_added_with_a_new_schema_version(groups: Groups) -> None:
    made = _make(groups)
    wider = groups.update(
        "users", add_features=pa.schema([("score", pa.float32())]), descriptions={"score": "0 to 1", "age": "years"}
    )
    assert wider == groups.get("users")
    assert (wider.version, wider.names) == (2, (*made.names, "score"))
    assert wider.columns_at(1) == made.names
    assert [wider.feature(name).since for name in ("age", "score")] == [1, 2]
    assert wider.feature("score").description == "0 to 1"
    assert (wider.number, wider.folder, wider.created_at) == (made.number, made.folder, made.created_at)
    assert wider.updated_at > made.updated_at


def test_ttl_tags_texts_and_parameters_change(groups: Groups) -> None:
    _make(groups, tags={"a": "1", "b": "2"}, parameters={"age": {"unit": "year", "old": "x"}})
    group = groups.update(
        "users",
        ttl=DAY,
        description="People",
        tags={"b": "3", "c": "4"},
        remove_tags=["a"],
        parameters={"age": {"old": None, "max": "130"}},
    )
    assert group.ttl == DAY
    assert group.description == "People"
    assert group.tags == {"b": "3", "c": "4"}
    assert group.feature("age").parameters == {"unit": "year", "max": "130"}
    assert group.version == 1
    assert groups.update("users", no_ttl=True).ttl is None
    assert groups.update("users", description="").description == ""
    assert groups.update("users", remove_tags="c").tags == {"b": "3"}


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({}, InvalidInput, "nothing to change"),
        ({"ttl": -DAY}, InvalidInput, "not a timedelta between"),
        ({"ttl": DAY, "no_ttl": True}, InvalidInput, "contradict"),
        ({"tags": {"a": "1"}, "remove_tags": ["a"]}, InvalidInput, "both set and removed"),
        ({"remove_tags": ["b"]}, NotFound, "'b' does not exist"),
        ({"add_features": pa.schema([("age", pa.int64())])}, InvalidInput, "'age' exists in group 'users'"),
        ({"add_features": pa.schema([])}, InvalidInput, "no feature to add"),
        ({"add_features": pa.schema([("is_deleted", pa.bool_())])}, InvalidInput, "reserved"),
        ({"add_features": pa.schema([(f"f{n}", pa.int64()) for n in range(2500)])}, InvalidInput, "2504 features"),
        ({"descriptions": {"agee": "x"}}, NotFound, "did you mean 'age'"),
        ({"descriptions": {"age": "x" * 1025}}, InvalidInput, "1025"),
        ({"parameters": {"age": {"k": "x" * 256}}}, InvalidInput, "parameter 'k'"),
        ({"description": "x" * 1025}, InvalidInput, "1025"),
        ({"tags": {str(n): "x" for n in range(51)}}, InvalidInput, "52 tags"),
    ],
)
def test_a_bad_change_changes_nothing(groups: Groups, options, error, says) -> None:
    made = _make(groups, tags={"a": "0"})
    with pytest.raises(error) as caught:
        groups.update("users", **({"ttl": None} | options))
    assert says in str(caught.value)
    assert groups.get("users") == made
    assert len(groups.audit("users")) == 1


def test_changes_at_once_are_all_kept(groups: Groups) -> None:
    _make(groups)
    failed: list[PlatformError] = []

    def work(who: int) -> None:
        try:
            for number in range(5):
                name = f"f{who}_{number}"
                groups.update("users", add_features=pa.schema([(name, pa.int64())]), tags={name: "x"})
        except PlatformError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    group = groups.get("users")
    wanted = {f"f{who}_{number}" for who in range(4) for number in range(5)}
    assert set(group.names) == wanted | set(SCHEMA.names)
    assert group.tags.keys() == wanted
    assert group.version == 21
    assert sorted(group.feature(name).since for name in wanted) == list(range(2, 22))


# -- deleting ---------------------------------------------------------------------------------------------------------


def test_a_delete_goes_through_a_mark_that_survives(groups: Groups, catalog) -> None:
    made = _make(groups)
    marked = groups.begin_delete("users", offline="purge")
    assert (marked.number, marked.folder) == (made.number, made.folder)
    for attempt in (lambda: groups.get("users"), lambda: groups.update("users", ttl=DAY), lambda: _make(groups)):
        with pytest.raises(Conflict, match="is being deleted"):
            attempt()
    assert groups.list().groups == ()
    assert groups.search("users") == []
    later = Groups(catalog, clock=Clock(), actor="bob")
    assert [(group.name, how) for group, how in later.deleting()] == [("users", "purge")]
    assert later.begin_delete("users", offline="purge").number == made.number
    later.finish_delete("users")
    later.finish_delete("users")
    assert later.deleting() == []
    with pytest.raises(NotFound):
        groups.get("users")
    assert [(entry.actor, entry.action) for entry in groups.audit("users")] == [
        ("bob", "delete"),
        ("ann", "begin delete"),
        ("ann", "create"),
    ]
    assert made.folder in groups.audit("users")[0].detail


def test_a_begun_delete_may_turn_into_a_purge_but_not_back(groups: Groups) -> None:
    _make(groups)
    groups.begin_delete("users")
    groups.begin_delete("users", offline="purge")
    with pytest.raises(Conflict, match="being purged"):
        groups.begin_delete("users", offline="keep")
    assert [how for _, how in groups.deleting()] == ["purge"]


def test_a_delete_must_be_begun_and_well_said(groups: Groups) -> None:
    _make(groups)
    with pytest.raises(InvalidInput, match="offline 'drop'"):
        groups.begin_delete("users", offline="drop")
    with pytest.raises(Conflict, match="not being deleted"):
        groups.finish_delete("users")
    assert groups.get("users").name == "users"


def test_the_trail_says_who_what_and_when(groups: Groups) -> None:
    _make(groups)
    groups.update("users", add_features=pa.schema([("score", pa.float64())]), ttl=DAY, tags={"team": "risk"})
    newest, oldest = groups.audit("users")
    assert (newest.actor, newest.action, newest.kind, newest.version) == ("ann", "update", GROUP_KIND, 2)
    assert newest.detail == "features score added; ttl 1 day, 0:00:00; tag team = risk"
    assert oldest.detail == "record_id user; event_time at; 4 columns"
    assert newest.at == groups.get("users").updated_at
    assert oldest.at == groups.get("users").created_at


# -- schemas ----------------------------------------------------------------------------------------------------------

TABLE = pa.table(
    {
        "user": pa.array([1], pa.int16()),
        "at": pa.array([datetime(2026, 1, 1, tzinfo=UTC)]),
        "v": pa.array([[1.0, 2.0]], pa.list_(pa.float32(), 2)),
        "s": ["x"],
    }
)
TYPES = {"user": "Integral", "at": "Timestamp", "v": "Vector(2)", "s": "String"}


def _types(schema: Schema) -> dict[str, str]:
    return {column.name: column.type.name for column in schema}


def test_a_schema_is_read_from_whatever_holds_one(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(TABLE, path)
    schema = infer_schema(TABLE)
    assert _types(schema) == TYPES
    assert infer_schema(schema) is schema
    frame = pl.DataFrame(TABLE)
    for source in (
        TABLE.schema,
        TABLE.to_batches()[0],
        TABLE.to_reader(),
        str(path),
        path,
        frame,
        frame.lazy(),
    ):
        assert _types(infer_schema(source)) == TYPES, type(source)
    plain = TABLE.select(["user", "at", "s"]).to_pandas()
    assert _types(infer_schema(plain)) == {"user": "Integral", "at": "Timestamp", "s": "String"}


def test_a_schema_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.parquet"
    whole = tmp_path / "whole.parquet"
    pq.write_table(TABLE, whole)
    broken.write_bytes(whole.read_bytes()[:-30])
    for path, says in (
        (broken, "not readable Parquet"),
        (tmp_path / "none.parquet", "does not exist"),
        (tmp_path, "not readable Parquet"),
    ):
        with pytest.raises(InvalidInput, match=says) as caught:
            infer_schema(path)
        assert str(path) in str(caught.value)
    with pytest.raises(InvalidInput, match="column 'm'"):
        infer_schema(pl.DataFrame({"m": [None]}))
    with pytest.raises(InvalidInput, match="Arrow cannot type"):
        infer_schema(pd.DataFrame({"m": pd.Series([1, "x", object()], dtype=object)}))
    for bad in (None, 7, [("a", "int")], b"x"):
        with pytest.raises(InvalidInput, match="cannot be read from"):
            infer_schema(bad)
