"""The error tree: what each carries and how it reads."""

from __future__ import annotations

import inspect
import pickle

import pytest

from foundation import errors
from foundation.errors import NotFound, PlatformError

ALL = [
    each
    for _, each in inspect.getmembers(errors, inspect.isclass)
    if issubclass(each, PlatformError) and each.__module__ == errors.__name__
]


def test_every_error_is_exported_with_a_code_of_its_own() -> None:
    assert {each.__name__ for each in ALL} == set(errors.__all__)
    assert len({each.code for each in ALL}) == len(ALL) == 10


@pytest.mark.parametrize("kind", ALL)
def test_an_error_carries_message_subject_and_hint(kind: type[PlatformError]) -> None:
    error = kind("it broke", subject="column 'a'", hint="mend it")
    assert (error.message, error.subject, error.hint) == ("it broke", "column 'a'", "mend it")
    assert str(error) == "it broke (mend it)"
    assert str(kind("it broke")) == "it broke"
    assert kind.__doc__


@pytest.mark.parametrize("kind", ALL)
def test_an_error_crosses_processes_whole(kind: type[PlatformError]) -> None:
    error = kind("it broke", subject="column 'a'", hint="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (again.message, again.subject, again.hint) == (error.message, error.subject, error.hint)


def test_a_missing_name_suggests_a_close_one_only() -> None:
    error = NotFound.of("feature group", "usres", ["users", "weather"])
    assert str(error) == "feature group 'usres' does not exist (did you mean 'users'?)"
    assert error.subject == "feature group 'usres'"
    assert NotFound.of("feature group", "zzz", ["users"]).hint == ""
    assert NotFound.of("feature group", "zzz").hint == ""
