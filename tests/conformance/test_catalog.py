"""What every Catalog does. ``catalog_url`` names the backends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation.catalog import Catalog, open_catalog
from foundation.clock import Clock
from foundation.errors import AlreadyExists, Conflict, InvalidInput, NotFound, PlatformError

GROUP = "feature group"


@pytest.fixture(params=["sqlite"])
def catalog_url(request, tmp_path: Path) -> str:
    return f"{request.param}://{tmp_path}/catalog.sqlite"


@pytest.fixture
def catalog(catalog_url: str):
    ticks = iter(range(1000, 10**9, 10))
    opened = open_catalog(catalog_url, clock=Clock(lambda: next(ticks)))
    yield opened
    opened.close()


def test_a_document_comes_back_as_it_was_given(catalog: Catalog) -> None:
    document = {"a": [1, 2.5, None, True], "text": 'Ä ☃ "quoted" \'', "deep": {"x": {"y": []}}}
    made = catalog.create(GROUP, "users", document, actor="ann", note="first")
    assert made == catalog.get(GROUP, "users")
    assert made.document == document
    assert (made.version, made.created_at, made.updated_at) == (1, 1000, 1000)
    made.document["a"].append("changed")
    assert catalog.get(GROUP, "users").document == document


def test_a_taken_name_is_refused_and_kinds_do_not_share_names(catalog: Catalog) -> None:
    catalog.create(GROUP, "users", {})
    catalog.create("dataset", "users", {})
    with pytest.raises(AlreadyExists, match="feature group 'users' exists already"):
        catalog.create(GROUP, "users", {"x": 1})
    assert catalog.get(GROUP, "users").document == {}


def test_a_missing_name_is_told_with_a_close_one(catalog: Catalog) -> None:
    catalog.create(GROUP, "airport-weather", {})
    for ask in (
        lambda: catalog.get(GROUP, "airport-wether"),
        lambda: catalog.delete(GROUP, "airport-wether"),
        lambda: catalog.update(GROUP, "airport-wether", {}, expected_version=1),
    ):
        with pytest.raises(NotFound) as caught:
            ask()
        assert caught.value.hint == "did you mean 'airport-weather'?"
        assert caught.value.subject == "feature group 'airport-wether'"


def test_an_update_needs_the_version_it_was_decided_on(catalog: Catalog) -> None:
    first = catalog.create(GROUP, "users", {"n": 1})
    second = catalog.update(GROUP, "users", {"n": 2}, expected_version=first.version)
    assert (second.version, second.created_at) == (2, first.created_at)
    assert second.updated_at > first.updated_at
    with pytest.raises(Conflict, match="at version 2, not 1"):
        catalog.update(GROUP, "users", {"n": 3}, expected_version=1)
    with pytest.raises(Conflict):
        catalog.delete(GROUP, "users", expected_version=1)
    assert catalog.get(GROUP, "users") == second


def test_a_name_used_again_never_repeats_a_version(catalog: Catalog) -> None:
    held = catalog.create(GROUP, "users", {"n": 1})
    catalog.delete(GROUP, "users")
    again = catalog.create(GROUP, "users", {"n": 2})
    assert again.version > held.version
    with pytest.raises(Conflict):
        catalog.update(GROUP, "users", {"n": 9}, expected_version=held.version)


@pytest.mark.parametrize("bad", [{"x": float("nan")}, {"x": object()}, {"x": {1, 2}}, {"x": "\ud800"}, {"x": b"raw"}])
def test_a_document_must_be_plain_json(catalog: Catalog, bad: dict) -> None:
    with pytest.raises(InvalidInput, match="not plain JSON"):
        catalog.create(GROUP, "users", bad)
    with pytest.raises(NotFound):
        catalog.get(GROUP, "users")
    assert catalog.generation() == 0


@pytest.mark.parametrize("bad", ["", "x" * 513, "a\0b", 7])
def test_a_name_must_be_text_of_a_sane_length(catalog: Catalog, bad: object) -> None:
    with pytest.raises(InvalidInput, match="catalog name"):
        catalog.create(GROUP, bad, {})
    with pytest.raises(InvalidInput, match="catalog kind"):
        catalog.create(bad, "users", {})


def test_every_change_leaves_who_what_and_when(catalog: Catalog) -> None:
    catalog.create(GROUP, "users", {}, actor="ann", note="made")
    catalog.update(GROUP, "users", {"x": 1}, expected_version=1, actor="bob", action="add features", note="x")
    catalog.create(GROUP, "other", {})
    catalog.delete(GROUP, "users", actor="cid", note="gone")
    seen = [(e.actor, e.action, e.version, e.detail) for e in catalog.audit(GROUP, "users")]
    assert seen == [("cid", "delete", 2, "gone"), ("bob", "add features", 2, "x"), ("ann", "create", 1, "made")]
    whole = catalog.audit()
    assert [e.name for e in whole] == ["users", "other", "users", "users"]
    assert whole[1].actor, "someone must have done it when nobody is named"
    assert [e.at for e in whole] == sorted((e.at for e in whole), reverse=True)
    assert catalog.audit(since=whole[1].at, limit=1) == whole[:1]
    assert catalog.audit(since=whole[1].at) == whole[:2]
    assert catalog.audit("dataset") == []


def test_a_refused_change_leaves_no_trace(catalog: Catalog) -> None:
    catalog.create(GROUP, "users", {})
    before = (catalog.audit(), catalog.generation())
    with pytest.raises(AlreadyExists):
        catalog.create(GROUP, "users", {})
    with pytest.raises(Conflict):
        catalog.update(GROUP, "users", {}, expected_version=5)
    assert (catalog.audit(), catalog.generation()) == before


def test_the_generation_counts_changes_and_is_told_before_they_count(catalog: Catalog, catalog_url: str) -> None:
    told: list[tuple[int, int]] = []
    reader = open_catalog(catalog_url)
    catalog.on_change = lambda coming: told.append((coming, reader.generation()))
    catalog.create(GROUP, "a", {})
    catalog.update(GROUP, "a", {}, expected_version=1)
    catalog.delete(GROUP, "a")
    catalog.next_number("group")
    assert told == [(1, 0), (2, 1), (3, 2)]
    assert catalog.generation() == reader.generation() == 3
    reader.close()


def test_an_error_of_the_hook_undoes_the_change(catalog: Catalog) -> None:
    def refuse(_: int) -> None:
        raise Conflict("not now")

    catalog.on_change = refuse
    with pytest.raises(Conflict, match="not now"):
        catalog.create(GROUP, "a", {})
    catalog.on_change = None
    with pytest.raises(NotFound):
        catalog.get(GROUP, "a")
    assert catalog.audit() == []
    assert catalog.generation() == 0
    assert catalog.create(GROUP, "a", {}).version == 1


def test_numbers_count_up_by_counter(catalog: Catalog, catalog_url: str) -> None:
    assert [catalog.next_number("group") for _ in range(3)] == [1, 2, 3]
    assert catalog.next_number("generation") == 1, "a counter may have any name"
    other = open_catalog(catalog_url)
    assert other.next_number("group") == 4
    other.close()
    assert catalog.generation() == 0


# -- finding ---------------------------------------------------------------------------------------------------------


def _names(entries) -> list[str]:
    return [entry.name for entry in entries]


def test_filters_compare_fields_tags_and_ranges(catalog: Catalog) -> None:
    odd = 'a.b"c$[0]'
    catalog.create(GROUP, "w", {"online": True, "ttl": None, "tags": {"team": "risk", odd: "1"}})
    catalog.create(GROUP, "x", {"online": False, "ttl": 60, "tags": {"team": "risk"}})
    catalog.create(GROUP, "y", {"online": True, "ttl": 90, "tags": {}})
    catalog.create("dataset", "z", {"online": True, "tags": {"team": "risk"}})

    def found(**filters: object) -> str:
        return "".join(_names(catalog.find(GROUP, filters=filters).entries))

    assert found() == "wxy"
    assert found(online=True) == "wy"
    assert found(online=False) == "x"
    assert found(ttl=None) == "w"
    assert found(ttl=(60, 80)) == "x"
    assert found(ttl=(61, None)) == "y"
    assert found(ttl=(None, None)) == "wxy"
    assert found(**{"tags.team": "risk"}) == "wx"
    assert found(**{"tags.team": "risk", "online": True}) == "w"
    assert found(**{f"tags.{odd}": "1"}) == "w"
    assert found(**{"tags.team": "none"}) == ""
    assert found(missing=1) == ""
    assert found(created_at=(1010, 1020)) == "xy"
    assert found(version=1) == "wxy"
    with pytest.raises(InvalidInput, match="names no field"):
        found(**{"tags') OR 1=1 --": "x"})
    for bad in ([1], {"a": 1}, object(), 2**70, (1,), (1, 2, 3), ([], None)):
        with pytest.raises(InvalidInput, match="cannot compare"):
            found(ttl=bad)


def test_names_are_matched_whatever_their_case(catalog: Catalog) -> None:
    for name in ("Weather", "ÜBER-users", "flights_100%"):
        catalog.create(GROUP, name, {})
    assert _names(catalog.find(GROUP, name_contains="EATH").entries) == ["Weather"]
    assert _names(catalog.find(GROUP, name_contains="über").entries) == ["ÜBER-users"]
    assert _names(catalog.find(GROUP, name_contains="%").entries) == ["flights_100%"]
    assert _names(catalog.find(GROUP, name_contains="_").entries) == ["flights_100%"]


@given(
    count=st.integers(0, 12),
    limit=st.integers(1, 5),
    sort=st.sampled_from(["name", "created_at", "updated_at"]),
    descending=st.booleans(),
    touched=st.lists(st.integers(0, 11), max_size=6),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_hold_every_entry_once_in_order(tmp_path_factory, count, limit, sort, descending, touched) -> None:
    catalog = open_catalog(f"sqlite://{tmp_path_factory.mktemp('c')}/catalog.sqlite")
    for number in range(count):
        catalog.create(GROUP, f"g{(number * 7) % 12:02}", {})
    for number in touched:
        name = f"g{number:02}"
        if name in _names(catalog.find(GROUP).entries):
            catalog.update(GROUP, name, {}, expected_version=catalog.get(GROUP, name).version)
    seen, token = [], None
    while True:
        page = catalog.find(GROUP, sort=sort, descending=descending, limit=limit, token=token)
        assert len(page.entries) <= limit
        seen += page.entries
        token = page.next_token
        if token is None:
            break
    assert len(seen) == count
    assert seen == sorted(seen, key=lambda e: (getattr(e, sort), e.name), reverse=descending)
    catalog.close()


def test_a_token_belongs_to_its_question(catalog: Catalog) -> None:
    for number in range(5):
        catalog.create(GROUP, f"g{number}", {})
    token = catalog.find(GROUP, limit=2).next_token
    assert token is not None
    assert _names(catalog.find(GROUP, limit=3, token=token).entries) == ["g2", "g3", "g4"]
    for other in ({"descending": True}, {"sort": "created_at"}, {"name_contains": "g"}, {"filters": {"a": 1}}):
        with pytest.raises(InvalidInput, match="does not belong"):
            catalog.find(GROUP, token=token, **other)
    for bad in ("", "???", "bm90anNvbg==", "W10=", "MQ==", "☃"):
        with pytest.raises(InvalidInput, match="does not belong"):
            catalog.find(GROUP, token=bad)


@pytest.mark.parametrize("bad", [{"sort": "version"}, {"sort": "x; DROP"}, {"limit": 0}, {"limit": 1001}])
def test_a_bad_question_is_refused(catalog: Catalog, bad: dict) -> None:
    with pytest.raises(InvalidInput, match=r"sort|limit"):
        catalog.find(GROUP, **bad)


def test_search_looks_in_names_descriptions_tags_parameters_and_features(catalog: Catalog) -> None:
    catalog.create(
        GROUP,
        "weather",
        {
            "description": "Hourly at the airport",
            "folder": "hidden-folder",
            "tags": {"Team": "Ops"},
            "features": [{"name": "wind_gust", "type": "Fractional", "parameters": {"unit": "mph"}, "description": ""}],
        },
    )
    catalog.create(GROUP, "airport", {"description": "weather stations"})
    catalog.create(GROUP, "airports-weather", {})
    catalog.create("dataset", "delays", {"description": "uses WEATHER"})
    assert _names(catalog.search("weather")) == ["weather", "airports-weather", "airport", "delays"]
    assert _names(catalog.search("Weather", [GROUP])) == ["weather", "airports-weather", "airport"]
    assert _names(catalog.search("weather airport")) == ["airports-weather", "airport", "weather"]
    for word in ("gust", "MPH", "unit", "ops", "team", "hourly"):
        assert _names(catalog.search(word)) == ["weather"], word
    for word in ("hidden-folder", "Fractional", "nothing", "weather nothing", " ", ""):
        assert catalog.search(word) == [], word
    assert _names(catalog.search("weather", limit=1)) == ["weather"]
    catalog.update(GROUP, "weather", {"description": "now about tides"}, expected_version=1)
    assert catalog.search("gust") == []
    assert _names(catalog.search("tides")) == ["weather"]


# -- many at once ----------------------------------------------------------------------------------------------------


def _count_to(url: str, who: str, rounds: int, gate) -> None:
    catalog = open_catalog(url)
    gate.wait(30)
    for number in range(rounds):
        catalog.create(GROUP, f"{who}-{number}", {"by": who}, actor=who)
        catalog.next_number("shared")
        while True:
            held = catalog.get(GROUP, "counter")
            try:
                catalog.update(
                    GROUP, "counter", {"n": held.document["n"] + 1}, expected_version=held.version, actor=who
                )
                break
            except Conflict:
                continue
    catalog.close()


def test_four_processes_opening_creating_and_updating_lose_nothing(catalog_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    catalog = open_catalog(catalog_url)
    catalog.create(GROUP, "counter", {"n": 0})
    gate = context.Barrier(4)
    rounds = 12
    workers = [context.Process(target=_count_to, args=(catalog_url, f"p{n}", rounds, gate)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    assert catalog.get(GROUP, "counter").document == {"n": 4 * rounds}
    assert catalog.get(GROUP, "counter").version == 4 * rounds + 1
    assert catalog.next_number("shared") == 4 * rounds + 1
    assert len(catalog.find(GROUP, limit=1000).entries) == 4 * rounds + 1
    assert catalog.generation() == len(catalog.audit(limit=1000)) == 8 * rounds + 1
    catalog.close()


def test_threads_share_one_catalog(catalog: Catalog) -> None:
    catalog.create(GROUP, "counter", {"n": 0})
    numbers: list[int] = []

    def work() -> None:
        for _ in range(25):
            numbers.append(catalog.next_number("n"))
            while True:
                held = catalog.get(GROUP, "counter")
                try:
                    catalog.update(GROUP, "counter", {"n": held.document["n"] + 1}, expected_version=held.version)
                    break
                except Conflict:
                    continue

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(numbers) == list(range(1, 101))
    assert catalog.get(GROUP, "counter").document == {"n": 100}


def _write_until_killed(url: str, acknowledged: Path) -> None:
    catalog = open_catalog(url)
    with acknowledged.open("a") as told:
        number = 0
        while True:
            number += 1
            entry = catalog.create(GROUP, f"g{number}", {"n": number})
            catalog.update(GROUP, f"g{number}", {"n": -number}, expected_version=entry.version)
            told.write(f"{number}\n")
            told.flush()


@pytest.mark.parametrize("wait", [0.02, 0.05, 0.11])
def test_a_killed_process_leaves_every_acknowledged_change_and_nothing_half_done(
    catalog_url: str, tmp_path: Path, wait: float
) -> None:
    told = tmp_path / "told"
    worker = multiprocessing.get_context("spawn").Process(target=_write_until_killed, args=(catalog_url, told))
    worker.start()
    patience = time.monotonic() + 60
    while not (told.exists() and told.stat().st_size) and time.monotonic() < patience:
        time.sleep(0.005)
    time.sleep(wait)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(30)
    acknowledged = [int(line) for line in told.read_text().splitlines() if line]
    assert acknowledged
    catalog = open_catalog(catalog_url)
    for number in acknowledged:
        assert catalog.get(GROUP, f"g{number}").document == {"n": -number}
    trail = catalog.audit(limit=10**6)
    assert catalog.generation() == len(trail)
    versions = {entry.name: entry.version for entry in catalog.find(GROUP, limit=1000).entries}
    latest: dict[str, int] = {}
    for change in reversed(trail):
        latest[change.name] = change.version
    assert {name: latest[name] for name in versions} == versions
    catalog.create(GROUP, "after", {})
    catalog.close()


# -- places ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "catalog.db", "oracle://x/y", "sqlite:///", "sqlite:relative", "sqlite:///dir/"])
def test_a_url_that_names_no_catalog_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_catalog(url)
    assert caught.value.subject == "setting catalog"
    assert "sqlite:///folder/file" in caught.value.hint


def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    place = tmp_path / "catalog.sqlite"
    place.write_bytes(b"not a database, but long enough to be read as one\n" * 40)
    before = place.read_bytes()
    with pytest.raises(InvalidInput, match="not a readable SQLite file"):
        open_catalog(place.as_uri().replace("file:", "sqlite:"))
    assert place.read_bytes() == before


def test_a_newer_format_is_refused(catalog_url: str) -> None:
    open_catalog(catalog_url).close()
    raw = sqlite3.connect(catalog_url.partition("://")[2])
    raw.execute("UPDATE numbers SET value = 99 WHERE name = 'format'")
    raw.commit()
    raw.close()
    with pytest.raises(Conflict, match="format 99"):
        open_catalog(catalog_url)


def test_a_folder_below_a_file_is_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(PlatformError):
        open_catalog(f"sqlite://{tmp_path}/file/below/catalog.sqlite")


def test_a_closed_catalog_says_so(catalog_url: str) -> None:
    catalog = open_catalog(catalog_url)
    catalog.close()
    with pytest.raises(Conflict, match="closed"):
        catalog.generation()


def test_a_backend_has_the_signatures_of_the_seam(catalog: Catalog) -> None:
    import inspect

    for name, declared in inspect.getmembers(Catalog, inspect.isfunction):
        if name.startswith("_"):
            continue
        wanted = inspect.signature(declared)
        given_ = inspect.signature(getattr(type(catalog), name))
        assert wanted == given_, name
