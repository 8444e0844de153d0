"""Native expectations: Great Expectations' names and arguments, each compiled to polars expressions.

Nulls (and NaN) are left out of every row-level expectation except the two about nulls, as there. What an expectation
means was compared with Great Expectations 1.24 on random tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import polars as pl

from foundation.errors import InvalidInput

__all__ = ["NATIVE", "Plan", "compile_native", "is_native"]

Kwargs = Mapping[str, Any]
Types = Mapping[str, pl.DataType]


@dataclass(frozen=True)
class Plan:
    """One expectation, compiled for one table's columns.

    Attributes:
        fails: row-level: True where a row is unexpected, never null. None for table-level.
        counted: row-level: number of rows that count.
        shown: row-level: the value to show of an unexpected row.
        observed: table-level: the value judged. None when ``verdict`` is known without reading.
        judge: table-level: whether an observed value is as expected.
        verdict: (success, observed value) known from the columns alone.
        nulls_count: row-level expectations about nulls count every row.
    """

    fails: pl.Expr | None = None
    counted: pl.Expr | None = None
    shown: pl.Expr | None = None
    observed: pl.Expr | None = None
    judge: Callable[[Any], bool] | None = None
    verdict: tuple[bool, Any] | None = None
    nulls_count: bool = False


def is_native(name: str, kwargs: Kwargs) -> bool:
    """Whether an expectation with exactly these arguments is known here."""
    known = NATIVE.get(name)
    return known is not None and {key for key, value in kwargs.items() if value is not None} <= known[1] | {"mostly"}


def compile_native(name: str, kwargs: Kwargs, types: Types) -> Plan:
    """Compile one expectation ``is_native`` knows.

    Raises:
        InvalidInput: a missing or unfit argument, or a column the table does not have.
    """
    build, _ = NATIVE[name]
    given = {key: value for key, value in kwargs.items() if value is not None}
    try:
        return build(given, types)
    except KeyError as error:
        raise InvalidInput(f"{name} needs the argument {error.args[0]!r}", subject=f"expectation {name}") from error
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{name}: {error}", subject=f"expectation {name}", hint="check its arguments") from error


def _column(kwargs: Kwargs, types: Types, key: str = "column") -> tuple[pl.Expr, pl.DataType]:
    name = kwargs[key]
    if name not in types:
        raise InvalidInput(
            f"column {name!r} does not exist", subject=f"column {name!r}", hint=f"columns: {', '.join(types)}"
        )
    found = pl.col(name)
    return (found.fill_nan(None) if types[name].is_float() else found), types[name]


def _literal(value: Any, kind: pl.DataType) -> Any:  # noqa: ANN401 - a JSON value
    """A JSON value as the column's type compares it."""
    if isinstance(value, str) and kind.base_type() == pl.Datetime:
        moment = datetime.fromisoformat(value)
        zoned = getattr(kind, "time_zone", None) is not None
        return moment.replace(tzinfo=UTC) if zoned and moment.tzinfo is None else moment
    if isinstance(value, str) and kind == pl.Date:
        return date.fromisoformat(value)
    return value


def _within(value: pl.Expr, kwargs: Kwargs, kind: pl.DataType) -> pl.Expr:
    inside = pl.lit(True)
    if "min_value" in kwargs:
        low = pl.lit(_literal(kwargs["min_value"], kind))
        inside &= value > low if kwargs.get("strict_min") else value >= low
    if "max_value" in kwargs:
        high = pl.lit(_literal(kwargs["max_value"], kind))
        inside &= value < high if kwargs.get("strict_max") else value <= high
    return inside


def _rows(value: pl.Expr, expected: pl.Expr) -> Plan:
    """Rows whose value is there but not expected."""
    return Plan(fails=(value.is_not_null() & ~expected.fill_null(False)), counted=value.count(), shown=value)


# -- row-level ------------------------------------------------------------------------------------------------------


def _not_null(kwargs: Kwargs, types: Types) -> Plan:
    value, _ = _column(kwargs, types)
    return Plan(fails=value.is_null(), counted=pl.len(), shown=value, nulls_count=True)


def _null(kwargs: Kwargs, types: Types) -> Plan:
    value, _ = _column(kwargs, types)
    return Plan(fails=value.is_not_null(), counted=pl.len(), shown=value, nulls_count=True)


def _between(kwargs: Kwargs, types: Types) -> Plan:
    value, kind = _column(kwargs, types)
    if "min_value" not in kwargs and "max_value" not in kwargs:
        raise ValueError("min_value and max_value cannot both be None")
    return _rows(value, _within(value, kwargs, kind))


def _in_set(kwargs: Kwargs, types: Types) -> Plan:
    value, kind = _column(kwargs, types)
    return _rows(value, _is_in(value, kwargs["value_set"], kind))


def _not_in_set(kwargs: Kwargs, types: Types) -> Plan:
    value, kind = _column(kwargs, types)
    return _rows(value, ~_is_in(value, kwargs["value_set"], kind))


