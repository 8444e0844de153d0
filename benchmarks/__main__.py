"""Every benchmark in turn, then the tables: ``uv run python -m benchmarks``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks import ingest, online, pit_join
from benchmarks.report import render, write_page

ALL = {"pit_join": pit_join.main, "online": online.main, "ingest": ingest.main}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all with the given common options (``--quick``, ``--no-peers``, ``--rounds``, ``--cache``).

    With ``--page`` nothing is run: the page in ``docs/`` is written from the saved results.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--page" in given:
        write_page(list(ALL))
        return
    reports = [run(given) for run in ALL.values()]
    print()
    print(render([report.name for report in reports if report.full]) or "small sizes: no tables")


if __name__ == "__main__":
    main()
