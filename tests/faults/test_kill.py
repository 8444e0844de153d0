"""kill -9 at random points: what was acknowledged is there once, nothing twice, and both stores agree."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

import featurestore

WORKER = Path(__file__).with_name("crash_worker.py")
SCHEMA = pa.schema(
    [("id", pa.int64()), ("ts", pa.timestamp("us", tz="UTC")), ("uid", pa.string()), ("value", pa.float64())]
)


def start(place, online, worker, seed):
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(place), online, str(worker), str(seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_some(place, online, *, workers, seed):
    """Run workers for a random while, kill all at once, return the acknowledged ids."""
    chance = random.Random(seed)
    running = [start(place, online, worker, seed) for worker in range(workers)]
    for process in running:
        line = process.stdout.readline()
        assert line == "READY\n", process.stderr.read()
    time.sleep(chance.uniform(0.1, 2.5))
    for process in running:
        process.send_signal(signal.SIGKILL)
    acked = []
    for process in running:
        out, err = process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL, err
        *lines, _ = out.split("\n")  # a line cut off by the kill has no newline
        acked += [uid for line in lines if line.startswith("ACK") for uid in line.split()[1:]]
    return acked


def check(place, online, acked):
    with featurestore.open(place, online=online) as store:
        store.flush()
        table = store.workspace.files.locate(f"offline/{store.get_group('events').folder}")
        frame = pl.scan_delta(table).collect()
        report = store.verify("events")
    counts = Counter(uid for uid in frame["uid"].to_list() if uid is not None)
    lost = [uid for uid in acked if counts[uid] == 0]
    doubled = [uid for uid, count in counts.items() if count > 1]
    assert not lost, f"{len(lost)} acknowledged records lost: {lost[:5]}"
    assert not doubled, f"{len(doubled)} records doubled: {doubled[:5]}"
    assert report.ok, report.differences[:3]


def make(place, online):
    with featurestore.open(place, online=online) as store:
        store.create_group("events", record_id="id", event_time="ts", schema=SCHEMA)


def run_rounds(place, online, count):
    make(place, online)
    acked = []
    for seed in range(count):
        acked += kill_some(place, online, workers=1 + seed % 2, seed=seed + os.getpid() % 1000)
        check(place, online, acked)
    assert acked


def test_two_writers_killed_lose_and_double_nothing(tmp_path):
    run_rounds(tmp_path / "place", "embedded:", 2)


def test_two_writers_in_front_of_redis_killed_lose_and_double_nothing(tmp_path, valkey):
    run_rounds(tmp_path / "place", valkey.url, 2)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_thirty_kills_lose_and_double_nothing(tmp_path):
    run_rounds(tmp_path / "place", "embedded:", 30)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_thirty_kills_in_front_of_redis_lose_and_double_nothing(tmp_path, valkey):
    run_rounds(tmp_path / "place", valkey.url, 30)
