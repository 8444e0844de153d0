"""Suites of expectations over a table, under Great Expectations' names and JSON, and the gate they make.

Native expectations are compiled to one polars pass. The others are handed to Great Expectations itself in a child
process (the ``gx`` extra).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from foundation import gx
from foundation.errors import InvalidInput
from foundation.expectations import Plan, compile_native, is_native
from foundation.shown import json_rows

__all__ = ["ACTIONS", "Expectation", "Outcome", "Result", "Suite"]

ACTIONS = ("quarantine", "reject")
"""What a gate does with rows that fail: set them aside and let the rest pass, or refuse everything."""
_SHOWN = 20
_FAILED = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("field", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("record", pa.string()),
    ]
)


@dataclass(frozen=True)
class Expectation:
    """One expectation: its name and arguments, as Great Expectations writes them."""

    type: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def native(self) -> bool:
        """Whether it is checked here, without Great Expectations."""
        return is_native(self.type, self.kwargs)

    @property
    def mostly(self) -> float:
        """Share of the rows that count which must be as expected."""
        return float(self.kwargs.get("mostly") or 1.0) if self.kwargs.get("mostly") != 0 else 0.0

    @property
    def subject(self) -> str:
        """The column (or columns) it is about, "" for the table."""
        pair = [self.kwargs[key] for key in ("column_A", "column_B") if key in self.kwargs]
        named = self.kwargs.get("column_list") or self.kwargs.get("column_set") or pair
        return str(self.kwargs.get("column") or ", ".join(map(str, named)))

    def to_document(self) -> dict[str, Any]:
        """Great Expectations' JSON."""
        return {"type": self.type, "kwargs": dict(self.kwargs), "meta": dict(self.meta)}


@dataclass(frozen=True)
class Outcome:
    """How one expectation came out.

    Attributes:
        expectation: which.
        success: whether it holds.
        result: Great Expectations' ``result``: counts, shares, a few unexpected values, or the observed value.
        failed: row-level: bool mask of the unexpected rows; None for table-level, or when there are none.
        error: why it could not be checked, "" when it could.
    """

    expectation: Expectation
    success: bool
    result: Mapping[str, Any]
    failed: np.ndarray | None = None
    error: str = ""

    def to_document(self) -> dict[str, Any]:
        """Great Expectations' JSON."""
        return {
            "success": self.success,
            "expectation_config": self.expectation.to_document(),
            "result": dict(self.result),
            "exception_info": {"raised_exception": bool(self.error), "exception_message": self.error or None},
        }


@dataclass(frozen=True)
class Result:
    """How a suite came out."""

    suite: str
    outcomes: tuple[Outcome, ...]

    @property
    def success(self) -> bool:
        """Whether every expectation holds."""
        return all(outcome.success for outcome in self.outcomes)

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The expectations that do not hold."""
        return tuple(outcome for outcome in self.outcomes if not outcome.success)

    def to_document(self) -> dict[str, Any]:
        """Great Expectations' JSON of a validation."""
        total, failed = len(self.outcomes), len(self.failures)
        return {
            "success": self.success,
            "suite_name": self.suite,
            "results": [outcome.to_document() for outcome in self.outcomes],
            "statistics": {
                "evaluated_expectations": total,
                "successful_expectations": total - failed,
                "unsuccessful_expectations": failed,
                "success_percent": 100.0 * (total - failed) / total if total else None,
            },
        }


