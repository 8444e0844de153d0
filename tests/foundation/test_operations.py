"""The registry of operations that every door reads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from foundation.errors import InvalidInput, NotFound
from foundation.operations import REQUIRED, Operation, Parameter, operation, operations_of

if TYPE_CHECKING:
    from decimal import Decimal


class Base:
    @operation
    def close_all(self) -> None:
        """Close."""

    @operation
    def get(self, name: str) -> str:
        """Overridden below."""
        return name


class Room(Base):
    @operation
    def put(self, name: str, value: int | None = None, /, *rest: bytes, wait: timedelta, **options: float) -> list[str]:
        """Put a thing.

        Raises:
            InvalidInput: never.
        """
        return [name, str(value), str(rest), str(wait), str(options)]

    @operation
    def get(self, name: str, *, plain=True) -> str:
        """Get a thing."""
        return name * (2 - plain)

    def helper(self) -> None:
        """Not an operation."""


def test_operations_are_read_in_the_order_written() -> None:
    assert [one.name for one in operations_of(Room)] == ["put", "get", "close_all"]
    assert [one.name for one in operations_of(Room())] == ["put", "get", "close_all"]
    assert operations_of(object()) == []


def test_an_operation_knows_types_defaults_and_kinds() -> None:
    put = operations_of(Room)[0]
    assert put.parameters == (
        Parameter("name", str, REQUIRED, "positional"),
        Parameter("value", int | None, None, "positional"),
        Parameter("rest", bytes, REQUIRED, "rest"),
        Parameter("wait", timedelta, REQUIRED, "keyword"),
        Parameter("options", float, REQUIRED, "options"),
    )
    assert [one.name for one in put.parameters if one.is_required] == ["name", "wait"]
    assert [one.name for one in put.positional] == ["name", "value"]
    assert put.result == list[str]
    assert put.summary == "Put a thing."
    assert put.doc == "Put a thing.\n\nRaises:\n    InvalidInput: never."


def test_the_nearest_definition_counts_and_is_called() -> None:
    by_name: dict[str, Operation] = {one.name: one for one in operations_of(Room())}
    assert by_name["get"].summary == "Get a thing."
    assert by_name["get"].parameters[1] == Parameter("plain", Any, True, "keyword")
    assert by_name["get"].call("ab", plain=False) == "abab"
    unbound = next(one for one in operations_of(Room) if one.name == "get")
    assert unbound.call(Room(), "x") == "x"


def test_a_type_that_is_not_there_at_run_time_stays_text() -> None:
    class Lazy:
        @operation
        def price(self, of: str) -> Decimal:
            """Ask the price."""
            raise NotImplementedError

    (price,) = operations_of(Lazy)
    assert price.result == "Decimal"


def test_a_marked_method_stays_the_method_it_was() -> None:
    assert Room().get("x") == "x"
    assert Room.get.__doc__ == "Get a thing."


def test_a_slip_is_seen_on_import() -> None:
    with pytest.raises(TypeError, match="has no docstring"):

        @operation
        def silent(self) -> None: ...

    with pytest.raises(TypeError, match="must not start with '_'"):

        @operation
        def _hidden(self) -> None:
            """Hidden."""


class Checked:
    @operation
    def act(self, name: str, count: int = 1, names: Sequence[str] | None = None, after: timedelta | None = None) -> str:
        """Fails in the ways Python fails."""
        if name == "defect":
            raise KeyError("a defect of ours")
        if name == "gone":
            Path("/nowhere/at/all").read_text()
        return (name + "!") * (count + 0) + ",".join(names or ()) + str((after or timedelta(0)).days)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"name": 5}, "name = 5"),
        ({"name": "a", "count": "3"}, "count = '3'"),
        ({"name": "a", "names": 5}, "names = 5"),
        ({"name": "a", "names": ["b", 7]}, "names"),
        ({"name": "a", "after": 7}, "after = 7"),
    ],
)
def test_a_failed_call_names_the_argument_that_does_not_fit(arguments, named):
    with pytest.raises(InvalidInput, match=named):
        Checked().act(**arguments)


def test_arguments_that_fit_are_not_looked_at_and_defects_stay_what_they_are():
    assert Checked().act("a", 2, ["x"], timedelta(days=3)) == "a!a!x3"
    with pytest.raises(KeyError):
        Checked().act("defect")
    with pytest.raises(TypeError):
        Checked().act()


def test_what_the_system_refuses_is_typed():
    with pytest.raises(NotFound, match="/nowhere"):
        Checked().act("gone")