def _is_in(value: pl.Expr, chosen: list[Any], kind: pl.DataType) -> pl.Expr:
    """Membership, numbers compared as numbers; a set of another kind of value matches nothing."""
    literals = [_literal(each, kind) for each in chosen]
    fitting = [each for each in literals if _fits(each, kind)]
    if kind.is_integer():
        fitting = [int(each) for each in fitting if each == int(each) and -(1 << 63) <= each < 1 << 63]
        return value.is_in(pl.Series(fitting, dtype=pl.Int64)) if kind == pl.Int64 else value.is_in(fitting)
    return value.is_in(pl.Series(fitting, dtype=kind, strict=False))


def _fits(value: Any, kind: pl.DataType) -> bool:  # noqa: ANN401 - a value of a JSON list
    if isinstance(value, bool):
        return kind == pl.Boolean
    if isinstance(value, int | float):
        return kind.is_numeric()
    if isinstance(value, str):
        return kind == pl.String or kind.base_type() in (pl.Categorical, pl.Enum)
    return isinstance(value, datetime | date) and kind.is_temporal()


def _regex(kwargs: Kwargs, types: Types) -> Plan:
    value, matches = _matches(kwargs, types)
    return _rows(value, matches)


def _not_regex(kwargs: Kwargs, types: Types) -> Plan:
    value, matches = _matches(kwargs, types)
    return _rows(value, ~matches)


def _matches(kwargs: Kwargs, types: Types) -> tuple[pl.Expr, pl.Expr]:
    """A match anywhere in the text. What the fast engine lacks (look-around, back references) goes to Python's."""
    value, kind = _column(kwargs, types)
    pattern = kwargs["regex"]
    if kind != pl.String:
        raise ValueError(f"column {kwargs['column']!r} is {kind}, not text")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
    try:
        pl.Series([""]).str.contains(pattern)
        return value, value.str.contains(pattern)
    except pl.exceptions.ComputeError:
        return value, value.map_elements(lambda text: compiled.search(text) is not None, return_dtype=pl.Boolean)


def _unique(kwargs: Kwargs, types: Types) -> Plan:
    value, _ = _column(kwargs, types)
    return _rows(value, ~value.is_duplicated())


def _compound_unique(kwargs: Kwargs, types: Types) -> Plan:
    values = [_column({"column": name}, types)[0] for name in kwargs["column_list"]]
    ignored = {
        "all_values_are_missing": pl.all_horizontal([value.is_null() for value in values]),
        "any_value_is_missing": pl.any_horizontal([value.is_null() for value in values]),
        "never": pl.lit(False),
    }[kwargs.get("ignore_row_if", "all_values_are_missing")]
    together = pl.struct(values)
    fails = ~ignored & together.is_duplicated()
    return Plan(fails=fails, counted=(~ignored & (pl.int_range(pl.len()) >= 0)).sum(), shown=together)


def _lengths(kwargs: Kwargs, types: Types) -> Plan:
    value, kind = _column(kwargs, types)
    if kind != pl.String:
        raise ValueError(f"column {kwargs['column']!r} is {kind}, not text")
    return _rows(value, _within(value.str.len_chars(), kwargs, pl.Int64()))


def _pair(kwargs: Kwargs, types: Types) -> Plan:
    first, _ = _column(kwargs, types, "column_A")
    second, _ = _column(kwargs, types, "column_B")
    ignored = {
        "both_values_are_missing": first.is_null() & second.is_null(),
        "either_value_is_missing": first.is_null() | second.is_null(),
        "neither": pl.lit(False),
    }[kwargs.get("ignore_row_if", "both_values_are_missing")]
    expected = first >= second if kwargs.get("or_equal") else first > second
    fails = ~ignored & ~expected.fill_null(False)
    return Plan(fails=fails, counted=(~ignored & (pl.int_range(pl.len()) >= 0)).sum(), shown=pl.struct(first, second))


# -- table-level ----------------------------------------------------------------------------------------------------

_TYPE_NAMES = {
    "Int64": {"int64", "integral", "integer", "bigint", "long", "longtype", "int"},
    "Int32": {"int32", "integer", "int", "integertype"},
    "Float64": {"float64", "double", "fractional", "float", "doubletype"},
    "Float32": {"float32", "fractional32", "float", "real", "floattype"},
    "String": {"string", "str", "varchar", "text", "object", "stringtype", "large_string"},
    "Boolean": {"boolean", "bool", "booleantype"},
    "Datetime": {"timestamp", "datetime", "datetime64", "timestamptype"},
    "Date": {"date", "date32", "datetype"},
    "Decimal": {"decimal", "numeric", "decimaltype"},
}


def _of_type(kwargs: Kwargs, types: Types) -> Plan:
    _, kind = _column(kwargs, types)
    name = str(kind.base_type())
    wanted = re.split(r"[(\[<]", str(kwargs["type_"]), maxsplit=1)[0].strip().lower()
    return Plan(verdict=(wanted == name.lower() or wanted in _TYPE_NAMES.get(name, set()), name))