@dataclass(frozen=True)
class Suite:
    """Expectations a table must meet, and what a gate made of them does.

    Attributes:
        name: for reports.
        expectations: in order.
        action: ``"quarantine"``: rows that break a row-level expectation are set aside; a table-level one that fails
            refuses everything. ``"reject"``: any failure refuses everything.
    """

    name: str
    expectations: tuple[Expectation, ...]
    action: str = "quarantine"

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise InvalidInput(
                f"gate action {self.action!r} is unknown", subject="gate", hint='use "quarantine" or "reject"'
            )

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], *, action: str | None = None) -> Suite:
        """Read Great Expectations' suite JSON (1.x, or the names of 0.x).

        Args:
            document: ``{"name": ..., "expectations": [{"type": ..., "kwargs": {...}}, ...]}``.
            action: of the gate; None takes the suite's ``meta.action``, else ``"quarantine"``.

        Raises:
            InvalidInput: not of that form, or a bad ``mostly``.
        """
        listed = document.get("expectations")
        if not isinstance(listed, list):
            raise InvalidInput(
                "the suite has no list of expectations", subject="gate", hint="give Great Expectations JSON"
            )
        meta = document.get("meta") or {}
        return cls(
            str(document.get("name") or document.get("expectation_suite_name") or "suite"),
            tuple(_expectation(place, each) for place, each in enumerate(listed)),
            action or str(meta.get("action", "quarantine")),
        )

    @classmethod
    def from_json(cls, text: str, *, action: str | None = None) -> Suite:
        """``from_dict`` of JSON text.

        Raises:
            InvalidInput: not JSON, or see ``from_dict``.
        """
        try:
            document = json.loads(text)
        except ValueError as error:
            raise InvalidInput(f"the suite is not JSON: {error}", subject="gate") from error
        if not isinstance(document, dict):
            raise InvalidInput("the suite is not a JSON object", subject="gate")
        return cls.from_dict(document, action=action)

    def to_document(self) -> dict[str, Any]:
        """What ``from_dict`` reads."""
        return {
            "name": self.name,
            "expectations": [each.to_document() for each in self.expectations],
            "meta": {"action": self.action},
        }

    def check(self, table: pa.Table) -> Result:
        """Check a table.

        Raises:
            InvalidInput: arguments that make no sense, or values that cannot be compared with them.
            NotSupported: an expectation only Great Expectations knows, and it is not installed.
        """
        frame = pl.from_arrow(table.cast(_unmixed(table.schema)))
        assert isinstance(frame, pl.DataFrame)
        native = [each for each in self.expectations if each.native]
        others = [each for each in self.expectations if not each.native]
        found = dict(zip(map(id, native), _check_native(frame, native), strict=True))
        if others:
            raw = gx.validate(table, [each.to_document() for each in others])
            found |= {id(each): _outcome_of(each, one, frame.height) for each, one in zip(others, raw, strict=True)}
        return Result(self.name, tuple(found[id(each)] for each in self.expectations))

    def split(self, table: pa.Table, positions: np.ndarray) -> tuple[pa.Table, np.ndarray, pa.Table]:
        """Let a batch through the gate.

        Args:
            table: the batch.
            positions: int64 row number to report for each of its rows.

        Returns:
            The rows that pass, their positions, and the rows set aside: ``row``, ``field``, ``reason`` (the
            expectation) and ``record`` (JSON).

        Raises:
            InvalidInput: the gate refuses everything, naming the expectation and a few values.
            NotSupported: see ``check``.
        """
        failures = self.check(table).failures
        if not failures:
            return table, positions, _FAILED.empty_table()
        for outcome in failures:
            if self.action == "reject" or outcome.failed is None:
                raise _refusal(self, outcome)
        codes = np.zeros(table.num_rows, np.int64)
        for place, outcome in reversed(list(enumerate(failures, 1))):
            assert outcome.failed is not None
            codes[outcome.failed] = place
        bad = np.flatnonzero(codes)
        told = [failures[code - 1].expectation for code in codes[bad].tolist()]
        failed = pa.Table.from_arrays(
            [
                pa.array(positions[bad], pa.int64()),
                pa.array([each.subject for each in told], pa.string()),
                pa.array([each.type for each in told], pa.string()),
                pa.array(json_rows(table, bad), pa.string()),
            ],
            schema=_FAILED,
        )
        kept = codes == 0
        return table.filter(pa.array(kept)), positions[kept], failed


def _expectation(place: int, document: object) -> Expectation:
    if not isinstance(document, Mapping):
        raise InvalidInput(f"expectation {place} is not an object", subject="gate")
    name = document.get("type") or document.get("expectation_type")
    kwargs = document.get("kwargs") or {}
    if not isinstance(name, str) or not name.startswith("expect_") or not isinstance(kwargs, Mapping):
        raise InvalidInput(
            f"expectation {place} has no type or arguments",
            subject="gate",
            hint='write {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "id"}}',
        )
    mostly = kwargs.get("mostly")
    if mostly is not None and not (isinstance(mostly, int | float) and 0 <= mostly <= 1):
        raise InvalidInput(f"mostly={mostly!r} in {name}", subject=f"expectation {name}", hint="give a share, 0 to 1")
    return Expectation(name, dict(kwargs), dict(document.get("meta") or {}))


def _refusal(suite: Suite, outcome: Outcome) -> InvalidInput:
    expectation = outcome.expectation
    shown = {key: value for key, value in outcome.result.items() if key in ("observed_value", "unexpected_count")}
    sample = list(outcome.result.get("partial_unexpected_list", ()))[:3]
    told = outcome.error or ", ".join(f"{key} {value!r}" for key, value in shown.items())
    return InvalidInput(
        f"gate {suite.name!r}: {expectation.type} fails for {expectation.subject or 'the table'}: {told}"
        + (f", e.g. {', '.join(map(repr, sample))}" if sample else ""),
        subject=f"expectation {expectation.type}",
        hint="nothing was written; mend the source, or loosen the expectation",
    )


