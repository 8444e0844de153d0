"""tilth bench: runs the benchmarks of a source checkout."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from foundation.errors import NotFound, NotSupported

__all__ = ["NAMES", "run_benchmarks"]

NAMES = ("pit_join", "online", "ingest")
"""The benchmarks, each a module of the ``benchmarks`` folder."""


def run_benchmarks(names: list[str], options: list[str], *, as_json: bool, root: Path | None = None) -> int:
    """Run the named benchmarks, or all and their tables; return 0, or 1 when one failed.

    Args:
        names: which; empty for all.
        options: handed on, e.g. ``--quick``.
        as_json: the benchmarks' own words go to stderr, and stdout gets names, exit codes, seconds and saved results.
        root: of the checkout; None for the one this file is in.

    Raises:
        NotSupported: this is an installation without the benchmarks folder.
        NotFound: no benchmark of that name; a close one is suggested.
    """
    root = root or Path(__file__).resolve().parent.parent
    if not (root / "benchmarks" / "__main__.py").is_file():
        raise NotSupported(
            "benchmarks are part of the source checkout, not of the installed package",
            subject="tilth bench",
            hint="clone the repository and run `uv run tilth bench` there",
        )
    for name in names:
        if name not in NAMES:
            raise NotFound.of("benchmark", name, NAMES)
    modules = [f"benchmarks.{name}" for name in names] or ["benchmarks"]
    done = []
    for module in modules:
        started = time.perf_counter()
        code = subprocess.run(
            [sys.executable, "-m", module, *options], cwd=root, check=False, stdout=sys.stderr if as_json else None
        ).returncode
        done.append({"module": module, "exit_code": code, "seconds": time.perf_counter() - started})
    failed = any(each["exit_code"] for each in done)
    if as_json:
        small = "-small" if "--quick" in options else ""
        paths = {name: root / "benchmarks" / "results" / f"{name}{small}.json" for name in names or NAMES}
        results = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()}
        print(json.dumps({"runs": done, "results": results}, indent=2))
    return int(failed)
