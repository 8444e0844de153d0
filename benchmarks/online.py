"""Online reads and writes: embedded, and on Redis against a bare redis-py GET and Feast's SDK.

Readers, servers and writers share the machine's cores; every connection is loopback TCP.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks import data
from benchmarks.common import Place, add_common, place_of
from benchmarks.report import Line, Report, say, seconds, short
from benchmarks.servers import keys_of, valkey
from benchmarks.timing import Rounds, Side, in_turn

SECTIONS = ("embedded", "redis")
FULL = {"rows": 1_000_000, "peer_rows": 200_000, "gets": 200_000}
QUICK = {"rows": 20_000, "peer_rows": 2_000, "gets": 2_000}
BATCH = 100
SHARE = 1_000
"""Rows of one call of Feast's write_to_online_store; larger calls were slower."""
_OURS = "tilth"
_BARE = "redis-py GET of the same bytes"
_BLOCK = 2_000


def main(arguments: Sequence[str] | None = None) -> Report:
    """Run and print; see ``--help``."""
    parser = argparse.ArgumentParser("python -m benchmarks.online", description=__doc__)
    add_common(parser)
    parser.add_argument("--rows", type=int, help="records")
    parser.add_argument(
        "--peer-rows", type=int, help="records of Feast's share of the ingest; it is asked only for these"
    )
    parser.add_argument("--gets", type=int, help="single reads")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    report = Report(
        "online",
        "Online store",
        "uv run python -m benchmarks.online",
        f"{short(options.rows)} records x 25 features (15 float, 5 int, 5 text) of random keys; one client process; "
        "Valkey on loopback TCP without persistence for both sides.",
        options.rows >= FULL["rows"],
    )
    place = place_of(options)
    for name in options.only:
        say(f"online: {name}")
        with ExitStack() as stack:
            _RUN[name](report, options, place, stack)
        path = report.save()
    print(f"saved {path}")
    return report


def _p99(times: list[float]) -> float:
    return quantiles(times, n=100)[98]


def _gets(report: Report, table: str, what: str, times: list[float], *, at_most: float | None = None) -> None:
    middle = median(times)
    target = "" if at_most is None else f"p50 <= {seconds(at_most)}"
    met = None if at_most is None else middle <= at_most
    report.add(table, Line(what, f"p50 {seconds(middle)}, p99 {seconds(_p99(times))}", "", target, met))


def _keys(seed: int, rows: int, count: int) -> list[int]:
    return random.Random(seed).choices(range(rows), k=count)


def _batches(seed: int, rows: int, count: int) -> list[list[int]]:
    return [random.Random(f"{seed}-{number}").sample(range(rows), BATCH) for number in range(count)]


