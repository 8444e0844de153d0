"""The facts about Delta the offline store rests on, and the repair of a torn log."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foundation import delta
from foundation.errors import Conflict, NotFound, NotSupported, PlatformError
from foundation.files.local import LocalFiles

SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.float64())])


@pytest.fixture
def files(tmp_path):
    return LocalFiles(tmp_path)


@pytest.fixture
def location(files):
    where = f"{files.url}/t"
    delta.create(where, SCHEMA, name="t", options={})
    return where


def load(location, version=None):
    return delta.load(location, version, options={})


def commit(table, number=None, app=None, removed=(), folder=None, data_change=True):
    added = []
    if number is not None:
        pq.write_table(pa.table({"id": [number], "x": [0.5]}, schema=SCHEMA), folder / f"{number}.parquet")
        added = [delta.DataFile(f"{number}.parquet", (folder / f"{number}.parquet").stat().st_size, 1, 5)]
    note = {"number": number}
    delta.commit(table, added=added, removed=removed, data_change=data_change, app=app, note=note, now=7)


def test_a_stale_table_cannot_commit_an_application_id_that_moved(location):
    stale = load(location)
    commit(load(location), app=("a", 1))
    with pytest.raises(Conflict):
        commit(stale, app=("a", 2))
    assert delta.position(load(location), "a") == 1


def test_a_stale_table_can_commit_another_application_id(location):
    stale = load(location)
    commit(load(location), app=("a", 1))
    commit(stale, app=("b", 1))
    table = load(location)
    assert (delta.position(table, "a"), delta.position(table, "b"), delta.position(table, "c")) == (1, 1, None)


def test_a_repeated_version_is_not_refused_by_delta_itself(location):
    """Why callers compare the position first."""
    commit(load(location), app=("a", 1))
    commit(load(location), app=("a", 1))
    assert load(location).version() == 2


def test_the_object_is_not_refreshed_by_its_commit(location, tmp_path):
    table = load(location)
    commit(table, 1, folder=tmp_path / "t")
    assert table.version() == 0
    assert delta.files_of(table) == []


def test_removing_a_file_that_another_commit_removed_is_a_conflict(location, tmp_path):
    commit(load(location), 1, folder=tmp_path / "t")
    table, other = load(location), load(location)
    (file,) = delta.files_of(table)
    commit(other, removed=[file], app=("a", 1))
    with pytest.raises(Conflict):
        commit(table, removed=[file], app=("a", 1))


def test_positions_outlive_checkpoints(location):
    for version in range(1, 4):
        commit(load(location), app=("a", version))
    assert delta.checkpoint(load(location))
    commit(load(location), app=("b", 9))
    table = load(location)
    assert (delta.position(table, "a"), delta.position(table, "b")) == (3, 9)
    assert load(location, 1).version() == 1


def test_entries_tell_what_each_commit_did(location, files, tmp_path):
    commit(load(location), 1, folder=tmp_path / "t")
    (file,) = delta.files_of(load(location))
    commit(load(location), 2, removed=[file], folder=tmp_path / "t", data_change=False)
    made, first, second = delta.entries(files.filesystem, "t")
    assert (made.version, made.added, made.note) == (0, (), {})
    assert [(add.path, add.rows, add.data_change) for add in first.added] == [("1.parquet", 1, True)]
    assert (second.removed, second.added[0].data_change, second.note) == (("1.parquet",), False, {"number": 2})
    assert 0 < made.at <= first.at <= second.at
    assert [entry.version for entry in delta.entries(files.filesystem, "t", 1, 1)] == [1]


def test_a_gap_in_the_log_is_told(location, files, tmp_path):
    for number in (1, 2):
        commit(load(location), number, folder=tmp_path / "t")
    files.delete(delta.entry_path("t", 1))
    with pytest.raises(NotFound, match="log entry 1"):
        list(delta.entries(files.filesystem, "t"))


@pytest.mark.parametrize("version", [-1, 1, 10**9])
def test_a_missing_version_is_not_found(location, version):
    with pytest.raises(NotFound, match=f"no version {version}"):
        load(location, version)


def test_a_missing_table_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="no table"):
        load((tmp_path / "none").as_uri())


def test_columns_keep_their_order_and_metadata(location):
    tagged = pa.field("tags", pa.list_(pa.string()), metadata={b"tilth.type": b"Set<String>"})
    delta.add_columns(load(location), pa.schema([tagged]))
    table = load(location)
    assert delta.columns_of(table) == ["id", "x", "tags"]
    assert table.schema().fields[2].metadata == {"tilth.type": "Set<String>"}


@pytest.mark.parametrize(
    "configuration", [{"delta.columnMapping.mode": "name"}, {"delta.enableDeletionVectors": "true"}]
)
def test_tables_whose_files_do_not_speak_for_themselves_are_refused(location, tmp_path, configuration):
    log = tmp_path / "t" / "_delta_log" / f"{0:020d}.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "metaData" in action:
            action["metaData"]["configuration"] |= configuration
        if "protocol" in action:
            feature = "columnMapping" if "delta.columnMapping.mode" in configuration else "deletionVectors"
            action["protocol"] = {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": [feature],
                "writerFeatures": [feature],
            }
    log.write_text("".join(json.dumps(action) + "\n" for action in actions))
    with pytest.raises((NotSupported, PlatformError)):
        delta.refuse_foreign(load(location))


def test_partitioned_tables_are_refused(tmp_path):
    where = (tmp_path / "p").as_uri()
    delta.DeltaTable.create(where, schema=SCHEMA, partition_by=["id"])
    with pytest.raises(NotSupported, match="partitions"):
        delta.refuse_foreign(load(where))


def test_a_torn_checkpoint_is_healed(location, files, tmp_path):
    for version in range(1, 4):
        commit(load(location), app=("a", version))
    delta.checkpoint(load(location))
    commit(load(location), app=("a", 4))
    log = tmp_path / "t" / "_delta_log"
    (checkpoint,) = log.glob("*.checkpoint.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(PlatformError):
        delta.position(load(location), "a")
    assert sorted(delta.heal(files.filesystem, "t")) == [
        "t/_delta_log/" + checkpoint.name,
        "t/_delta_log/_last_checkpoint",
    ]
    assert delta.position(load(location), "a") == 4
    assert delta.heal(files.filesystem, "t") == []


def test_a_torn_newest_entry_is_healed(location, files, tmp_path):
    for version in range(1, 3):
        commit(load(location), app=("a", version))
    newest = tmp_path / "t" / "_delta_log" / f"{2:020d}.json"
    newest.write_bytes(newest.read_bytes()[:-20])
    assert delta.heal(files.filesystem, "t") == [delta.entry_path("t", 2)]
    assert delta.position(load(location), "a") == 1
    commit(load(location), app=("a", 2))
    assert load(location).version() == 2
