"""Compaction: what is chosen, the streaming merge against a plain sort, crashes and cancellation."""

import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import offline_tables as tables
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_tables import effective, group_of, read_run, rows_of

from featurestore.offline import Change, Run, compaction
from featurestore.offline.compaction import APP, compact, logical_runs, plan
from featurestore.offline.delta import DeltaStore
from featurestore.offline.runs import new_name
from foundation.clock import instant_of, system_clock
from foundation.progress import Cancelled


def run_of(size, kind="log"):
    return Run(new_name(kind), 1, size)


def filled(folder, loads, group):
    """A store with a table of runs; each load is (rows, committed_at or 0)."""
    store = DeltaStore(tables.local_files(folder))
    store.create(group)
    first = 1
    for number, (count, committed_at) in enumerate(loads):
        run = store.write_run(group, rows_of(group, count, number, first=first), "load" if committed_at else "log")
        first += count
        if committed_at:
            run = store.publish(group, run, committed_at)
        store.commit(group, Change([run]))
    return store


def ranks(snapshot):
    return sorted(
        rank for place in range(len(snapshot.runs)) for rank in read_run(snapshot, place)["tilth_rank"].to_pylist()
    )


def test_few_or_geometric_runs_are_left_alone():
    assert plan([run_of(1) for _ in range(3)]) == []
    assert plan([run_of(4**power) for power in range(8)]) == []
    assert plan([]) == []
    assert plan([run_of(1)], full=True) == []


def test_small_runs_are_merged_without_the_large_one():
    runs = [run_of(10) for _ in range(4)] + [run_of(1000)]
    assert [parts[0].size for parts in plan(runs)] == [10] * 4
    assert len(plan(runs, full=True)) == 5


def test_parts_of_one_merge_are_one_run():
    parts = [Run(new_name("merge", part, "ab" * 16), 1, 500) for part in (1, 0)]
    other = run_of(3)
    assert sorted(len(found) for found in logical_runs([*parts, other])) == [1, 2]
    assert plan(parts, full=True) == []
    (merged,) = [found for found in logical_runs([*parts, other]) if len(found) == 2]
    assert [run.path[-13:] for run in merged] == ["00000.parquet", "00001.parquet"]


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=300))
def test_runs_stay_few_and_rows_are_rewritten_rarely(sizes):
    """Commit by commit: runs grow with the logarithm of the data, and so does the work."""
    runs: list[Run] = []
    work = total = 0
    for size in sizes:
        runs.append(run_of(size))
        total += size
        while chosen := plan(runs):
            gone = {run.path for parts in chosen for run in parts}
            merged = sum(run.size for run in runs if run.path in gone)
            runs = [run for run in runs if run.path not in gone] + [run_of(merged, "merge")]
            work += merged
        assert len(runs) <= 4 + total.bit_length()
    assert work <= total * (total.bit_length() + 1)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([0, 0, 1])), min_size=2, max_size=6),
    st.integers(1, 12),
    st.integers(0, 3),
)
def test_a_merge_is_a_sort(loads, batch, streamed):
    """Tiny batches, with runs streamed or taken into memory, against sorting everything."""
    late = instant_of(tables.START + timedelta(days=3))
    group = group_of()
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        store = filled(Path(folder), [(count, late * mark) for count, mark in loads], group)
        before = store.snapshot(group)
        wanted = effective(before)
        chosen = plan(before.runs, full=True)
        patch.setattr(
            compaction,
            "_split",
            lambda runs, *_: (list(runs[: len(runs) - streamed]), list(runs[len(runs) - streamed :])),
        )
        merge = compaction._Merge(store, before, chosen, memory=2**24, file_bytes=2**20, progress=None)
        merge._batch = batch
        added = merge.run()
        store.commit(group, Change(added, merge.runs, rewrite=True))
        after = store.snapshot(group)
        held = [row for place in range(len(after.runs)) for row in read_run(after, place).to_pylist()]
        assert held == wanted


def test_many_runs_are_merged_in_several_passes(tmp_path, monkeypatch):
    monkeypatch.setattr(compaction, "_FAN_IN", 3)
    monkeypatch.setattr(compaction, "_width", lambda *_: 2**30)
    group = group_of()
    store = filled(tmp_path, [(10, 0)] * 8, group)
    wanted = effective(store.snapshot(group))
    report = compact(store, group, full=True)
    assert store.position(group, APP) > 1
    assert (report.runs_before, report.runs_after) == (8, 1)
    assert effective(store.snapshot(group)) == wanted


def test_size_tiers_decide_unless_full(tmp_path):
    group = group_of()
    store = filled(tmp_path, [(10, 0)] * 3, group)
    assert compact(store, group).rows == 0
    store.commit(group, Change([store.write_run(group, rows_of(group, 10, 9, first=500), "log")]))
    assert compact(store, group).runs_after == 1
    assert compact(store, group, full=True).rows == 0


class Counting:
    """A progress that remembers, and may stop the work."""

    def __init__(self, stop_after=None):
        self.total, self.count, self.finished, self.stop_after = None, 0, False, stop_after

    def start(self, total, unit):
        self.total = total

    def advance(self, count):
        self.count += count
        if self.stop_after is not None and self.count >= self.stop_after:
            raise Cancelled("stop")

    def done(self):
        self.finished = True


def test_progress_counts_the_rows(tmp_path):
    group = group_of()
    store = filled(tmp_path, [(30, 0)] * 4, group)
    progress = Counting()
    compact(store, group, progress=progress)
    assert (progress.total, progress.count, progress.finished) == (120, 120, True)


def test_a_cancelled_compaction_leaves_nothing(tmp_path):
    group = group_of()
    store = filled(tmp_path, [(30, 0)] * 4, group)
    before = store.snapshot(group)
    with pytest.raises(Cancelled):
        compact(store, group, progress=Counting(stop_after=1))
    assert store.snapshot(group).runs == before.runs
    assert {path.name for path in (tmp_path / before.folder).glob("*.parquet")} == {run.path for run in before.runs}


def test_a_killed_compaction_leaves_only_orphans_that_vacuum_removes(tmp_path):
    group = group_of()
    store = filled(tmp_path, [(1500, 0)] * 4, group)
    wanted = ranks(store.snapshot(group))
    script = (
        "import pickle, sys; from pathlib import Path; import offline_tables as tables\n"
        "from featurestore.offline.delta import DeltaStore; from featurestore.offline.compaction import compact\n"
        "group = pickle.loads(bytes.fromhex(sys.argv[2])); store = DeltaStore(tables.local_files(Path(sys.argv[1])))\n"
        "print('ready', flush=True); compact(store, group, full=True)\n"
    )
    chance = random.Random(4)
    environment = {**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)}
    killed = 0
    for _ in range(3):
        command = [sys.executable, "-c", script, str(tmp_path), pickle.dumps(group).hex()]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0, 0.25))
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        assert ranks(store.snapshot(group)) == wanted
    assert killed
    compact(store, group, full=True)
    snapshot = store.snapshot(group)
    assert ranks(snapshot) == wanted
    later = DeltaStore(
        store.files, clock=type("Later", (), {"now": staticmethod(lambda: system_clock.now() + 10**12)})()
    )
    later.vacuum(group, keep_versions=[], older_than=system_clock.now() + 10**12)
    left = {path.name for path in (tmp_path / snapshot.folder).glob("*.parquet")}
    assert left == {run.path for run in snapshot.runs}
