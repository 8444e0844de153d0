"""Suites: read from Great Expectations' JSON, checked in one pass, results in its form, and the gate they make.

What each expectation means is held against Great Expectations itself in test_gx.py.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from foundation.checks import Expectation, Outcome, Suite
from foundation.engines.memory import cells_to_arrow
from foundation.errors import InvalidInput
from foundation.expectations import NATIVE

TABLE = pa.table(
    {
        "id": ["a", "b", "c", "d"],
        "n": pa.array([1, 5, None, 5], pa.int64()),
        "x": [0.5, float("nan"), 2.5, 9.0],
        "t": pa.array([0, 10**15, 2 * 10**15, None], pa.timestamp("us", tz="UTC")),
        "d": pa.array([Decimal("1.50"), Decimal("2.50"), None, Decimal("9.99")], pa.decimal128(5, 2)),
        "ok": [True, False, None, True],
    }
)
POSITIONS = np.array([10, 11, 12, 13])


def suite(*expectations: tuple[str, dict[str, Any]], action: str = "quarantine") -> Suite:
    return Suite("s", tuple(Expectation(f"expect_{name}", kwargs) for name, kwargs in expectations), action)


def one(name: str, **kwargs: Any) -> Outcome:
    return suite((name, kwargs)).check(TABLE).outcomes[0]


def failed(outcome: Outcome) -> list[int]:
    return [] if outcome.failed is None else np.flatnonzero(outcome.failed).tolist()


@pytest.mark.parametrize(
    ("name", "kwargs", "rows"),
    [
        ("column_values_to_not_be_null", {"column": "n"}, [2]),
        ("column_values_to_not_be_null", {"column": "x"}, [1]),
        ("column_values_to_be_null", {"column": "n"}, [0, 1, 3]),
        ("column_values_to_be_between", {"column": "n", "min_value": 2}, [0]),
        ("column_values_to_be_between", {"column": "n", "max_value": 5, "strict_max": True}, [1, 3]),
        ("column_values_to_be_between", {"column": "d", "min_value": 1.5, "max_value": 2.5}, [3]),
        (
            "column_values_to_be_between",
            {"column": "t", "min_value": "1990-01-01", "max_value": "2010-01-01T00:00:00Z"},
            [0, 2],
        ),
        ("column_values_to_be_in_set", {"column": "n", "value_set": [1, 2.0, "x"]}, [1, 3]),
        ("column_values_to_be_in_set", {"column": "ok", "value_set": [True]}, [1]),
        ("column_values_to_be_in_set", {"column": "t", "value_set": ["1970-01-01T00:00:00Z"]}, [1, 2]),
        ("column_values_to_not_be_in_set", {"column": "id", "value_set": ["a", "z"]}, [0]),
        ("column_values_to_match_regex", {"column": "id", "regex": "[ab]"}, [2, 3]),
        ("column_values_to_not_match_regex", {"column": "id", "regex": "(?<!x)c"}, [2]),
        ("column_values_to_be_unique", {"column": "n"}, [1, 3]),
        ("compound_columns_to_be_unique", {"column_list": ["n", "ok"]}, []),
        ("column_value_lengths_to_be_between", {"column": "id", "min_value": 2}, [0, 1, 2, 3]),
        ("column_pair_values_a_to_be_greater_than_b", {"column_A": "n", "column_B": "x"}, [1, 2, 3]),
    ],
)
def test_row_level_expectations_say_which_rows(name: str, kwargs: dict[str, Any], rows: list[int]) -> None:
    outcome = one(name, **kwargs)
    assert failed(outcome) == rows
    assert outcome.success is (not rows)
    assert outcome.result["unexpected_count"] == len(rows)


@pytest.mark.parametrize(
    ("name", "kwargs", "success", "observed"),
    [
        ("column_to_exist", {"column": "n"}, True, None),
        ("column_to_exist", {"column": "nn"}, False, None),
        ("column_values_to_be_of_type", {"column": "n", "type_": "int64"}, True, "Int64"),
        ("column_values_to_be_of_type", {"column": "d", "type_": "Decimal(5, 2)"}, True, "Decimal"),
        ("column_values_to_be_of_type", {"column": "id", "type_": "Integral"}, False, "String"),
        ("column_min_to_be_between", {"column": "n", "min_value": 1}, True, 1),
        (
            "column_max_to_be_between",
            {"column": "t", "max_value": "2000-01-01"},
            False,
            datetime(2033, 5, 18, 3, 33, 20, tzinfo=UTC),
        ),
        ("column_mean_to_be_between", {"column": "x", "min_value": 4, "max_value": 4}, True, 4.0),
        ("column_stdev_to_be_between", {"column": "ok", "max_value": 1}, True, pytest.approx(0.5773502)),
        ("column_median_to_be_between", {"column": "x", "max_value": 2.5, "strict_max": True}, False, 2.5),
        ("column_sum_to_be_between", {"column": "n", "min_value": 11, "max_value": 11}, True, 11),
        ("column_unique_value_count_to_be_between", {"column": "n", "max_value": 1}, False, 2),
        (
            "column_proportion_of_unique_values_to_be_between",
            {"column": "n", "min_value": 0.6},
            True,
            pytest.approx(2 / 3),
        ),
        ("column_distinct_values_to_be_in_set", {"column": "n", "value_set": [1, 5, 7]}, True, [1, 5]),
        ("table_row_count_to_be_between", {"min_value": 5}, False, 4),
        ("table_row_count_to_equal", {"value": 4}, True, 4),
        (
            "table_columns_to_match_set",
            {"column_set": ["id", "n"], "exact_match": False},
            True,
            sorted(TABLE.column_names),
        ),
        ("table_columns_to_match_set", {"column_set": ["id", "n"]}, False, sorted(TABLE.column_names)),
    ],
)
def test_table_level_expectations_tell_what_was_seen(
    name: str, kwargs: dict[str, Any], success: bool, observed: Any
) -> None:
    outcome = one(name, **kwargs)
    assert outcome.success is success
    assert outcome.failed is None
    assert outcome.result.get("observed_value") == observed


def test_every_native_expectation_is_covered_here() -> None:
    marks = [
        *test_row_level_expectations_say_which_rows.pytestmark,
        *test_table_level_expectations_tell_what_was_seen.pytestmark,
    ]
    covered = {f"expect_{case[0]}" for mark in marks for case in mark.args[1]}
    assert covered == set(NATIVE)


def test_mostly_and_the_form_of_a_result() -> None:
    outcome = one("column_values_to_be_between", column="n", min_value=2, mostly=0.6)
    assert outcome.success
    assert failed(outcome) == [0]
    assert outcome.to_document() == {
        "success": True,
        "expectation_config": {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "n", "min_value": 2, "mostly": 0.6},
            "meta": {},
        },
        "result": {
            "element_count": 4,
            "unexpected_count": 1,
            "unexpected_percent": pytest.approx(100 / 3),
            "partial_unexpected_list": [1],
            "missing_count": 1,
            "missing_percent": 25.0,
            "unexpected_percent_total": 25.0,
            "unexpected_percent_nonmissing": pytest.approx(100 / 3),
        },
        "exception_info": {"raised_exception": False, "exception_message": None},
    }
    assert not one("column_values_to_be_between", column="n", min_value=2, mostly=0.7).success


def test_a_missing_column_is_a_failure_with_its_message() -> None:
    result = suite(("column_min_to_be_between", {"column": "zz", "min_value": 0})).check(TABLE)
    document = result.to_document()
    assert document["success"] is False
    assert "zz" in document["results"][0]["exception_info"]["exception_message"]
    assert document["statistics"]["success_percent"] == 0.0


def test_suites_are_read_and_written_as_great_expectations_does() -> None:
    old = {
        "expectation_suite_name": "old",
        "expectations": [{"expectation_type": "expect_column_to_exist", "kwargs": {"column": "n"}}],
    }
    read = Suite.from_json(json.dumps(old), action="reject")
    assert (read.name, read.action) == ("old", "reject")
    assert Suite.from_dict(read.to_document()) == read
    assert read.check(TABLE).success


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"expectations": [5]}',
        '{"expectations": [{"kwargs": {}}]}',
        '{"expectations": [{"type": "column_exists"}]}',
        '{"expectations": [{"type": "expect_x", "kwargs": {"mostly": 2}}]}',
        '{"expectations": [], "meta": {"action": "ignore"}}',
    ],
)
def test_what_is_no_suite_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Suite.from_json(text)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("column_values_to_be_between", {"column": "n"}),
        ("column_values_to_be_between", {"min_value": 1}),
        ("column_values_to_be_between", {"column": "id", "min_value": 1}),
        ("column_values_to_match_regex", {"column": "id", "regex": "("}),
        ("column_values_to_match_regex", {"column": "n", "regex": "1"}),
        ("column_values_to_be_between", {"column": "t", "min_value": "soon"}),
    ],
)
def test_arguments_that_make_no_sense_are_refused(name: str, kwargs: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        one(name, **kwargs)


# -- the gate -------------------------------------------------------------------------------------------------------


def test_the_gate_sets_rows_aside_with_the_first_expectation_they_break() -> None:
    gate = suite(
        ("column_values_to_be_between", {"column": "n", "max_value": 4, "mostly": 0.9}),
        ("column_values_to_not_be_null", {"column": "n"}),
        ("column_values_to_not_be_null", {"column": "x"}),
        ("column_values_to_be_in_set", {"column": "id", "value_set": ["b", "c", "d"], "mostly": 0.5}),
    )
    kept, positions, aside = gate.split(TABLE, POSITIONS)
    assert kept.column("id").to_pylist() == ["a"]
    assert positions.tolist() == [10]
    assert aside.select(["row", "field", "reason"]).to_pylist() == [
        {"row": 11, "field": "n", "reason": "expect_column_values_to_be_between"},
        {"row": 12, "field": "n", "reason": "expect_column_values_to_not_be_null"},
        {"row": 13, "field": "n", "reason": "expect_column_values_to_be_between"},
    ]
    assert json.loads(aside.column("record")[0].as_py()) == {
        "id": "b",
        "n": 5,
        "x": "nan",
        "t": "2001-09-09 01:46:40.000000Z",
        "d": "2.50",
        "ok": False,
    }


def test_the_gate_lets_everything_through_unchanged() -> None:
    kept, positions, aside = suite(("column_to_exist", {"column": "n"})).split(TABLE, POSITIONS)
    assert kept is TABLE
    assert positions is POSITIONS
    assert aside.num_rows == 0


def test_a_table_level_failure_or_a_rejecting_gate_refuses_everything() -> None:
    with pytest.raises(InvalidInput, match="expect_table_row_count_to_equal fails for the table: observed_value 4"):
        suite(("table_row_count_to_equal", {"value": 3})).split(TABLE, POSITIONS)
    with pytest.raises(InvalidInput, match="'zz' does not exist"):
        suite(("column_values_to_be_unique", {"column": "zz"})).split(TABLE, POSITIONS)
    with pytest.raises(InvalidInput, match=r"unexpected_count 2, e.g. 5, 5") as caught:
        suite(("column_values_to_be_unique", {"column": "n"}), action="reject").split(TABLE, POSITIONS)
    assert "nothing was written" in caught.value.hint


def test_mixed_columns_are_checked_as_their_text() -> None:
    table = pa.table({"a": cells_to_arrow([1, "x"])})
    found = suite(("column_values_to_match_regex", {"column": "a", "regex": "^[0-9]+$"})).check(table)
    assert failed(found.outcomes[0]) == [1]
