"""Saved datasets: there whole or not at all, and computed again to the same hash whatever happened since."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import offline_tables
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import servers
from places import Place, at

from featurestore.datasets.builder import start_dataset
from featurestore.datasets.fingerprint import fingerprint_of
from featurestore.datasets.saved import SavedDatasets
from featurestore.offline.compaction import compact
from foundation.errors import Conflict, InvalidInput, NotFound, NotSupported
from foundation.progress import Cancelled


@pytest.fixture
def place(tmp_path):
    one = Place(tmp_path, moment=at(45))
    fill(one)
    yield one
    one.close()


def fill(one):
    one.create("w", "k", [("k", "Integral"), ("at", "Timestamp"), ("x", "Fractional"), ("y", "List<String>")])
    one.write("w", [{"k": n % 7, "at": at(n), "x": n / 3, "y": [str(n), None]} for n in range(60)])
    one.create("late", ["a", "b"], [("a", "String"), ("b", "Integral"), ("at", "Timestamp"), ("paid", "Boolean")])
    one.write("late", [{"a": "p", "b": n, "at": at(40 + n), "paid": n % 2 == 0} for n in range(7)])


def spine(rows=50):
    rng = np.random.default_rng(5)
    keys = pa.array([None if n % 11 == 0 else int(k) for n, k in enumerate(rng.integers(0, 8, rows))])
    seconds = [int((at(float(t)) - at(0)).total_seconds()) for t in rng.uniform(0, 60, rows)]
    base = int(at(0).timestamp())
    return pa.table(
        {
            "ts": pa.array([base + s for s in seconds], pa.timestamp("s", "Europe/Berlin")),
            "k": keys,
            "kind": pa.array(["p"] * rows).dictionary_encode(),
            "amount": pa.array(rng.uniform(0, 1, rows).astype(np.float32)),
            "nan": pa.array([float("nan"), -0.0, None] * rows).slice(0, rows),
        }
    )


def same(one, other):
    """Equal, NaN included, types too."""
    return one.schema.equals(other.schema) and fingerprint_of(one) == fingerprint_of(other)


def full(place, table=None):
    return (
        start_dataset(place, spine() if table is None else table, "ts", known_by="row", columns=["amount", "ts", "nan"])
        .join("w", max_age=timedelta(hours=30))
        .join("w", features=["x"], recent=3, prefix="last_")
        .join_label("late", on={"a": "kind", "b": "k"}, within=timedelta(hours=20), prefix="was_")
        .boundary("<")
    )


def test_what_is_saved_is_what_was_built(place):
    builder = full(place)
    wanted = builder.to_arrow().replace_schema_metadata(None)
    saved = builder.save("churn", "first try")
    assert (saved.id, saved.version, saved.rows, saved.path) == ("churn@v1", 1, 50, "datasets/churn/v1")
    assert saved.description == "first try"
    assert saved.content_hash == fingerprint_of(wanted).content_hash
    assert saved.certificate.passed
    assert saved.certificate.rows == 50
    assert saved.table_versions == {"w": 1, "late": 1}
    store = SavedDatasets(place)
    assert same(store.load("churn@v1"), wanted)
    assert store.get("churn") == store.get("churn@v1") == saved
    folder = Path(place.files.locate(saved.path))
    assert sorted(path.name for path in folder.iterdir()) == [
        "certificate.json",
        "certificate.txt",
        "data.parquet",
        "definition.json",
        "spine.parquet",
    ]
    assert pq.read_table(folder / "spine.parquet").column_names == ["ts", "k", "kind", "amount", "nan"]
    assert json.loads((folder / "certificate.json").read_text())["passed"]
    assert (folder / "certificate.txt").read_text().startswith("Leak certificate: passed")


@pytest.mark.parametrize("slice_rows", [1, 13, 50, 4_000_000])
def test_slices_do_not_change_the_hash(place, slice_rows):
    wanted = fingerprint_of(full(place).to_arrow()).content_hash
    assert full(place).save("churn", slice_rows=slice_rows).content_hash == wanted
    assert SavedDatasets(place).recreate("churn@v1", slice_rows=slice_rows).content_hash == wanted


def test_recreated_after_everything_that_can_happen(place):
    """More data, late data, deletes, compaction, vacuum, new features, a moved clock; the old output is not opened."""
    saved = full(place).save("churn")
    place.write("w", [{"k": n % 7, "at": at(n + 0.5), "x": -1.0} for n in range(100)])
    place.write("w", [{"k": 3, "at": at(20), "hard": True, "write": at(1)}, {"k": 2, "at": at(30), "deleted": True}])
    place.write("late", [{"a": "p", "b": n, "at": at(1 + n), "paid": True} for n in range(7)])
    place.evolve("w", [("z", "Integral")])
    place.write("w", [{"k": 1, "at": at(2), "x": 7.0, "z": 4, "sequence": 99_999, "replaces": True}])
    store = SavedDatasets(place)
    for name in ("w", "late"):
        compact(place.offline, place.group(name), full=True)
    place.moment = at(20_000)
    removed = []
    for name in ("w", "late"):
        keep = store.pinned_versions(name)
        assert keep == {1}
        removed += place.offline.vacuum(place.group(name), keep_versions=keep, older_than=2**62)
    assert removed, "the vacuum had something to take away"
    Path(place.files.locate(f"{saved.path}/data.parquet")).unlink()
    again = store.recreate("churn@v1")
    assert again.content_hash == saved.content_hash
    assert again.table.num_rows == 50
    assert fingerprint_of(full(place).to_arrow()).content_hash != saved.content_hash, "today it would be another"
    assert store.recreate("churn", keep=False).table is None


def test_labels_do_not_mature_by_waiting(place):
    saved = full(place).save("churn")
    place.moment = at(30_000)
    nulls = saved.certificate.features[-1].nulls
    assert nulls["not mature"] > 0
    assert SavedDatasets(place).recreate("churn").content_hash == saved.content_hash


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("joins", "first in column 'x'"),
        ("versions", "first in column 'x'"),
        ("spine", "the spine kept with 'churn@v1' is not the one"),
    ],
)
def test_a_difference_is_named(place, broken, told):
    saved = full(place).save("churn")
    place.write("w", [{"k": n % 7, "at": at(n + 0.25), "x": -1.0} for n in range(60)])
    folder = Path(place.files.locate(saved.path))
    definition = json.loads((folder / "definition.json").read_text())
    if broken == "joins":
        definition["joins"][0]["max_age"] = 1
    elif broken == "versions":
        definition["table_versions"][0] = 2
    else:
        table = pq.read_table(folder / "spine.parquet")
        pq.write_table(table.set_column(3, "amount", pa.array(np.zeros(50, np.float32))), folder / "spine.parquet")
    (folder / "definition.json").write_text(json.dumps(definition))
    with pytest.raises(Conflict) as caught:
        SavedDatasets(place).recreate("churn")
    assert told in caught.value.message


def test_another_group_of_the_name_is_not_taken_for_it(place):
    full(place).save("churn")
    place.create("w", "k", [("k", "Integral"), ("at", "Timestamp"), ("x", "Fractional"), ("y", "List<String>")])
    with pytest.raises(Conflict, match="made anew"):
        SavedDatasets(place).recreate("churn")
    assert SavedDatasets(place).pinned_versions("w") == set()


@pytest.mark.parametrize("by", [None, ["k"], "ts"])
def test_splits_are_saved_apart_and_recreated(place, by):
    builder = full(place, spine().filter(pa.array([True] * 50))).split({"train": 0.6, "test": 0.4}, by=by)
    saved = builder.save("churn")
    store = SavedDatasets(place)
    table = builder.to_arrow().replace_schema_metadata(None)
    assert same(store.load("churn"), table), "the whole of it, in spine order"
    for part in ("train", "test"):
        wanted = table.filter(pa.compute.equal(table["split"], part))
        assert same(store.load("churn", part), wanted)
        assert saved.parts[part] == wanted.num_rows
    place.write("w", [{"k": n % 7, "at": at(n + 0.5), "x": -1.0} for n in range(60)])
    assert same(store.recreate("churn").table, table)
    with pytest.raises(NotFound, match="'trian'"):
        store.load("churn", "trian")


def test_versions_count_up_and_are_not_used_again(place):
    store = SavedDatasets(place)
    builder = start_dataset(place, spine(), "ts").join("w", features="x")
    assert [builder.save("a").id, builder.save("a").id, builder.save("b").id] == ["a@v1", "a@v2", "b@v1"]
    store.delete("a@v2")
    assert not place.files.exists("datasets/a/v2")
    assert builder.save("a").id == "a@v3"
    assert [saved.id for saved in store.list()] == ["a@v1", "a@v3", "b@v1"]
    assert [saved.id for saved in store.list("a")] == ["a@v1", "a@v3"]
    assert store.get("a").id == "a@v3"
    for missing in ("a@v2", "c"):
        with pytest.raises(NotFound):
            store.get(missing)
    with pytest.raises(NotFound):
        store.delete("a")


def test_pins_go_with_the_dataset(place):
    store = SavedDatasets(place)
    builder = start_dataset(place, spine(), "ts").join("w", features="x")
    builder.save("a")
    place.write("w", [{"k": 1, "at": at(1), "x": 0.0}])
    builder.save("a")
    assert store.pinned_versions("w") == store.pinned_versions(place.group("w")) == {1, 2}
    assert store.pinned_versions("late") == set()
    store.delete("a@v1")
    assert store.pinned_versions("w") == {2}


def test_versions_are_pinned_while_a_save_is_under_way(place):
    seen = []

    class Look:
        def start(self, total, unit):
            seen.append(SavedDatasets(place).pinned_versions("w"))

        def advance(self, count):
            pass

        def done(self):
            pass

    start_dataset(place, spine(), "ts").join("w").save("a", progress=Look())
    assert seen == [{1}]
    assert place.catalog.find("dataset in the making").entries == ()


def test_names_and_types_that_cannot_be_saved(place):
    builder = start_dataset(place, spine(), "ts").join("w", features="x")
    with pytest.raises(InvalidInput, match=r"'\.\./a'"):
        builder.save("../a")
    odd = spine().append_column("u", pa.array([(1, 2, 3)] * 50, pa.month_day_nano_interval()))
    with pytest.raises(NotSupported, match="interval"):
        start_dataset(place, odd, "ts").save("a")
    assert not place.files.exists("datasets/a")
    assert place.catalog.find("dataset in the making").entries == ()


def left_behind(place):
    root = Path(place.files.locate("datasets"))
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) if root.exists() else []


def test_a_cancelled_or_failed_save_leaves_nothing(place):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        full(place).save("a", cancel=cancel)
    bad = pa.table({"k": [1, 1], "ts": ["2024-01-02T00:00:00Z", "?"]})
    with pytest.raises(InvalidInput, match="row 1"):
        start_dataset(place, bad, "ts").join("w").save("a", slice_rows=1)
    assert left_behind(place) == []
    assert SavedDatasets(place).list() == []


@pytest.fixture(scope="session")
def s3():
    with servers.required_parts(), offline_tables.s3_server() as host:
        yield host


def test_in_s3_the_entry_alone_makes_a_dataset_visible(s3, tmp_path):
    place = Place(tmp_path, moment=at(45), files=offline_tables.s3_files(s3))
    fill(place)
    store = SavedDatasets(place)
    builder = full(place).split({"a": 0.5, "b": 0.5})
    saved = builder.save("churn")
    assert same(store.load("churn"), builder.to_arrow().replace_schema_metadata(None))
    place.write("w", [{"k": n % 7, "at": at(n + 0.5), "x": -1.0} for n in range(60)])
    assert store.recreate("churn", keep=False).content_hash == saved.content_hash
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        builder.save("churn", cancel=cancel)
    assert store.sweep() == []
    store.delete("churn@v1")
    assert not place.files.exists(saved.path)
    place.close()


SAVER = """
import sys
from pathlib import Path
import pyarrow as pa
from places import Place, at
from featurestore.datasets.builder import start_dataset
from featurestore.groups import FeatureGroup
root = Path(sys.argv[1])
place = Place(root)
for entry in place.catalog.find("group").entries:
    place.groups[entry.name] = FeatureGroup.from_document(entry.document)
