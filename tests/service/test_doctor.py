"""The doctor finds what is broken, says how to mend it, and breaks nothing."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import pyarrow as pa
import pytest

import featurestore
from service import doctor
from service.cli import run

SCHEMA = pa.schema([("id", pa.int64()), ("at", pa.timestamp("us", tz="UTC")), ("x", pa.float64())])


@pytest.fixture
def place(tmp_path):
    path = tmp_path / "w"
    with featurestore.open(path) as store:
        store.create_group("g", "id", "at", SCHEMA)
        store.put_record("g", {"id": 1, "at": datetime(2024, 1, 1, tzinfo=UTC), "x": 1.0})
    return path


def findings(path, what=""):
    return [each for each in doctor.examine(path) if each.what.startswith(what)]


def test_a_sound_workspace_is_sound(place, capfd):
    assert {each.status for each in findings(place)} == {"ok"}
    names = [each.what for each in findings(place)]
    for what in ("packages", "parts", "disk", "workspace", "catalog", "online store", "write log", "groups"):
        assert what in names
    assert findings(place, "offline table of g")[0].detail == "version 1, 1 rows in 1 runs, every file readable"
    assert run(["doctor", "-w", str(place), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["ok"] is True


def test_no_workspace_fails_and_none_is_made(tmp_path, capfd):
    assert run(["doctor", "-w", str(tmp_path / "none")]) == 1
    assert "fail  workspace: there is none" in capfd.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_and_a_missing_one_are_named(place):
    path = next((place / "files").rglob("*.parquet"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    found = findings(place, "offline table of g")[0]
    assert found.status == "fail"
    assert path.name in found.detail
    path.unlink()
    found = findings(place, "offline table of g")[0]
    assert (found.status, path.name in found.detail) == ("fail", True)
    path.write_bytes(whole)
    assert findings(place, "offline table of g")[0].status == "ok"


def test_files_nobody_knows_are_counted(place):
    path = next((place / "files").rglob("*.parquet"))
    shutil.copy(path, path.with_name("log-0000000000000000000000000000000f.parquet"))
    found = findings(place, "offline table of g")[1]
    assert found.status == "warn"
    assert found.detail.startswith("1 files no table version knows, log-")


def test_a_damaged_catalog_fails(place):
    path = place / "catalog.sqlite"
    data = bytearray(path.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    path.write_bytes(data)
    failed = [each for each in findings(place) if each.status == "fail"]
    assert failed
    assert "catalog.sqlite" in failed[0].detail


def test_a_load_that_was_cut_off_is_told(place):
    from featurestore.writes.pending import PendingLoad

    with featurestore.open(place) as store:
        group = store.get_group("g")
        store._parts.pending.plan(group, PendingLoad("abc", (), store._parts.clock.now()))
        found = [each for each in store.examine() if each.what == "loads of g"]
    assert found[0].status == "warn"
    assert "abc" in found[0].detail


def test_rows_still_in_the_log_are_counted(place):
    with featurestore.open(place) as store:
        store.put_record("g", {"id": 2, "at": datetime(2024, 1, 1, tzinfo=UTC), "x": 1.0})
        found = [each for each in store.examine() if each.what == "log of g"]
    assert found[0].detail.startswith("1 rows are durable in the log")


def test_a_newer_workspace_is_refused_with_the_reason(place):
    path = place / "workspace.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "format": 99}))
    found = findings(place, "workspace")
    assert (found[0].status, "format 99" in found[0].detail) == ("fail", True)


def test_redis_is_reached_and_its_policy_is_looked_at(valkey, tmp_path, monkeypatch):
    monkeypatch.setenv("TILTH_ONLINE", valkey.url)
    with featurestore.open(tmp_path / "w") as store:
        store.create_group("g", "id", "at", SCHEMA)
    found = findings(tmp_path / "w", "online store")[0]
    assert found.status in ("ok", "warn")
    assert "maxmemory-policy noeviction" in found.detail
    monkeypatch.setenv("TILTH_ONLINE", "redis://127.0.0.1:1/0")
    (tmp_path / "w" / "workspace.json").write_text(
        (tmp_path / "w" / "workspace.json").read_text().replace(valkey.url.rstrip("/"), "redis://127.0.0.1:1/0")
    )
    assert findings(tmp_path / "w", "online store")[0].status == "fail"
