"""What is on disk when commit returns, seen in a trace of the process's own system calls."""

import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    import offline_tables as tables
    from featurestore.offline import Change
    from featurestore.offline.delta import DeltaStore

    def mark(text):
        os.access("/mark/" + text, os.F_OK)

    store, group = DeltaStore(tables.local_files(Path(sys.argv[1]))), tables.group_of()
    mark("create")
    store.create(group)
    mark("write")
    run = store.write_run(group, tables.rows_of(group, 20), "load")
    mark("publish")
    run = store.publish(group, run, 1)
    mark("commit")
    store.commit(group, Change([run], app=("log/0", 1)), expected=0)
    mark("end")
    """
)
CALLS = "fsync,fdatasync,open,openat,rename,renameat,renameat2,link,linkat,access,faccessat,faccessat2,close"


def traced(folder, trace):
    """Steps of the script, each with what it did in order: ("fsync", path) and ("name", path)."""
    environment = {**os.environ, "PYTHONPATH": ":".join(path for path in sys.path if path)}
    command = ["strace", "-f", "-y", "-s", "400", "-e", f"trace={CALLS}", "-o", str(trace)]
    done = subprocess.run(
        [*command, sys.executable, "-c", SCRIPT, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    if done.returncode and "ptrace" in done.stderr.lower():
        pytest.skip(f"strace may not trace here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    steps: dict[str, list[tuple[str, str]]] = {}
    step: list[tuple[str, str]] = []
    for line in trace.read_text().splitlines():
        if found := re.search(r'access\w*\(.*"/mark/(\w+)"', line):
            step = steps.setdefault(found[1], [])
        elif found := re.search(r"f(?:data)?sync\(\d+<([^>]+)>", line):
            step.append(("fsync", found[1]))
        elif found := re.search(r'(?:(?:rename|link)\w*\(.*"([^"]+)"[^"]*$|open\w*\(.*"([^"]+)", [^)]*O_CREAT)', line):
            step.append(("name", found[1] or found[2]))
    return steps


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_data_is_synced_before_the_log_entry_and_the_log_entry_before_commit_returns(tmp_path):
    root = tmp_path / "root"
    steps = traced(root, tmp_path / "trace")
    (table,) = (root / "offline").iterdir()
    (data,) = table.glob("*.parquet")
    log = table / "_delta_log"
    synced = {name: [path for kind, path in step if kind == "fsync"] for name, step in steps.items()}
    named = {name: [path for kind, path in step if kind == "name"] for name, step in steps.items()}
    assert {str(log / f"{0:020d}.json"), str(log), str(table), str(root / "offline")} <= set(synced["create"])
    written = [path for path in synced["write"] if path.endswith(".parquet")]
    assert written, "the data file is not synced when write_run returns"
    assert synced["write"].index(written[0]) < synced["write"].index(str(table))
    assert str(data) in named["publish"]
    moved = steps["publish"].index(("name", str(data)))
    assert ("fsync", str(table)) in steps["publish"][moved:], "the rename is not durable before the commit"
    entry = str(log / f"{1:020d}.json")
    assert entry in named["commit"]
    made = steps["commit"].index(("name", entry))
    after = [path for kind, path in steps["commit"][made:] if kind == "fsync"]
    assert entry in after
    assert str(log) in after
    assert after.index(entry) < after.index(str(log))
