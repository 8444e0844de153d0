"""Every benchmark runs at small sizes and reports figures for ours; nothing here looks at how fast."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks import ingest, online, pit_join, report
from benchmarks.timing import Rounds, Side, SideFailed, in_turn

COMMON = ["--no-peers", "--rounds", "1"]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    return tmp_path


def _kept(folder: Path, name: str) -> dict[str, dict[str, str]]:
    saved = json.loads((folder / "results" / f"{name}-small.json").read_text())
    assert saved["machine"]["cores"] == str(os.cpu_count())
    return {heading: {row["what"]: row["value"] for row in rows} for heading, rows in saved["tables"].items()}


def test_pit_join(results: Path) -> None:
    sizes = ["--rows", "3000", "--entities", "300", "--spine", "500", "--large", "4000", "--large-spine", "300"]
    pit_join.main([*COMMON, *sizes, "--cache", str(results)])
    tables = _kept(results, "pit_join")
    assert len(tables) == len(pit_join.SECTIONS)
    one = tables["One group"]
    assert {"ingest", "compaction", "tilth"} <= set(one)
    assert sum(name.startswith("polars join_asof") for name in one) == 2
    assert sum(name.startswith("bare read") for name in one) == 4


def test_pit_join_finds_a_wrong_answer(results: Path) -> None:
    class Liar:
        def __init__(self, value: float) -> None:
            self.value = value

        def ask(self, do: str, out: Path) -> None:
            import pyarrow as pa
            import pyarrow.feather as feather

            feather.write_feather(pa.table({"row": [1, 0], "f0": [self.value, None]}), out, compression="uncompressed")

    place = pit_join.Place(results, peers=False)
    found = pit_join._wrong(place, Liar(1.0), {}, {"same": (Liar(1.0), {}), "other": (Liar(2.0), {})})
    assert found == {"same": "", "other": "1 of 2 cells differ"}


def test_online(results: Path) -> None:
    online.main([*COMMON, "--rows", "600", "--peer-rows", "200", "--gets", "400", "--cache", str(results)])
    tables = _kept(results, "online")
    assert len(tables["Embedded store, in process"]) == 3
    assert tables["Redis, one record a call"].keys() == {"tilth get_record", "redis-py GET of the same bytes"}
    assert tables["Redis, 100 records a call"].keys() == {"tilth get_records"}


def test_ingest(results: Path) -> None:
    ingest.main([*COMMON, "--rows", "2000", "--online-rows", "300", "--cache", str(results)])
    (rows,) = _kept(results, "ingest").values()
    assert len(rows) == 4


def test_sides_take_turns_and_ratios_are_taken_in_pairs() -> None:
    order: list[str] = []

    def side(name: str, costs: list[float]) -> object:
        return lambda: (order.append(name), costs.pop(0))[1]

    taken = in_turn({"a": side("a", [9.0, 1.0, 4.0, 6.0]), "b": side("b", [9.0, 2.0, 2.0, 2.0])}, 3)  # type: ignore[dict-item]
    assert order == ["a", "b"] * 4
    assert taken == Rounds({"a": [1.0, 4.0, 6.0], "b": [2.0, 2.0, 2.0]})
    assert taken.median("a") == 4.0
    assert taken.ratio("b", "a") == 0.5


def test_a_side_that_fails_says_why() -> None:
    with Side("benchmarks.sides.polars_side") as side, pytest.raises(SideFailed, match="nowhere"):
        side.ask("spine", path="nowhere.parquet")


def test_a_saved_report_keeps_the_tables_another_run_measured(results: Path) -> None:
    first = report.Report("x", "X", "uv run x", "about", True)
    first.add("A", report.Line("ours", "1 s"))
    first.add("B", report.Line("ours", "1 s"))
    first.save()
    second = report.Report("x", "X", "uv run x", "about", True)
    second.add("B", report.Line("ours", "2 s", "0.5x", ">= 1x", False))
    second.save()
    page = report.render(["x", "not measured"])
    assert [line for line in page.splitlines() if line.startswith("| ours")] == [
        "| ours | 2 s | 0.5x | >= 1x | **missed** |",
        "| ours | 1 s |  |  |  |",
    ]
    other = report.Report("x", "X", "uv run x", "about other sizes", True)
    other.add("C", report.Line("ours", "3 s"))
    other.save()
    assert "| ours | 1 s |" not in report.render(["x"])


def test_a_missed_target_is_shown_and_small_sizes_judge_nothing() -> None:
    costs = Rounds({"ours": [1.0], "peer": [2.0]})
    for full, met in ((True, False), (False, None)):
        shown = report.Report("x", "X", "x", "about", full)
        shown.peer("T", costs, "ours", "peer", at_least=3)
        assert shown.tables["T"][0].met is met
        assert shown.tables["T"][0].ratio == "2.00x ours"
