"""Great Expectations itself as the oracle of the native expectations, and as the checker of those not native."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from foundation import gx
from foundation.checks import Expectation, Suite
from foundation.errors import InvalidInput, NotSupported

SKEWED = Suite("s", (Expectation("expect_column_kl_divergence_to_be_less_than", {"column": "a", "threshold": 0.1}),))


@pytest.mark.skipif(gx.is_installed(), reason="Great Expectations is installed")
def test_without_great_expectations_the_hint_says_how_to_install_it() -> None:
    with pytest.raises(NotSupported, match=r"tilth\[gx\]") as caught:
        SKEWED.check(pa.table({"a": [1]}))
    assert "expect_column_kl_divergence_to_be_less_than" in caught.value.message


def a_table(rng: random.Random, rows: int) -> pa.Table:
    def some(draw: object) -> list[object]:
        share = rng.choice([0.0, 0.3, 1.0])
        return [None if rng.random() < share else draw() for _ in range(rows)]  # type: ignore[operator]

    return pa.table(
        {
            "n": pa.array(some(lambda: rng.randint(-3, 3)), pa.float64()),
            "m": pa.array(some(lambda: rng.randint(-3, 3)), pa.float64()),
            "s": pa.array(some(lambda: rng.choice(["", "a", "ab", "abc", "b1", "ä"])), pa.string()),
        }
    )


def expectations(rng: random.Random) -> list[Expectation]:
    def bounds() -> dict[str, object]:
        low, high = sorted([rng.randint(-3, 3), rng.randint(-3, 3)])
        drawn: dict[str, object] = {"min_value": low, "max_value": high}
        if rng.random() < 0.4:
            drawn["strict_min"] = True
        if rng.random() < 0.4:
            drawn["strict_max"] = True
        if rng.random() < 0.3:
            del drawn[rng.choice(["min_value", "max_value"])]
        return drawn

    def mostly() -> dict[str, object]:
        return {"mostly": rng.choice([0.1, 0.5, 0.9, 1.0])} if rng.random() < 0.6 else {}

    n, s = {"column": "n"}, {"column": "s"}
    subset = {"value_set": rng.sample([-3, -2, -1, 0, 1, 2, 3], 4)}
    drawn = [
        ("expect_column_to_exist", {"column": rng.choice(["n", "zz"])}),
        ("expect_column_values_to_not_be_null", n | mostly()),
        ("expect_column_values_to_be_null", n | mostly()),
        ("expect_column_values_to_be_between", n | bounds() | mostly()),
        ("expect_column_values_to_be_in_set", n | subset | mostly()),
        ("expect_column_values_to_not_be_in_set", n | subset | mostly()),
        ("expect_column_values_to_match_regex", s | {"regex": rng.choice(["^a", "b", "[0-9]$", "^.$"])} | mostly()),
        ("expect_column_values_to_not_match_regex", s | {"regex": rng.choice(["^a", "b", "(?=b)b1"])} | mostly()),
        ("expect_column_values_to_be_unique", n | mostly()),
        ("expect_compound_columns_to_be_unique", {"column_list": ["n", "m"]} | mostly()),
        (
            "expect_compound_columns_to_be_unique",
            {"column_list": ["n", "m"], "ignore_row_if": rng.choice(["any_value_is_missing", "never"])},
        ),
        ("expect_column_value_lengths_to_be_between", s | {"min_value": 1, "max_value": rng.randint(1, 3)} | mostly()),
        ("expect_column_min_to_be_between", n | bounds()),
        ("expect_column_max_to_be_between", n | bounds()),
        ("expect_column_mean_to_be_between", n | bounds()),
        ("expect_column_stdev_to_be_between", n | bounds()),
        ("expect_column_median_to_be_between", n | bounds()),
        ("expect_column_sum_to_be_between", n | bounds()),
        ("expect_column_unique_value_count_to_be_between", n | {"min_value": rng.randint(0, 4), "max_value": 5}),
        ("expect_column_proportion_of_unique_values_to_be_between", n | {"min_value": 0.3, "max_value": 0.8}),
        ("expect_column_distinct_values_to_be_in_set", n | subset),
        ("expect_table_row_count_to_be_between", {"min_value": 2, "max_value": rng.randint(2, 9)}),
        ("expect_table_row_count_to_equal", {"value": rng.randint(2, 9)}),
        ("expect_table_columns_to_match_set", {"column_set": ["s", "n", "m"]}),
        ("expect_table_columns_to_match_set", {"column_set": ["s", "n"], "exact_match": rng.random() < 0.5}),
        (
            "expect_column_pair_values_a_to_be_greater_than_b",
            {"column_A": "n", "column_B": "m", "or_equal": rng.random() < 0.5} | mostly(),
        ),
        (
            "expect_column_pair_values_a_to_be_greater_than_b",
            {"column_A": "n", "column_B": "m", "ignore_row_if": rng.choice(["either_value_is_missing", "neither"])},
        ),
    ]
    return [Expectation(name, kwargs) for name, kwargs in drawn]


COUNTS = ("element_count", "unexpected_count", "missing_count", "unexpected_percent", "observed_value")


@pytest.mark.peers
@pytest.mark.parametrize("seed", range(12))
def test_native_expectations_say_what_great_expectations_says(seed: int) -> None:
    rng = random.Random(seed)
    table = a_table(rng, rng.choice([0, 1, 2, 3, 8, 8, 20]))
    chosen = expectations(rng)
    assert all(each.native for each in chosen)
    mine = Suite("s", tuple(chosen)).check(table).outcomes
    theirs = gx.validate(table, [each.to_document() for each in chosen])
    differences = []
    for outcome, other in zip(mine, theirs, strict=True):
        name = (outcome.expectation.type, dict(outcome.expectation.kwargs))
        if outcome.success != other["success"]:
            differences.append((name, "success", outcome.success, other))
        for key in COUNTS:
            left, right = outcome.result.get(key), other["result"].get(key)
            if left is not None and right is not None and left != pytest.approx(right):
                differences.append((name, key, left, right))
        places = other["result"].get("unexpected_index_list")
        if places is not None and outcome.result.get("unexpected_count") is not None:
            found = [] if outcome.failed is None else outcome.failed.nonzero()[0].tolist()
            if sorted(places) != found:
                differences.append((name, "rows", found, places))
    assert not differences, "\n".join(map(repr, differences))


@pytest.mark.peers
def test_what_is_not_native_goes_through_great_expectations() -> None:
    suite = Suite(
        "s",
        (
            Expectation("expect_column_values_to_not_be_null", {"column": "a"}),
            Expectation("expect_column_values_to_be_increasing", {"column": "a"}),
            Expectation("expect_column_values_to_match_regex_list", {"column": "s", "regex_list": ["^x", "^y"]}),
        ),
    )
    found = suite.check(pa.table({"a": [1, 2, 3], "s": ["x1", "z", "y"]}))
    assert [outcome.success for outcome in found.outcomes] == [True, True, False]
    assert found.outcomes[2].failed is not None
    assert found.outcomes[2].failed.tolist() == [False, True, False]


@pytest.mark.peers
def test_an_expectation_nobody_knows_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="expect_the_moon"):
        Suite("s", (Expectation("expect_the_moon", {}),)).check(pa.table({"a": [1]}))