def _embedded(report: Report, options: argparse.Namespace, place: Place, stack: ExitStack) -> None:
    table = "Embedded store, in process"
    path = data.mixed(place.data, options.rows)
    side = place.ours(stack)
    side.ask("opened", path=stack.enter_context(place.workspace()) / "store")
    side.ask("create", name="records", path=path, online=True)
    answer = side.ask("ingest", name="records", path=path)
    _all_there(answer, options.rows)
    took = answer["seconds"]
    report.add(table, Line("ingest into both stores", seconds(took), f"{options.rows / took / 1e3:.0f} k rows/s"))
    side.ask("get", name="records", keys=_keys(1, options.rows, 1_000))
    times = side.ask("get", name="records", keys=_keys(2, options.rows, options.gets))["times"]
    _gets(report, table, "get_record", times, at_most=10e-6)
    times = side.ask("get_batches", name="records", batches=_batches(3, options.rows, options.gets // BATCH))["times"]
    _gets(report, table, f"get_records of {BATCH}", times)


def _redis(report: Report, options: argparse.Namespace, place: Place, stack: ExitStack) -> None:
    port = stack.enter_context(valkey())
    url = f"redis://127.0.0.1:{port}"
    side = place.ours(stack)
    side.ask("opened", path=stack.enter_context(place.workspace()) / "store", online=url)
    feast = _ingest(report, options, place, stack, side)
    _single(report, options, side, port, url)
    _many(report, options, side, feast)


def _ingest(report: Report, options: argparse.Namespace, place: Place, stack: ExitStack, side: Side) -> dict[str, Side]:
    table = "Ingest to Redis (rows per second)"
    shares = data.piecewise(options.rows, options.rounds)
    files = [data.mixed(place.data, count, first=first) for first, count in shares]
    side.ask("create", name="records", path=files[0], online=True)
    side.ask("create", name="only", path=files[0], online=True, offline=False)
    less = data.piecewise(options.peer_rows, options.rounds)
    small = [data.mixed(place.data, count, first=first) for first, count in less]

    def ours(name: str, paths: list[Path]) -> Callable[[int], float]:
        return lambda number: _rate(side, "ingest", name=name, path=paths[number])

    whole = f"{_OURS}, Parquet to both stores, durable"
    rates = {whole: ours("records", files), f"{_OURS}, Parquet to Redis alone, durable": ours("only", small)}
    feast: dict[str, Side] = {}
    if place.peers:
        feast = _feasts(report, place, stack, small)
        for what, ask in (("write_to_online_store", "write"), ("write_to_online_store, skip_dedup", "write_fast")):
            rates[f"Feast {what}"] = _writes(feast[ask], small)
        rates["Feast materialize"] = _materializes(feast["materialize"], small)
    costs: dict[str, list[float]] = {name: [] for name in rates}
    for number in range(len(shares)):
        for name, rate in rates.items():
            costs[name].append(rate(number))
            say(f"{name}: {1 / costs[name][-1]:.0f} rows/s")
    taken = Rounds(costs)
    peers = [name for name in rates if name.startswith("Feast")]
    fastest = min(peers, key=taken.median, default="")
    for name in rates:
        line = Line(name, f"{1 / taken.median(name):,.0f} rows/s")
        if name in peers:
            ratio = taken.ratio(name, whole)
            line.ratio = f"ours is {ratio:.1f}x"
            if name == fastest:
                line.target, line.met = ">= 10x", ratio >= 10
        report.add(table, line)
    return feast


def _all_there(answer: dict[str, Any], rows: int) -> None:
    if answer["rows"] != rows:
        raise AssertionError(f"{answer['rows']} of {rows} rows were loaded")


def _rate(side: Side, do: str, **request: Any) -> float:
    """Seconds per row."""
    answer = side.ask(do, **request)
    return float(answer["seconds"]) / answer["rows"]


def _feasts(report: Report, place: Place, stack: ExitStack, files: list[Path]) -> dict[str, Side]:
    sides = {}
    for name in ("write", "write_fast", "materialize"):
        port = stack.enter_context(valkey())
        side = sides[name] = place.peer(stack, "feast")
        views = {f"v{number}": str(path) for number, path in enumerate(files)}
        if name != "materialize":
            views = {"v": str(files[0])}
        answer = side.ask("setup", views=views, redis=f"127.0.0.1:{port}", skip_dedup=name == "write_fast")
        report.versions["Feast"] = answer["version"]
    return sides


def _writes(side: Side, files: list[Path]) -> Callable[[int], float]:
    return lambda number: _rate(side, "write", view="v", path=files[number], batch=SHARE)


def _materializes(side: Side, files: list[Path]) -> Callable[[int], float]:
    return lambda number: _rate(side, "materialize", view=f"v{number}", path=files[number])


def _single(report: Report, options: argparse.Namespace, side: Side, port: int, url: str) -> None:
    table = "Redis, one record a call"
    stored = keys_of(port, 200, min(options.rows, 20_000))
    mine: list[float] = []
    bare: list[float] = []
    ratios = []
    size = 0.0
    for number in range(max(2, math.ceil(options.gets / 4 / _BLOCK))):
        ours = side.ask("get", name="records", keys=_keys(number, options.rows, _BLOCK))["times"]
        names = random.Random(number).choices(stored, k=_BLOCK)
        answer = side.ask("bare", url=url, keys=[name.hex() for name in names])
        size = answer["bytes"]
        if number:
            mine += ours
            bare += answer["times"]
            ratios.append(median(ours) / median(answer["times"]))
    _gets(report, table, f"{_OURS} get_record", mine)
    ratio = median(ratios)
    report.add(
        table,
        Line(
            _BARE,
            f"p50 {seconds(median(bare))}, p99 {seconds(_p99(bare))}",
            f"ours takes {ratio:.2f}x of it",
            "<= 1.6x",
            ratio <= 1.6,
            f"{size:.0f} bytes; blocks of {_BLOCK} reads in turn",
        ),
    )


def _many(report: Report, options: argparse.Namespace, side: Side, feast: dict[str, Side]) -> None:
    table = f"Redis, {BATCH} records a call"
    count = max(2, options.gets // 2_000)
    times: dict[str, list[float]] = {_OURS: [], "Feast get_online_features": []}

    def ours() -> float:
        answer = side.ask("get_batches", name="records", batches=_batches(6, options.rows, count))
        times[_OURS] += answer["times"]
        return float(answer["seconds"])

    def theirs() -> float:
        answer = feast["write"].ask("get", view="v", batches=_batches(6, options.peer_rows, count))
        times["Feast get_online_features"] += answer["times"]
        return float(answer["seconds"])

    sides = {_OURS: ours} | ({"Feast get_online_features": theirs} if feast else {})
    taken = in_turn(sides, options.rounds)
    _gets(report, table, f"{_OURS} get_records", times[_OURS])
    if feast:
        keys = _keys(5, options.peer_rows, 200)
        same = _same(
            side.ask("peek", name="only", keys=keys)["answer"],
            feast["write"].ask("peek", view="v", keys=keys)["answer"],
        )
        report.peer(table, taken, _OURS, "Feast get_online_features", at_least=10, note=same)


def _same(ours: list[dict[str, Any]], theirs: dict[str, list[Any]]) -> str:
    differ = sum(
        row is None or any(row[name] != values[number] for name, values in theirs.items())
        for number, row in enumerate(ours)
    )
    return f"{differ} of {len(ours)} sampled records differ" if differ else ""


_RUN = {"embedded": _embedded, "redis": _redis}

if __name__ == "__main__":
    main()
