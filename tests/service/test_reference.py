"""The generated pages are what the code says today."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore import FeatureStore
from foundation.operations import operations_of
from service.reference import PAGES, main

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_current(name):
    assert (ROOT / name).read_text() == PAGES[name](), "run python -m service.reference"


def test_every_operation_and_what_it_takes_is_on_the_page():
    page = PAGES["docs/reference/featurestore.md"]()
    for each in operations_of(FeatureStore):
        _, head, rest = page.partition(f"### `store.{each.name}`\n")
        assert head, each.name
        part = rest.partition("\n### ")[0]
        for parameter in each.parameters:
            assert f"{parameter.name}: " in part, (each.name, parameter.name)


def test_check_says_what_is_out_of_date(capfd, monkeypatch):
    monkeypatch.setitem(PAGES, "docs/cli.md", lambda: "other")
    assert main(["--check"]) == 1
    assert "docs/cli.md: out of date" in capfd.readouterr().out
