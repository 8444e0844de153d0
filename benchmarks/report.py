"""Results: a line of a table each, shown as text, kept as JSON, and rendered into ``docs/benchmarks.md``."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.timing import ROOT, Rounds

__all__ = ["Line", "Report", "render", "say", "seconds", "short"]

RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
_OURS = ("tilth", "python", "polars", "pyarrow", "deltalake", "lmdb", "redis", "numpy")


@dataclass
class Line:
    """One row of a table.

    Attributes:
        what: what was done, or by whom.
        value: the measurement, with its unit.
        ratio: against ours (or the limit), as text; empty when there is none.
        target: what was asked for; empty when nothing was.
        met: whether it was met; None without a target or at sizes the target is not about.
        note: what a reader should know.
    """

    what: str
    value: str
    ratio: str = ""
    target: str = ""
    met: bool | None = None
    note: str = ""


@dataclass
class Report:
    """The results of one benchmark.

    Attributes:
        name: file name of its JSON.
        title: heading.
        command: what to type to get it again.
        about: sizes and rules, in a sentence or two.
        tables: heading to lines.
        versions: of the peers.
        machine: where it ran.
        at: when each table was measured.
        full: whether the sizes are those the targets are stated for.
    """

    name: str
    title: str
    command: str
    about: str
    full: bool
    tables: dict[str, list[Line]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=dict)
    at: dict[str, str] = field(default_factory=dict)

    def add(self, table: str, line: Line) -> None:
        """Add a line; print it at once."""
        if not self.full:
            line.met = None
        self.tables.setdefault(table, []).append(line)
        self.at[table] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        mark = {True: "met", False: "NOT MET", None: ""}[line.met]
        parts = (line.what, line.value, line.ratio, line.target and f"target {line.target}", mark, line.note)
        print("  ".join(part for part in parts if part), flush=True)

    def peer(
        self, table: str, rounds: Rounds, ours: str, other: str, *, at_least: float | None = None, note: str = ""
    ) -> None:
        """A line for a peer: its median time, and how many times slower than ours it is."""
        ratio = rounds.ratio(other, ours)
        self.add(
            table,
            Line(
                other,
                seconds(rounds.median(other)),
                f"{ratio:.2f}x ours",
                "" if at_least is None else f">= {at_least:g}x",
                None if at_least is None else ratio >= at_least,
                note,
            ),
        )

    def limit(self, table: str, rounds: Rounds, ours: str, other: str, *, at_most: float | None = None) -> None:
        """A line for a physical limit: its median time, and how many times of it ours takes."""
        ratio = rounds.ratio(ours, other)
        self.add(
            table,
            Line(
                other,
                seconds(rounds.median(other)),
                f"ours takes {ratio:.2f}x of it",
                "" if at_most is None else f"<= {at_most:g}x",
                None if at_most is None else ratio <= at_most,
            ),
        )

    def save(self) -> Path:
        """Write the JSON. Tables of an earlier run of the same sizes on the same machine stay unless measured again."""
        self.machine = machine()
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self.name}{'' if self.full else '-small'}.json"
        now = asdict(self)
        if path.exists():
            held = json.loads(path.read_text(encoding="utf-8"))
            if all(held.get(part) == now[part] for part in ("about", "machine")):
                now |= {part: now[part] | _absent(held[part], now[part]) for part in ("tables", "versions", "at")}
        path.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        return path


def _absent(held: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in held.items() if name not in now}


def say(text: str) -> None:
    """Progress, on the standard error."""
    print(f"    {text}", file=sys.stderr, flush=True)


def short(number: float) -> str:
    """``10 M``, ``200 k``."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g} {unit}"
    return f"{number:g}"


def seconds(value: float) -> str:
    """A duration in the unit that suits it."""
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.1f} ms" if value >= 1e-3 else f"{value * 1e6:.1f} us"


def machine() -> dict[str, str]:
    """What it ran on."""
    cpu = "unknown processor"
    if (info := Path("/proc/cpuinfo")).exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8"))
        cpu = found[1].strip() if found else platform.machine()
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = {"python": platform.python_version()}
    for name in _OURS:
        if name != "python":
            try:
                versions[name] = version(name)
            except PackageNotFoundError:
                continue
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{pages / 2**30:.0f} GiB",
        "processor": cpu,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }


def render(names: Sequence[str]) -> str:
    """The tables of saved results as Markdown."""
    parts: list[str] = []
    for name in names:
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts += _section(json.loads(path.read_text(encoding="utf-8")))
    return "\n".join(parts)


def _section(report: dict[str, Any]) -> list[str]:
    where = report["machine"]
    peers = ", ".join(f"{name} {number}" for name, number in sorted(report["versions"].items()))
    lines = [
        f"## {report['title']}",
        "",
        f"`{report['command']}`",
        "",
        report["about"],
        "",
        f"{where['cores']} cores ({where['processor']}), {where['memory']}, {where['system']}; "
        f"{where['versions']}; peers: {peers or 'none'}.",
        "",
    ]
    for heading, rows in report["tables"].items():
        lines += [
            f"### {heading}",
            "",
            f"Measured {report['at'][heading]}.",
            "",
            "| | measured | ratio | target | |",
            "|---|---|---|---|---|",
        ]
        for row in rows:
            met = {True: "met", False: "**missed**", None: ""}[row["met"]]
            last = "; ".join(part for part in (met, row["note"]) if part)
            lines.append(f"| {row['what']} | {row['value']} | {row['ratio']} | {row['target']} | {last} |")
        lines.append("")
    return lines


MARK = "<!-- measured -->"


def write_page(names: Sequence[str]) -> None:
    """Put the tables of saved full-size results below the mark in ``docs/benchmarks.md``."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, _ = text.partition(MARK)
    PAGE.write_text(f"{head}{MARK}\n\n{render(names).rstrip()}\n", encoding="utf-8")
