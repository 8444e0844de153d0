"""DeltaStore on a local folder: checkpoints, repair, paths Delta cannot use, many small commits."""

import offline_tables as tables
import pytest
from offline_tables import group_of, rows_of

from featurestore.offline import Change
from featurestore.offline.delta import DeltaStore
from foundation.errors import NotSupported, PlatformError, Unavailable


@pytest.fixture
def group():
    return group_of(columns=[("id", "Integral"), ("at", "Timestamp"), ("x", "Fractional")], record_id="id")


def made(folder, group):
    store = DeltaStore(tables.local_files(folder))
    store.create(group)
    return store


def test_checkpoints_are_made_on_the_way_and_old_versions_stay(tmp_path, group):
    store = made(tmp_path, group)
    store.commit(group, Change([store.write_run(group, rows_of(group, 5), "log")]))
    for position in range(70):
        store.commit(group, Change([], app=("log/0", position + 1)), expected=position)
    log = tmp_path / store.folder(group) / "_delta_log"
    assert len(list(log.glob("*.checkpoint.parquet"))) == 2
    assert len(list(log.glob("*.json"))) == 72
    assert store.snapshot(group, 1).runs == store.snapshot(group).runs
    assert store.snapshot(group, 0).runs == ()
    assert store.position(group, "log/0") == 70


def test_a_checkpoint_torn_by_power_loss_is_mended_when_the_table_is_opened(tmp_path, group):
    store = made(tmp_path, group)
    for position in range(40):
        store.commit(group, Change([], app=("log/0", position + 1)), expected=position)
    (checkpoint,) = (tmp_path / store.folder(group) / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(b"")
    assert store.position(group, "log/0") == 40
    assert not checkpoint.exists()


def test_a_log_damaged_in_the_middle_is_told_not_mended(tmp_path, group):
    store = made(tmp_path, group)
    for position in range(3):
        store.commit(group, Change([], app=("log/0", position + 1)), expected=position)
    entry = tmp_path / store.folder(group) / "_delta_log" / f"{2:020d}.json"
    entry.write_text("{ torn")
    with pytest.raises(PlatformError, match="cannot be read"):
        store.position(group, "log/0")
    assert entry.exists()


def test_a_folder_delta_cannot_name_is_refused(tmp_path, group):
    with pytest.raises(NotSupported, match="%"):
        made(tmp_path / "100%20", group)


def test_a_service_that_does_not_answer_is_unavailable(group):
    from servers import free_port

    from foundation.files import open_files

    url = f"s3://key:secret@bucket/x?endpoint=http://127.0.0.1:{free_port()}&region=us-east-1"
    files = open_files(url)
    files.storage_options = {**files.storage_options, "max_retries": "0", "retry_timeout": "1s"}
    with pytest.raises(Unavailable):
        DeltaStore(files).snapshot(group)