spine = pa.table({"k": [n % 7 for n in range(300)], "ts": [float(at(n / 5).timestamp()) for n in range(300)]})
print("ready", flush=True)
while True:
    saved = start_dataset(place, spine, "ts").join("w").split({"a": 0.5, "b": 0.5}).save("killed", slice_rows=50)
    print(saved.id, saved.content_hash, flush=True)
"""


def test_killed_at_any_point_a_dataset_is_whole_or_not_there(place, tmp_path):
    for group in place.groups.values():
        place.catalog.create("group", group.name, group.to_document())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    told = {}
    for turn in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.05 + 0.13 * turn)
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()
        told |= dict(line.split() for line in lines if len(line.split()) == 2)
    store = SavedDatasets(place)
    listed = {saved.id: saved for saved in store.list()}
    assert set(told) <= set(listed), "what was confirmed is there"
    for saved in listed.values():
        table = store.load(saved.id)
        assert fingerprint_of(table).content_hash == saved.content_hash
        assert saved.certificate.passed
    if listed:
        assert store.recreate("killed").table.num_rows == 300
    whole = {saved.path for saved in listed.values()}
    place.moment = at(10_000 + 25)
    store.sweep()
    left = {"datasets/" + "/".join(path.split("/")[:2]) for path in left_behind(place)}
    assert left == whole, "a day later nothing else is left"


def test_a_sweep_spares_what_is_being_saved(place):
    builder = full(place)
    store = SavedDatasets(place)
    kept = builder.save("a")

    class Sweep:
        swept = None

        def start(self, total, unit):
            Sweep.swept = store.sweep()

        def advance(self, count):
            pass

        def done(self):
            pass

    other = builder.save("b", progress=Sweep())
    assert Sweep.swept == []
    assert same(store.load(kept.id), store.load(other.id))


def test_a_damaged_file_is_named(place):
    saved = start_dataset(place, spine(), "ts").join("w").save("a")
    path = Path(place.files.locate(f"{saved.path}/data.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InvalidInput, match=r"datasets/a/v1/data\.parquet"):
        SavedDatasets(place).load("a")
    Path(place.files.locate(f"{saved.path}/definition.json")).unlink()
    with pytest.raises(NotFound, match=r"definition\.json is gone"):
        SavedDatasets(place).recreate("a")
