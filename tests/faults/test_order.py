"""The order of what reaches the disk, as the kernel saw it: offline files before the log forgets their rows."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import servers

SCRIPT = Path(__file__).with_name("flush_script.py")


def test_offline_files_are_fsynced_before_the_log_is_trimmed(tmp_path):
    with servers.required_parts():
        if shutil.which("strace") is None:
            raise servers.MissingPart("strace, which shows the order of system calls, is not installed")
    trace = tmp_path / "trace"
    subprocess.run(
        [
            *("strace", "-f", "-y", "-s", "64", "-o", str(trace)),
            *("-e", "trace=fsync,fdatasync,pwrite64,pwritev,write"),
            *(sys.executable, str(SCRIPT), str(tmp_path / "place")),
        ],
        check=True,
        capture_output=True,
        timeout=240,
    )
    lines = trace.read_text(errors="replace").splitlines()
    first = next(i for i, line in enumerate(lines) if "BEFORE FLUSH" in line)
    last = next(i for i, line in enumerate(lines) if "AFTER FLUSH" in line)
    flush = lines[first:last]

    def places(pattern):
        return [i for i, line in enumerate(flush) if re.search(pattern, line)]

    data = places(r"f(data)?sync\(\d+<[^>]*\.parquet>")
    entry = places(r"fsync\(\d+<[^>]*_delta_log/\d{20}\.json>")
    folder = places(r"fsync\(\d+<[^>]*_delta_log>")
    log = places(r"(fdatasync|fsync|pwrite64|pwritev|write)\(\d+<[^>]*data\.mdb>")
    assert data, "the data file was not fsynced"
    assert entry, "the log entry of the commit was not fsynced"
    assert folder, "the folder of the log entry was not fsynced"
    assert log, "the log was not trimmed"
    assert max(data) < min(entry), "the commit came before its data was durable"
    assert max(entry) < min(log), "the log was trimmed before the commit was durable"
    assert min(folder) < min(log), "the log was trimmed before the commit's name was durable"
