"""What an offline store is: every row committed is there once, in sorted files, at every version not vacuumed."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import offline_tables as tables
import polars as pl
import pyarrow as pa
import pytest
import servers
from offline_tables import effective, group_of, order_of, read_run, rows_of

from featurestore.offline import Change, Run, offline_schema
from featurestore.offline.compaction import APP, compact
from featurestore.offline.delta import DeltaStore
from foundation import delta
from foundation.clock import instant_of, system_clock
from foundation.errors import Conflict, InvalidInput, NotFound, NotSupported
from foundation.schema import Schema

HOUR = 3_600_000_000


@pytest.fixture(scope="session")
def s3():
    with servers.required_parts(), tables.s3_server() as host:
        yield host


@pytest.fixture(params=["folder", "s3"])
def files(request, tmp_path):
    if request.param == "folder":
        return tables.local_files(tmp_path / "a place")
    return tables.s3_files(request.getfixturevalue("s3"))


@pytest.fixture
def store(files):
    return DeltaStore(files)


@pytest.fixture
def group(store):
    made = group_of()
    store.create(made)
    return made


def add(store, group, rows, name="log", **change):
    run = store.write_run(group, rows, name)
    return store.commit(group, Change([run], **change))


def add_load(store, group, rows, committed_at):
    run = store.publish(group, store.write_run(group, rows, "load"), committed_at)
    return run, store.commit(group, Change([run]))


def test_creating_twice_keeps_what_is_there(store, group):
    version = add(store, group, rows_of(group, 5))
    store.create(group)
    assert store.snapshot(group).version == version
    assert sum(run.rows for run in store.snapshot(group).runs) == 5


def test_a_new_table_is_empty(store, group):
    snapshot = store.snapshot(group)
    assert snapshot.runs == ()
    assert store.position(group, "log/0") == 0


def test_a_group_without_table_is_not_found(store):
    with pytest.raises(NotFound, match="no offline table"):
        store.snapshot(group_of("absent"))


def test_rows_come_back_exactly_and_in_order(store, group):
    rows = rows_of(group, 300)
    add(store, group, rows)
    held = read_run(store.snapshot(group), 0)
    assert held.schema.equals(offline_schema(group))
    assert held.to_pylist() == sorted(rows.to_pylist(), key=order_of(group))


def test_a_run_is_invisible_until_committed(store, group):
    run = store.write_run(group, rows_of(group, 5), "log")
    assert store.snapshot(group).runs == ()
    store.commit(group, Change([run]))
    assert store.snapshot(group).runs == (run,)


def test_an_empty_run_can_be_written(store, group):
    run = store.write_run(group, rows_of(group, 0), "log")
    store.commit(group, Change([run]))
    assert read_run(store.snapshot(group), 0).num_rows == 0


def test_commits_fence_by_position(store, group):
    assert store.commit(group, Change([], app=("log/0", 7)), expected=0) == 1
    assert store.position(group, "log/0") == 7
    with pytest.raises(Conflict, match="is 7, expected 0"):
        store.commit(group, Change([], app=("log/0", 7)), expected=0)
    assert store.commit(group, Change([], app=("log/0", 9)), expected=7) == 2
    assert store.position(group, "log/1") == 0


def test_racing_flushers_commit_each_position_once(store, files, group):
    """Four flushers, each with a store of its own, race through the same log."""

    def flush(seed):
        mine = DeltaStore(files)
        conflicts = 0
        while (position := mine.position(group, "log/0")) < 8:
            run = mine.write_run(group, rows_of(group, 1, seed, first=position + 1), "log")
            try:
                mine.commit(group, Change([run], app=("log/0", position + 1)), expected=position)
            except Conflict:
                mine.discard(group, [run])
                conflicts += 1
        return conflicts

    with ThreadPoolExecutor(4) as pool:
        conflicts = list(pool.map(flush, range(4)))
    ranks = sorted(abs(row["tilth_rank"]) for row in effective(store.snapshot(group)))
    assert ranks == list(range(1, 9))
    assert sum(conflicts) > 0


def test_writers_of_different_positions_do_not_conflict(store, files, group):
    def write(number):
        mine = DeltaStore(files)
        for step in range(4):
            run = mine.write_run(group, rows_of(group, 1, first=number * 10 + step), "log")
            mine.commit(group, Change([run], app=(f"log/{number}", step + 1)), expected=step)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    assert len(store.snapshot(group).runs) == 12
    assert [store.position(group, f"log/{number}") for number in range(3)] == [4, 4, 4]


def test_a_commit_returns_the_version_it_made(store, files, group):
    def write(number):
        mine = DeltaStore(files)
        run = mine.write_run(group, rows_of(group, 1, first=number), f"log-{number}")
        return number, mine.commit(group, Change([run]))

    with ThreadPoolExecutor(4) as pool:
        made = dict(pool.map(write, range(1, 9)))
    for entry in store.history(group)[1:]:
        (added,) = entry.added
        number = int(added.path.split("-")[1])
        assert made[number] == entry.version


def test_earlier_versions_stay(store, group):
    first = add(store, group, rows_of(group, 5))
    then = effective(store.snapshot(group))
    add(store, group, rows_of(group, 5, 1, first=100))
    compact(store, group, full=True)
    pinned = store.snapshot(group, first)
    assert pinned.version == first
    assert effective(pinned) == then


@pytest.mark.parametrize("version", [-1, 1, 99])
def test_an_unknown_version_is_not_found(store, group, version):
    with pytest.raises(NotFound, match=f"no offline version {version}"):
        store.snapshot(group, version)


def test_a_missing_file_is_told_by_name(store, group):
    version = add(store, group, rows_of(group, 5))
    (run,) = store.snapshot(group).runs
    store.files.delete(f"{store.folder(group)}/{run.path}")
    with pytest.raises(NotFound, match=run.path):
        store.snapshot(group, version)


def test_a_file_that_was_never_written_cannot_be_committed(store, group):
    ghost = Run(f"log-{'0' * 32}.parquet", 1, 1)
    with pytest.raises(NotFound, match="is gone"):
        store.commit(group, Change([ghost]))


def test_a_load_keeps_its_commit_instant(store, group):
    rows = rows_of(group, 5)
    run, version = add_load(store, group, rows, instant_of(tables.START) + 48 * HOUR)
    snapshot = store.snapshot(group)
    assert snapshot.runs == (run,)
    assert run.committed_at == instant_of(tables.START) + 48 * HOUR
    assert version == snapshot.version


def test_loads_since_a_version_are_listed_also_when_merged_away(store, group):
    add(store, group, rows_of(group, 5))
    first, at_first = add_load(store, group, rows_of(group, 5, 1, first=10), 111)
    second, at_second = add_load(store, group, rows_of(group, 5, 2, first=20), 222)
    compact(store, group, full=True)
    assert list(store.runs_since(group, 0)) == [(at_first, first), (at_second, second)]
    assert list(store.runs_since(group, at_first)) == [(at_second, second)]
    assert list(store.runs_since(group, at_second)) == []


def test_columns_are_added_and_older_runs_stay(store, group):
    add(store, group, rows_of(group, 5))
    grown = group.with_features(Schema.of([("extra", "Integral"), ("tags", "Set<String>")]), now=1)
    store.evolve(grown)
    version = store.snapshot(grown).version
    store.evolve(grown)
    assert store.snapshot(grown).version == version
    add(store, grown, rows_of(grown, 5, 1, first=10))
    compact(store, grown, full=True)
    (run,) = store.snapshot(grown).runs
    held = read_run(store.snapshot(grown), 0)
    assert run.rows == 10
    assert held.schema.equals(offline_schema(grown))
    assert held.column("extra").null_count == 10


def test_compaction_with_an_outdated_group_loses_no_column(store, group):
    grown = group.with_features(Schema.of([("extra", "Integral")]), now=1)
    store.evolve(grown)
    for first in (1, 10):
        add(store, grown, rows_of(grown, 5, first, first=first))
    before = store.snapshot(grown).runs
    with pytest.raises(Conflict, match="extra"):
        compact(store, group, full=True)
    assert store.snapshot(grown).runs == before


def test_compaction_leaves_every_row_once(store, group):
    for number in range(4):
        add(store, group, rows_of(group, 40, number, first=1 + 40 * number))
    add_load(store, group, rows_of(group, 40, 9, first=1000), instant_of(tables.START) + 96 * HOUR)
    before = effective(store.snapshot(group))
    report = compact(store, group, full=True)
    snapshot = store.snapshot(group)
    assert (report.runs_before, report.runs_after, report.rows) == (5, 1, 200)
    assert [run.committed_at for run in snapshot.runs] == [0]
    assert read_run(snapshot, 0).to_pylist() == before
    assert store.history(group)[-1].operation
    assert {added.data_change for added in store.history(group)[-1].added} == {False}


def test_compaction_never_loses_or_doubles_rows_of_racing_writers(store, files, group):
    for number in range(3):
        add(store, group, rows_of(group, 20, number, first=1 + 20 * number))
    stop = threading.Event()

    def append(number):
        mine = DeltaStore(files)
        count = 0
        while not stop.is_set():
            first = (number + 1) * 100_000 + count
            run = mine.write_run(group, rows_of(group, 1, number, first=first), "log")
            mine.commit(group, Change([run], app=(f"log/{number}", count + 1)), expected=count)
            count += 1
        return count

    def merge(_):
        mine = DeltaStore(files)
        for _ in range(3):
            try:
                compact(mine, group, full=True)
            except Conflict:
                continue

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(append, number) for number in range(2)]
        mergers = [pool.submit(merge, number) for number in range(2)]
        for merger in mergers:
            merger.result()
        stop.set()
        counts = [writer.result() for writer in writers]
    ranks = sorted(abs(row["tilth_rank"]) for row in effective(store.snapshot(group)))
    wanted = [*range(1, 61)]
    for number, count in enumerate(counts):
        wanted += range((number + 1) * 100_000, (number + 1) * 100_000 + count)
    assert ranks == wanted
    assert store.position(group, APP) >= 1


def test_the_slower_of_two_compactions_gives_way(store, files, group):
    """Both merge the same runs; the second commit must not bring the rows a second time."""
    for number in range(2):
        add(store, group, rows_of(group, 20, number, first=1 + 20 * number))
    other = DeltaStore(files)
    position, snapshot = other.position(group, APP), other.snapshot(group)
    whole = pa.concat_tables([read_run(snapshot, place) for place in range(2)])
    merged = other.write_run(group, whole, "merge")
    compact(store, group, full=True)
    with pytest.raises(Conflict):
        other.commit(group, Change([merged], snapshot.runs, app=(APP, position + 1), rewrite=True), expected=position)
    with pytest.raises(Conflict, match="removed by another commit"):
        other.commit(group, Change([merged], snapshot.runs, rewrite=True))
    assert sum(run.rows for run in store.snapshot(group).runs) == 40


def test_discarding_spares_what_was_committed(store, group):
    kept = store.write_run(group, rows_of(group, 5), "log")
    lost = store.write_run(group, rows_of(group, 5), "log")
    store.commit(group, Change([kept]))
    store.discard(group, [kept, lost])
    assert store.snapshot(group).runs == (kept,)
    assert not store.files.exists(f"{store.folder(group)}/{lost.path}")


def test_vacuum_keeps_pinned_and_young_versions(store, group):
    first = add(store, group, rows_of(group, 5))
    second = add(store, group, rows_of(group, 5, 1, first=10))
    compact(store, group, full=True)
    pinned = effective(store.snapshot(group, first))
    now = system_clock.now()
    assert store.vacuum(group, keep_versions=[], older_than=now - HOUR) == []
    gone = store.vacuum(group, keep_versions=[first], older_than=now + HOUR)
    assert len(gone) == 1
    assert effective(store.snapshot(group, first)) == pinned
    with pytest.raises(NotFound, match="gone"):
        store.snapshot(group, second)
    assert sum(run.rows for run in store.snapshot(group).runs) == 10


def test_vacuum_spares_files_of_writes_under_way(store, group):
    run = store.write_run(group, rows_of(group, 5), "log")
    assert store.vacuum(group, keep_versions=[], older_than=system_clock.now() + HOUR) == []
    store.commit(group, Change([run]))
    assert effective(store.snapshot(group))


def test_vacuum_removes_old_files_no_commit_knows(store, files, group):
    run = store.write_run(group, rows_of(group, 5), "merge")
    later = DeltaStore(files, clock=type("Later", (), {"now": staticmethod(lambda: system_clock.now() + 30 * HOUR)})())
    assert later.vacuum(group, keep_versions=[], older_than=system_clock.now() - HOUR) == []
    assert later.vacuum(group, keep_versions=[], older_than=system_clock.now() + HOUR) == [run.path]


def test_a_version_to_keep_must_exist(store, group):
    with pytest.raises(NotFound, match="version 5"):
        store.vacuum(group, keep_versions=[5], older_than=0)


def test_a_dropped_table_is_gone(store, group):
    add(store, group, rows_of(group, 5))
    store.drop(group)
    assert not store.files.exists(store.folder(group))
    with pytest.raises(NotFound):
        store.snapshot(group)
    store.drop(group)


def test_a_dropped_table_can_be_made_again(store, group):
    add(store, group, rows_of(group, 5), app=("log/0", 5))
    store.drop(group)
    store.create(group)
    assert store.snapshot(group).runs == ()
    assert store.position(group, "log/0") == 0


def test_other_tools_read_it_as_plain_delta(store, files, tmp_path):
    files = files if files.url.startswith("s3:") else tables.local_files(tmp_path / "plain")
    store, group = DeltaStore(files), group_of()
    store.create(group)
    for number in range(3):
        add(store, group, rows_of(group, 30, number, first=1 + 30 * number))
    compact(store, group, full=True)
    add(store, group, rows_of(group, 30, 5, first=500))
    options = dict(files.storage_options) or None
    frame = pl.scan_delta(files.locate(store.folder(group)), storage_options=options)
    assert frame.select(pl.len()).collect().item() == 120
    some = frame.filter(pl.col("id") == 2, pl.col("site") == "é").collect()
    wanted = [row for row in effective(store.snapshot(group)) if row["id"] == 2 and row["site"] == "é"]
    assert sorted(some["tilth_rank"].to_list()) == sorted(row["tilth_rank"] for row in wanted)
    old = pl.scan_delta(files.locate(store.folder(group)), version=1, storage_options=options)
    assert old.select(pl.len()).collect().item() == 30


def test_rows_of_another_shape_are_refused(store, group):
    rows = rows_of(group, 3)
    with pytest.raises(InvalidInput, match="x"):
        store.write_run(group, rows.drop_columns(["x"]), "log")
    with pytest.raises(InvalidInput, match="x"):
        store.write_run(group, rows.set_column(3, "x", pa.array([1, 2, 3], pa.int64())), "log")
    place = rows.schema.get_field_index("at")
    nulls = rows.set_column(place, rows.schema.field(place), pa.nulls(3, rows.schema.field(place).type))
    with pytest.raises(InvalidInput, match="null"):
        store.write_run(group, nulls, "log")
    assert store.snapshot(group).runs == ()


@pytest.mark.parametrize("name", ["", "Log", "load-5", "../x", "a/b", "9"])
def test_odd_run_names_are_refused(store, group, name):
    with pytest.raises(InvalidInput, match="run name"):
        store.write_run(group, rows_of(group, 1), name)


def test_a_table_another_tool_wrote_to_is_refused(store, files, group):
    run = store.write_run(group, rows_of(group, 5), "log")
    folder = store.folder(group)
    files.filesystem.move(f"{folder}/{run.path}", f"{folder}/part-00000.parquet")
    table = delta.load(f"{files.url}/{folder}", options=files.storage_options)
    file = delta.DataFile("part-00000.parquet", run.size, run.rows)
    delta.commit(table, added=[file], removed=[], data_change=True, app=None, note={}, now=1)
    with pytest.raises(NotSupported, match="part-00000"):
        store.snapshot(group)


def test_a_failed_commit_changes_nothing(store, group):
    run = store.write_run(group, rows_of(group, 5), "log")
    store.commit(group, Change([run], app=("log/0", 5)))
    again = store.write_run(group, rows_of(group, 5), "log")
    with pytest.raises(Conflict):
        store.commit(group, Change([again], app=("log/0", 6)), expected=4)
    assert store.snapshot(group).runs == (run,)
    assert store.position(group, "log/0") == 5


def test_a_removed_run_keeps_its_identity(store, group):
    version = add(store, group, rows_of(group, 5))
    (run,) = store.snapshot(group, version).runs
    with pytest.raises(Conflict):
        store.commit(group, Change([], [replace(run, path=f"log-{'0' * 32}.parquet")]))
    store.commit(group, Change([], [run]))
    assert store.snapshot(group).runs == ()
