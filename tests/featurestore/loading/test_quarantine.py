"""Refused rows: kept once per load, durable before they are reported, readable by load."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from featurestore.groups import FeatureGroup, define_group
from featurestore.loading.frames import REJECTS
from featurestore.loading.quarantine import Quarantine
from foundation import delta
from foundation.errors import NotFound
from foundation.files.local import LocalFiles, sync_path
from foundation.schema import Schema


@pytest.fixture
def group() -> FeatureGroup:
    schema = Schema.of([("id", "String"), ("t", "Timestamp"), ("v", "Integral")])
    return define_group("g", record_id="id", event_time="t", schema=schema, now=7)


def rejects(*rows: tuple[int, str, str]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"row": row, "field": field, "reason": reason, "record": f'{{"id": "{row}"}}'} for row, field, reason in rows],
        schema=REJECTS,
    )


def test_rows_come_back_by_load_and_row_with_their_reasons(tmp_path: Path, group: FeatureGroup) -> None:
    quarantine = Quarantine(LocalFiles(tmp_path))
    assert quarantine.read(group).num_rows == 0
    assert quarantine.loads(group) == []
    assert quarantine.add(group, "aa", rejects((5, "v", "bad"), (2, "v", "bad"), (9, "t", "late")), at=1_000_000) == 3
    assert quarantine.add(group, "bb", rejects((0, "v", "bad")), at=2_000_000) == 1
    assert [row["row"] for row in quarantine.read(group, "aa").to_pylist()] == [2, 5, 9]
    assert quarantine.read(group, limit=2).num_rows == 2
    newest, oldest = quarantine.loads(group)
    assert (newest.load, newest.at, newest.rows) == ("bb", 2_000_000, 1)
    assert (oldest.load, oldest.rows, oldest.reasons) == ("aa", 3, {("v", "bad"): 2, ("t", "late"): 1})
    with pytest.raises(NotFound, match="cc"):
        quarantine.read(group, "cc")


def test_the_same_load_again_replaces_what_it_left(tmp_path: Path, group: FeatureGroup) -> None:
    quarantine = Quarantine(LocalFiles(tmp_path))
    quarantine.add(group, "aa", rejects((1, "v", "bad"), (2, "v", "bad")), at=1)
    quarantine.add(group, "bb", rejects((1, "v", "bad")), at=2)
    quarantine.add(group, "aa-9", rejects((7, "v", "bad")), at=2_500_000)
    quarantine.add(group, "aa", rejects((1, "v", "bad")), at=3_000_000)
    held = [(row["load"], row["row"]) for row in quarantine.read(group).to_pylist()]
    assert held == [("aa", 1), ("aa-9", 7), ("bb", 1)]
    assert quarantine.read(group, "aa").column("row").to_pylist() == [1, 7]


def test_loads_at_the_same_time_all_stay(tmp_path: Path, group: FeatureGroup) -> None:
    quarantines = [Quarantine(LocalFiles(tmp_path)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = [
            pool.submit(quarantine.add, group, f"load{place}", rejects((place, "v", "bad")), at=place)
            for place, quarantine in enumerate(quarantines)
        ]
        assert [each.result() for each in done] == [1, 1, 1, 1]
    assert sorted(quarantines[0].read(group).column("row").to_pylist()) == [0, 1, 2, 3]


def test_file_then_log_entry_are_fsynced(tmp_path: Path, group: FeatureGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def watch(path: Path) -> None:
        synced.append(os.path.relpath(path, tmp_path))
        sync_path(path)

    monkeypatch.setattr("foundation.files.local.sync_path", watch)
    quarantine = Quarantine(LocalFiles(tmp_path))
    quarantine.add(group, "aa", rejects((1, "v", "bad")), at=1)
    folder = f"quarantine/{group.folder}"
    file = next(path for path in synced if path.endswith(".parquet"))
    entry = f"{folder}/{delta.LOG}/{1:020d}.json"
    assert synced.index(file) < synced.index(entry)
    assert f"{folder}/{delta.LOG}" in synced[synced.index(entry) :]


def test_a_failed_write_leaves_nothing(tmp_path: Path, group: FeatureGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    quarantine = Quarantine(LocalFiles(tmp_path))
    quarantine.add(group, "aa", rejects((1, "v", "bad")), at=1)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("foundation.appends.delta.commit", full)
    with pytest.raises(OSError, match="No space"):
        quarantine.add(group, "bb", rejects((1, "v", "bad")), at=2)
    assert [path.name[:2] for path in (tmp_path / "quarantine" / group.folder).glob("*.parquet")] == ["aa"]
    assert quarantine.read(group).num_rows == 1


def test_dropping_forgets(tmp_path: Path, group: FeatureGroup) -> None:
    quarantine = Quarantine(LocalFiles(tmp_path))
    quarantine.add(group, "aa", rejects((1, "v", "bad")), at=1)
    quarantine.drop(group)
    assert quarantine.read(group).num_rows == 0