def _unmixed(schema: pa.Schema) -> pa.Schema:
    """Columns of JSON values as their text; polars has no type for them."""
    return pa.schema(
        [
            pa.field(each.name, each.type.storage_type if isinstance(each.type, pa.BaseExtensionType) else each.type)
            for each in schema
        ]
    )


# -- native ---------------------------------------------------------------------------------------------------------


def _check_native(frame: pl.DataFrame, expectations: Sequence[Expectation]) -> list[Outcome]:
    """One pass for all counts and statistics; a second one only over what failed, for masks and examples."""
    plans: list[Plan | str] = []
    for each in expectations:
        try:
            plans.append(compile_native(each.type, each.kwargs, frame.schema))
        except InvalidInput as error:
            if "does not exist" not in error.message:
                raise
            plans.append(error.message)
    wanted: dict[str, pl.Expr] = {}
    for place, plan in enumerate(plans):
        if isinstance(plan, str) or plan.verdict is not None:
            continue
        if plan.fails is not None and plan.counted is not None:
            wanted[f"{place}-failed"] = plan.fails.sum()
            wanted[f"{place}-counted"] = plan.counted
        elif plan.observed is not None:
            wanted[f"{place}-observed"] = plan.observed
    figures = _select(frame, wanted).row(0, named=True) if wanted else {}
    return [
        _outcome(frame, expectation, plan, place, figures)
        for place, (expectation, plan) in enumerate(zip(expectations, plans, strict=True))
    ]


def _select(frame: pl.DataFrame, wanted: Mapping[str, pl.Expr]) -> pl.DataFrame:
    try:
        return frame.lazy().select(**wanted).collect()
    except pl.exceptions.PolarsError as error:
        told = next(iter(str(error).splitlines()), "")
        raise InvalidInput(
            f"an expectation cannot be checked: {told}",
            subject="gate",
            hint="compare a column with values of its own type",
        ) from error


def _outcome(
    frame: pl.DataFrame, expectation: Expectation, plan: Plan | str, place: int, figures: Mapping[str, Any]
) -> Outcome:
    if isinstance(plan, str):
        return Outcome(expectation, False, {}, None, plan)
    if plan.verdict is not None:
        success, observed = plan.verdict
        return Outcome(expectation, success, {} if observed is None else {"observed_value": observed})
    if plan.fails is None:
        assert plan.judge is not None
        observed = figures[f"{place}-observed"]
        return Outcome(expectation, plan.judge(observed), {"observed_value": observed})
    failed, counted = int(figures[f"{place}-failed"] or 0), int(figures[f"{place}-counted"] or 0)
    success = counted == 0 or (counted - failed) / counted >= expectation.mostly
    result: dict[str, Any] = {
        "element_count": frame.height,
        "unexpected_count": failed,
        "unexpected_percent": 100.0 * failed / counted if counted else None,
        "partial_unexpected_list": [],
    }
    if not plan.nulls_count:
        missing = frame.height - counted
        result["missing_count"] = missing
        result["missing_percent"] = 100.0 * missing / frame.height if frame.height else None
        result["unexpected_percent_total"] = 100.0 * failed / frame.height if frame.height else None
        result["unexpected_percent_nonmissing"] = result["unexpected_percent"]
    if not failed:
        return Outcome(expectation, success, result)
    assert plan.shown is not None
    mask = _select(frame, {"fails": plan.fails}).to_series()
    few = frame.lazy().filter(mask).select(shown=plan.shown).head(_SHOWN).collect()
    result["partial_unexpected_list"] = few.to_series().to_list()
    return Outcome(expectation, success, result, mask.to_numpy())


# -- through Great Expectations -------------------------------------------------------------------------------------


def _outcome_of(expectation: Expectation, document: Mapping[str, Any], rows: int) -> Outcome:
    result = dict(document.get("result") or {})
    error = next((info["exception_message"] for info in _exceptions(document.get("exception_info") or {}) if info), "")
    places = result.pop("unexpected_index_list", None)
    failed = None
    if places:
        failed = np.zeros(rows, np.bool_)
        failed[np.array(places, np.int64)] = True
    return Outcome(expectation, bool(document.get("success")), result, failed, error or "")


def _exceptions(info: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One entry, or one per metric, as Great Expectations chooses."""
    found = [info] if "raised_exception" in info else [each for each in info.values() if isinstance(each, Mapping)]
    return [each for each in found if each.get("raised_exception")]