def _exists(kwargs: Kwargs, types: Types) -> Plan:
    return Plan(verdict=(kwargs["column"] in types, None))


def _match_set(kwargs: Kwargs, types: Types) -> Plan:
    wanted, found = set(kwargs["column_set"]), set(types)
    exact = kwargs.get("exact_match", True)
    return Plan(verdict=(found == wanted if exact else wanted <= found, sorted(found)))


def _judge(kwargs: Kwargs, kind: pl.DataType) -> Callable[[Any], bool]:
    def judge(observed: Any) -> bool:  # noqa: ANN401 - whatever the column holds
        if observed is None:
            return False
        inside = pl.select(_within(pl.lit(observed), kwargs, kind)).item()
        return bool(inside)

    return judge


def _statistic(of: Callable[[pl.Expr], pl.Expr]) -> Callable[[Kwargs, Types], Plan]:
    def build(kwargs: Kwargs, types: Types) -> Plan:
        value, kind = _column(kwargs, types)
        return Plan(observed=of(value), judge=_judge(kwargs, kind))

    return build


def _proportion(value: pl.Expr) -> pl.Expr:
    return pl.when(value.count() > 0).then(value.drop_nulls().n_unique() / value.count()).otherwise(0.0)


def _row_count(kwargs: Kwargs, types: Types) -> Plan:
    del types
    return Plan(observed=pl.len(), judge=_judge(kwargs, pl.Int64()))


def _row_count_equal(kwargs: Kwargs, types: Types) -> Plan:
    del types
    wanted = kwargs["value"]
    return Plan(observed=pl.len(), judge=lambda observed: bool(observed == wanted))


def _distinct_in_set(kwargs: Kwargs, types: Types) -> Plan:
    value, kind = _column(kwargs, types)
    outside = value.drop_nulls().unique().sort()
    allowed = pl.Series([each for each in kwargs["value_set"] if _fits(_literal(each, kind), kind)])

    def judge(observed: list[Any]) -> bool:
        chosen = {_literal(each, kind) for each in allowed.to_list()}
        return all(each in chosen for each in observed)

    return Plan(observed=outside.implode(), judge=judge)


_BOUNDS = frozenset({"min_value", "max_value", "strict_min", "strict_max"})
_BETWEEN = _BOUNDS | {"column"}
_SET = frozenset({"column", "value_set"})
_COLUMN = frozenset({"column"})

NATIVE: dict[str, tuple[Callable[[Kwargs, Types], Plan], frozenset[str]]] = {
    "expect_column_to_exist": (_exists, _COLUMN),
    "expect_column_values_to_not_be_null": (_not_null, _COLUMN),
    "expect_column_values_to_be_null": (_null, _COLUMN),
    "expect_column_values_to_be_between": (_between, _BETWEEN),
    "expect_column_values_to_be_in_set": (_in_set, _SET),
    "expect_column_values_to_not_be_in_set": (_not_in_set, _SET),
    "expect_column_values_to_match_regex": (_regex, frozenset({"column", "regex"})),
    "expect_column_values_to_not_match_regex": (_not_regex, frozenset({"column", "regex"})),
    "expect_column_values_to_be_unique": (_unique, _COLUMN),
    "expect_compound_columns_to_be_unique": (_compound_unique, frozenset({"column_list", "ignore_row_if"})),
    "expect_column_value_lengths_to_be_between": (_lengths, _BETWEEN),
    "expect_column_values_to_be_of_type": (_of_type, frozenset({"column", "type_"})),
    "expect_column_min_to_be_between": (_statistic(pl.Expr.min), _BETWEEN),
    "expect_column_max_to_be_between": (_statistic(pl.Expr.max), _BETWEEN),
    "expect_column_mean_to_be_between": (_statistic(pl.Expr.mean), _BETWEEN),
    "expect_column_stdev_to_be_between": (_statistic(pl.Expr.std), _BETWEEN),
    "expect_column_median_to_be_between": (_statistic(pl.Expr.median), _BETWEEN),
    "expect_column_sum_to_be_between": (_statistic(pl.Expr.sum), _BETWEEN),
    "expect_column_unique_value_count_to_be_between": (_statistic(lambda v: v.drop_nulls().n_unique()), _BETWEEN),
    "expect_column_proportion_of_unique_values_to_be_between": (_statistic(_proportion), _BETWEEN),
    "expect_column_distinct_values_to_be_in_set": (_distinct_in_set, _SET),
    "expect_table_row_count_to_be_between": (_row_count, frozenset({"min_value", "max_value"})),
    "expect_table_row_count_to_equal": (_row_count_equal, frozenset({"value"})),
    "expect_table_columns_to_match_set": (_match_set, frozenset({"column_set", "exact_match"})),
    "expect_column_pair_values_a_to_be_greater_than_b": (
        _pair,
        frozenset({"column_A", "column_B", "or_equal", "ignore_row_if"}),
    ),
}
"""Name to (compiler, arguments understood); ``mostly`` is understood by every row-level one."""
