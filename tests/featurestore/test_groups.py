"""A group's declaration: roles, stored schema, versions, and the way to the catalog and back."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.groups import EVENT_TIME_KINDS, FeatureGroup, define_group
from featurestore.keys import KEY_KINDS
from foundation.errors import InvalidInput, NotFound
from foundation.schema import Schema

COLUMNS = [
    ("country", "String"),
    ("user", "Integral"),
    ("at", "Timestamp"),
    ("age", "Integral"),
    ("tags", "Set<String>"),
]


def _define(**options) -> FeatureGroup:
    given_ = {"record_id": ["user", "country"], "event_time": "at", "schema": Schema.of(COLUMNS), "number": 3, "now": 9}
    return define_group("users", **(given_ | options))


def test_roles_and_names_follow_the_declaration() -> None:
    group = _define()
    assert group.record_id == ("user", "country")
    assert [column.name for column in group.key_columns] == ["user", "country"]
    assert group.names == ("country", "user", "at", "age", "tags")
    assert group.feature_names == ("age", "tags")
    assert (group.number, group.created_at, group.version) == (3, 9, 1)
    assert group.folder == "users-9"
    assert _define(record_id="user").record_id == ("user",)


@pytest.mark.parametrize("kind", EVENT_TIME_KINDS)
def test_the_event_time_is_stored_as_a_timestamp_whatever_it_was_declared(kind: str) -> None:
    group = _define(schema=Schema.of([("user", "Integral"), ("at", kind)]), record_id="user")
    assert group.schema.get("at").type.name == "Timestamp"
    assert group.feature("at").type.name == kind


@pytest.mark.parametrize(
    "kind",
    [
        "Integral",
        "Fractional",
        "String",
        "Boolean",
        "Timestamp",
        "Date",
        "Decimal(5, 2)",
        "List<String>",
        "Vector(2)",
        "Struct<a: Integral>",
    ],
)
def test_identifiers_are_of_types_with_dependable_equality(kind: str) -> None:
    schema = Schema.of([("id", kind), ("at", "Timestamp")])
    if kind in KEY_KINDS:
        assert _define(schema=schema, record_id="id").key_columns[0].type.name == kind
    else:
        with pytest.raises(InvalidInput, match="record_id column 'id' is") as caught:
            _define(schema=schema, record_id="id")
        assert caught.value.subject == "column 'id'"


@pytest.mark.parametrize("kind", ["Boolean", "Date", "List<Integral>", "Decimal(5, 2)"])
def test_an_event_time_must_tell_a_moment(kind: str) -> None:
    with pytest.raises(InvalidInput, match="event_time column 'at' is"):
        _define(schema=Schema.of([("user", "Integral"), ("at", kind)]), record_id="user")


def test_a_group_has_at_most_2500_columns() -> None:
    columns = [("user", "Integral"), ("at", "Timestamp"), *((f"f{n}", "Integral") for n in range(2498))]
    assert len(_define(schema=Schema.of(columns), record_id="user").features) == 2500
    with pytest.raises(InvalidInput, match="2501 features"):
        _define(schema=Schema.of([*columns, ("one", "Integral")]), record_id="user")


def test_added_features_come_last_and_leave_the_group_as_it_was() -> None:
    first = _define()
    second = first.with_features(Schema.of([("a", "Integral"), ("b", "String")]), now=20)
    third = second.with_features(Schema.of([("c", "Date")]), now=30)
    assert first.names == third.columns_at(1)
    assert second.names == third.columns_at(2)
    assert third.names == third.columns_at(3) == (*first.names, "a", "b", "c")
    assert (third.version, third.updated_at, third.created_at) == (3, 30, 9)
    for bad in ([("age", "Integral")], [("write_time", "Integral")], []):
        with pytest.raises(InvalidInput):
            third.with_features(Schema.of(bad), now=40)


def test_a_feature_is_found_or_a_close_one_named() -> None:
    assert _define().feature("age").name == "age"
    with pytest.raises(NotFound, match="did you mean 'age'"):
        _define().feature("aeg")


@given(
    ttl=st.none() | st.timedeltas(timedelta(microseconds=1), timedelta(days=36500)),
    on_equal=st.sampled_from(["keep", "replace"]),
    zone=st.none() | st.just("Europe/Paris"),
    description=st.text(max_size=20).filter(lambda text: text.isprintable()),
    tags=st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=3),
    parameters=st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=5), max_size=3),
    stores=st.sampled_from([(True, True), (True, False), (False, True)]),
)
def test_a_group_reads_back_from_its_document(ttl, on_equal, zone, description, tags, parameters, stores) -> None:
    group = _define(
        ttl=ttl,
        on_equal=on_equal,
        zone=zone,
        description=description,
        tags=tags,
        parameters={"age": parameters},
        descriptions={"tags": description},
        online=stores[0],
        offline=stores[1],
    ).with_features(Schema.of([("v", "Vector(3)"), ("s", "Struct<a: Integral, b: List<String>>")]), now=50)
    assert FeatureGroup.from_document(json.loads(json.dumps(group.to_document()))) == group


def test_a_group_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        _define().name = "other"
