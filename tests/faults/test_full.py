"""A full disk: typed errors, nothing half-written, and everything acknowledged is there once there is room again."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("full_script.py")


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_disk_loses_nothing_acknowledged(small_disk):
    run = subprocess.run([sys.executable, str(SCRIPT), str(small_disk)], capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    assert "HELD" in run.stdout
