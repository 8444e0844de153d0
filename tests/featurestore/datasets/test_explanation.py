"""Every cell can be explained: the record, file and commit it came from, and why the others lost."""

from __future__ import annotations

import json
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from places import Place, at

from featurestore.datasets.builder import start_dataset
from foundation.errors import InvalidInput, NotFound


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    one = Place(tmp_path_factory.mktemp("place"))
    one.create("w", ["a", "b"], [("a", "Integral"), ("b", "String"), ("at", "Timestamp"), ("x", "Fractional")])
    one.write("w", [{"a": 1, "b": "p", "at": at(n), "x": float(n)} for n in range(5)])
    one.write(
        "w",
        [
            {"a": 1, "b": "p", "at": at(3), "x": 33.0, "replaces": True, "known": at(9)},
            {"a": 2, "b": "q", "at": at(1), "x": 7.0},
            {"a": 2, "b": "q", "at": at(2), "deleted": True},
        ],
    )
    yield one
    one.close()


ROWS = [
    {"left": 1, "right": "p", "ts": at(3.5)},
    {"left": 1, "right": "p", "ts": at(20)},
    {"left": 2, "right": "q", "ts": at(9)},
    {"left": None, "right": "q", "ts": at(9)},
    {"left": 9, "right": "z", "ts": at(9)},
    {"left": 1, "right": "p", "ts": None},
]


def builder_of(place, rows=ROWS, **options):
    return start_dataset(place, rows, "ts").join("w", on=["left", "right"], prefix="w_", **options)


def test_the_winner_and_why_others_lost(place):
    found = builder_of(place).explain(0, "w_x")
    assert (found.value, found.reason, found.key) == (33.0, "", (1, "p"))
    assert [(each.values["x"], each.verdict) for each in found.candidates] == [
        (4.0, "after the row's time"),
        (33.0, "won"),
        (3.0, "lower rank at the same event time"),
        (2.0, "older than what won"),
        (1.0, "older than what won"),
        (0.0, "older than what won"),
    ]
    (winner,) = found.winners
    assert found.commits[winner.run] == 2
    assert {found.commits[each.run] for each in found.candidates} == {1, 2}
    assert place.files.exists(f"{place.snapshot('w').folder}/{winner.run}")


def test_knowledge_is_part_of_the_explanation(place):
    found = builder_of(place).known_by("row").explain(0, "w_x")
    assert found.value == 3.0
    assert found.known_by == at(3.5)
    assert [each.verdict for each in found.candidates][1:3] == ["known too late", "won"]
    assert "only what was known by 2024-01-01T03:30:00+00:00" in str(found)


@pytest.mark.parametrize(
    ("row", "options", "reason", "verdicts"),
    [
        (2, {}, "deleted", ["a tombstone: no value", "older than a tombstone"]),
        (3, {}, "null key or time", []),
        (5, {}, "null key or time", []),
        (4, {}, "no record", []),
        (1, {"max_age": timedelta(hours=1)}, "too old", ["newest, but too old", *["older than what won"] * 4]),
    ],
)
def test_nulls_have_a_reason(place, row, options, reason, verdicts):
    found = builder_of(place, **options).explain(row, "w_x")
    assert (found.value, found.reason, found.winners) == (None, reason, ())
    told = [each.verdict for each in found.candidates]
    assert [each for each in told if "lower rank" not in each] == verdicts
    assert reason in str(found)


def test_lists_and_labels(place):
    found = builder_of(place, recent=2).explain(0, "w_x")
    assert found.value == [33.0, 2.0]
    assert [each.values["x"] for each in found.winners] == [33.0, 2.0]
    label = start_dataset(place, ROWS, "ts").join_label("w", on=["left", "right"], within=timedelta(hours=1))
    found = label.known_by("row").explain(0, "x")
    assert (found.value, found.winners[0].event_time) == (4.0, found.candidates[0].event_time)
    assert found.known_by is None, "labels look forward"


def test_every_cell_of_a_dataset_agrees_with_its_explanation(place, tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "s.parquet")
    for rows in (ROWS, tmp_path / "s.parquet"):
        builder = builder_of(place, rows)
        for row, value in enumerate(builder.to_arrow()["w_x"].to_pylist()):
            found = builder.explain(row, "w_x")
            assert found.value == value
            assert [each.values["x"] for each in found.winners] == ([] if value is None else [value])


def test_what_is_not_there_is_named(place):
    builder = builder_of(place)
    for row in (-1, 6, True, "0"):
        with pytest.raises(InvalidInput, match="not in the spine"):
            builder.explain(row, "w_x")
    with pytest.raises(NotFound) as caught:
        builder.explain(0, "w_xx")
    assert "did you mean 'w_x'" in caught.value.hint


def test_explanations_are_plain_json(place):
    document = json.loads(json.dumps(builder_of(place).explain(0, "w_x").to_dict()))
    assert document["key"] == [1, "p"]
    assert document["candidates"][1] | {"file": ""} == {
        "verdict": "won",
        "event_time": "2024-01-01T03:00:00+00:00",
        "value": 33.0,
        "write_time": "2024-01-01T03:00:00+00:00",
        "known_at": "2024-01-01T09:00:00+00:00",
        "declared": True,
        "expires_at": None,
        "deleted": False,
        "hard": False,
        "rank": document["candidates"][1]["rank"],
        "file": "",
        "commit": 2,
    }
