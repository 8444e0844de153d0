"""What a legal name is."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from foundation.errors import InvalidInput
from foundation.names import RESERVED_COLUMNS, check_feature_name, check_name

EDGE = set(string.ascii_letters + string.digits)


def _is_legal(name: str) -> bool:
    """The rule in the hint, said another way."""
    inner = EDGE | {"_", "-"}
    return 1 <= len(name) <= 64 and name[0] in EDGE and name[-1] in EDGE | {"_"} and set(name) <= inner


@given(st.text(st.sampled_from("aZ09_- ./é\n"), max_size=70))
@example("a" * 64)
@example("a" * 65)
@example("a\n")
@example("a-")
@example("a_")
@example("-")
@example("")
def test_a_name_is_legal_exactly_by_the_rule(name: str) -> None:
    if _is_legal(name):
        assert check_name("feature group", name) == name
    else:
        with pytest.raises(InvalidInput) as caught:
            check_name("feature group", name)
        assert caught.value.subject == "feature group name"
        assert "1 to 64" in caught.value.hint


@pytest.mark.parametrize("name", [None, 5, b"users", ["users"]])
def test_a_name_is_text(name: object) -> None:
    with pytest.raises(InvalidInput, match="must be text"):
        check_name("feature group", name)
    with pytest.raises(InvalidInput, match="must be text"):
        check_feature_name(name)


def test_a_long_name_is_not_repeated_in_full() -> None:
    with pytest.raises(InvalidInput) as caught:
        check_name("feature group", "x" * 5000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", [*RESERVED_COLUMNS, "IS_DELETED", "tilth_rank", "Tilth_anything"])
def test_the_stores_own_columns_are_taken(name: str) -> None:
    with pytest.raises(InvalidInput, match="is reserved") as caught:
        check_feature_name(name)
    assert caught.value.subject == f"column {name!r}"


@pytest.mark.parametrize("name", ["_", "__x", "_-", "a b", "", "x" * 65])
def test_an_illegal_feature_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_feature_name(name)


@pytest.mark.parametrize("name", ["_x", "x_", "is_deleted_at", "my_tilth_x", "A-1"])
def test_an_ordinary_feature_name_passes(name: str) -> None:
    assert check_feature_name(name) == name
