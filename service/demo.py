"""tilth demo: the main job on real data, from files to a training set that cannot leak and features online.

"Will this flight arrive late?": every flight out of New York in 2013 is a row, at its scheduled departure; it may see
the weather, plane facts and delay statistics that were known by then, and nothing else.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

import featurestore
from featurestore import naive_latest
from foundation.errors import AlreadyExists
from service import demo_data
from service.console import answer, grid, span, stdout

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from featurestore import DatasetBuilder, FeatureStore, LoadReport, SavedDataset

__all__ = ["FOLDER", "GROUPS", "LAST_DAYS", "Told", "run_demo"]

FOLDER = "demo"
"""Folder of the workspace the prepared files are in."""
LAST_DAYS = "2013-12-01T00:00:00Z"
"""Late and corrected weather published from here on is put record by record."""
LOOK_UPS = 5_000
FLIGHTS_ASKED = 1_000
DATASET = "late-flights"


@dataclass(frozen=True)
class _Group:
    """A group of the demo: how it is declared, loaded and joined."""

    name: str
    record_id: str
    event_time: str
    description: str
    on_equal: str = "keep"
    known_at: str | timedelta | None = None
    max_age: timedelta | None = None
    prefix: str | None = None


GROUPS = (
    _Group(
        "weather",
        "origin",
        "observed",
        "hourly weather at the airport of departure",
        on_equal="replace",
        known_at="published",
        max_age=timedelta(hours=6),
    ),
    _Group("planes", "tailnum", "registered", "facts about each plane", known_at=timedelta(0)),
    _Group(
        "carrier_delays",
        "carrier",
        "until",
        "how late the carrier's flights arrived lately",
        known_at=timedelta(minutes=5),
        prefix="carrier_",
    ),
    _Group(
        "airport_delays",
        "origin",
        "until",
        "how late flights left the airport lately",
        known_at=timedelta(minutes=5),
        prefix="airport_",
    ),
)


@dataclass
class Told:
    """What the demo has told so far: to a person as it goes, and as one document at the end.

    Attributes:
        console: where to; None for nobody.
        document: what ``--json`` prints.
    """

    console: Console | None
    document: dict[str, Any] = field(default_factory=lambda: {"steps": []})
    _number: int = 0

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A titled, timed part."""
        self._number += 1
        self.say(f"\n{self._number}. {title}", style="bold")
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self.document["steps"].append({"title": title, "seconds": round(seconds, 3)})
        self.say(f"   ({span(seconds)})", style="dim")

    def say(self, text: RenderableType = "", *, style: str | None = None) -> None:
        """A line, or anything rich prints."""
        if self.console is not None:
            self.console.print(text, style=style)


def run_demo(workspace: Path, *, as_json: bool) -> None:
    """Run the whole job in a workspace, which is left to go on with. A second run finds its work done and says so.

    Raises:
        NotSupported: the data are not installed.
        InvalidInput: the folder holds something else.
    """
    started = time.perf_counter()
    source = demo_data.source_folder()
    told = Told(None if as_json else stdout())
    told.say("Will this flight arrive late? Every flight out of New York in 2013, and what was known before it left.")
    told.say(f"workspace: {workspace}")
    with featurestore.open(workspace) as store:
        files = store.workspace.root / FOLDER
        with told.step("Prepare the data: read them, work out delay statistics"):
            _prepare(told, source, files)
        with told.step("Declare four feature groups"):
            _declare(told, store, files)
        with told.step("Load them: validated, sorted, durable, newest records online"):
            _load(told, store, files)
        with told.step("Late and corrected weather: a second load, then record by record"):
            _correct(told, store, files)
        builder = _builder(store, files)
        with told.step("Training set: all flights, each seeing only what was known at its scheduled departure"):
            saved = _train(told, builder)
            _same_as_before(told, store, saved)
        with told.step("The same rows joined carelessly"):
            _compare(told, builder, saved)
        with told.step("Online: the features of one flight"):
            _look_up(told, store, files)
        with told.step("Check: is what is online what history says?"):
            _verify(told, store)
        with told.step(f"Proof: {saved.id} computed again from what it pinned"):
            _recreate(told, store, saved)
    told.document["seconds"] = round(time.perf_counter() - started, 3)
    told.document["workspace"] = str(workspace)
    _finish(told, workspace, saved, files)
    if as_json:
        answer(told.document, as_json=True, text=lambda _: None)


def _prepare(told: Told, source: Path, files: Path) -> None:
    """Write the files the rest of the demo, and the user afterwards, works with: whole or not at all."""
    if files.is_dir():
        told.say(f"   found in {files}")
        told.document["data"] = {"prepared": False}
        return
    draft = files.with_name(f".{FOLDER}-draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    flights = demo_data.Flights(source)
    weather = demo_data.Weather(source)
    spine, first, second = flights.spine(), weather.first(), weather.second()
    last = pl.col("published") >= pl.lit(LAST_DAYS).str.to_datetime(time_zone="UTC")
    tables = {
        "weather": first,
        "planes": demo_data.planes(source),
        "carrier_delays": demo_data.carrier_delays(flights.frame),
        "airport_delays": demo_data.airport_delays(flights.frame),
        "flights": spine,
        "weather_last": second.filter(last).drop("kind"),
    }
    for name, table in tables.items():
        table.write_parquet(draft / f"{name}.parquet")
    second.filter(~last).drop("kind").write_csv(draft / "weather_later.csv")
    draft.rename(files)
    label = spine["late"]
    kinds = dict(second["kind"].value_counts().iter_rows())
    told.document["data"] = {
        "prepared": True,
        "flights": spine.height,
        "late": int(label.sum() or 0),
        "without_label": label.null_count(),
        "rows": {name: table.height for name, table in tables.items()},
        "weather_late": kinds.get("late", 0),
        "weather_corrected": kinds.get("corrected", 0),
    }
    told.say(
        f"   {spine.height:,} flights, {first.height + kinds.get('late', 0):,} hours of weather at three airports, "
        f"{tables['planes'].height:,} planes\n"
        f"   label: arrived more than 15 minutes late: {label.sum():,} flights; "
        f"null for the {label.null_count():,} that never arrived (cancelled or diverted)\n"
        f"   delay statistics from the flights themselves, hour by hour, from what had happened by then: "
        f"{tables['carrier_delays'].height:,} + {tables['airport_delays'].height:,} rows\n"
        "   real: every value. Simulated: when weather was published, some minutes after its hour,\n"
        f"   {kinds.get('late', 0):,} observations hours late, {kinds.get('corrected', 0):,} first published "
        "as the hour before and corrected hours later;\n"
        "   and that statistics were ready five minutes after their hour, plane facts from 1 January on"
    )


def _declare(told: Told, store: FeatureStore, files: Path) -> None:
    rows = []
    for each in GROUPS:
        schema = pl.read_parquet_schema(files / f"{each.name}.parquet")
        columns = pl.DataFrame(schema=schema).drop("published", strict=False).to_arrow().schema
        try:
            group = store.create_group(
                each.name,
                each.record_id,
                each.event_time,
                columns,
                on_equal=each.on_equal,
                description=each.description,
                tags={"demo": "flights"},
            )
            made = "created"
        except AlreadyExists:
            group, made = store.get_group(each.name), "there already"
        ties = "last write wins" if group.on_equal == "replace" else "first write stays"
        rows.append((each.name, each.record_id, each.event_time, len(group.feature_names), ties, made))
    told.document["groups"] = [each.name for each in GROUPS]
    told.say(grid(("group", "record id", "event time", "features", "equal event times", ""), rows, right=(3,)))


def _load(told: Told, store: FeatureStore, files: Path) -> None:
    reports = []
    for each in GROUPS:
        report = store.ingest(each.name, files / f"{each.name}.parquet", known_at=each.known_at)
        reports.append({"group": each.name, **_loaded(told, each.name, report)})
    told.document["loads"] = reports


def _loaded(told: Told, name: str, report: LoadReport) -> dict[str, Any]:
    if report.repeated:
        told.say(f"   {name}: the same content was loaded before, nothing to do")
    else:
        rate = report.rows / report.seconds if report.seconds else 0.0
        told.say(
            f"   {name}: {report.rows:,} rows in {span(report.seconds)} ({rate:,.0f} rows/s), "
            f"{report.published:,} online, {report.rejected:,} refused"
        )
    return {
        "rows": report.rows,
        "rejected": report.rejected,
        "repeated": report.repeated,
        "seconds": round(report.seconds, 3),
    }


def _correct(told: Told, store: FeatureStore, files: Path) -> None:
    report = store.ingest("weather", files / "weather_later.csv", known_at="published")
    told.document["second_load"] = _loaded(told, "weather_later.csv", report)
    rows = pl.read_parquet(files / "weather_last.parquet")
    written = repeated = 0
    started = time.perf_counter()
    for row in rows.to_dicts():
        published = row.pop("published")
        receipt = store.put_records(
            "weather", [row], known_at=published, idempotency_key=f"demo {row['origin']} {row['observed'].isoformat()}"
        )
        written += 0 if receipt.repeated else receipt.count
        repeated += receipt.count if receipt.repeated else 0
    seconds = time.perf_counter() - started
    told.document["puts"] = {"written": written, "repeated": repeated, "seconds": round(seconds, 3)}
    if written:
        each = span(seconds / rows.height)
        told.say(
            f"   weather: {written:,} records put one at a time, each durable when the call returned, {each} a call"
        )
    if repeated:
        told.say(f"   weather: {repeated:,} of the records put one at a time had been written before, nothing to do")


def _builder(store: FeatureStore, files: Path, *, known_by: str | None = "row") -> DatasetBuilder:
    builder = store.dataset(files / "flights.parquet", event_time="departure")
    for each in GROUPS:
        builder = builder.join(each.name, on=each.record_id, max_age=each.max_age, prefix=each.prefix)
    return builder.known_by(known_by)


def _train(told: Told, builder: DatasetBuilder) -> SavedDataset:
    started = time.perf_counter()
    saved = builder.save(DATASET, "will this flight arrive late?")
    seconds = time.perf_counter() - started
    certificate = saved.certificate
    features = [each for each in certificate.features if each.role == "feature"]
    told.document["dataset"] = {
        "id": saved.id,
        "rows": saved.rows,
        "features": len(features),
        "content_hash": saved.content_hash,
        "seconds": round(seconds, 3),
        "certificate": certificate.to_dict(),
    }
    told.say(
        f"   {saved.id}: {saved.rows:,} rows of {len(features)} features, joined to four groups, hashed and saved in "
        f"{span(seconds)}; one row per flight, in order"
    )
    told.say()
    told.say(str(certificate))
    return saved


def _same_as_before(told: Told, store: FeatureStore, saved: SavedDataset) -> None:
    """Say so when an earlier run saved the same."""
    for each in store.datasets.list(DATASET):
        if each.id != saved.id and each.content_hash == saved.content_hash:
            told.say(f"\n   the same content as {each.id}")
            return


def _compare(told: Told, builder: DatasetBuilder, saved: SavedDataset) -> None:
    naive = naive_latest(builder)
    by_event = builder.known_by(None).certificate()
    late = {each.name: each.known_after_row or 0 for each in by_event.features}
    certificate = saved.certificate
    ours = {each.name: each.event_leaks + (each.known_leaks or 0) for each in certificate.features}
    told.document["comparison"] = {
        "naive": naive.to_dict(),
        "event_time_only": {"known_after_row": by_event.known_after_row, "features": late},
        "ours": {"leaked": sum(ours.values())},
    }
    rows = [(each.name, each.leaked, late.get(each.name, 0), ours.get(each.name, 0)) for each in naive.features]
    total = ("all", naive.leaked, by_event.known_after_row, sum(ours.values()))
    cells = naive.cells
    told.say(
        f"   joining each key's latest value would have leaked {naive.leaked:,} of {cells:,} cells "
        f"({naive.leaked / cells:.1%}): values from after the flight left\n"
        f"   joining by event time alone {by_event.known_after_row:,}: values true by then, but not yet published\n"
        f"   the training set above: {sum(ours.values()):,}"
    )
    heads = ("cells that leak", "latest value", "event time only", "this dataset")
    told.say(
        grid(heads, [[name, *(f"{count:,}" for count in counts)] for name, *counts in (*rows, total)], right=(1, 2, 3))
    )


def _look_up(told: Told, store: FeatureStore, files: Path) -> None:
    """Time look-ups of flights that have all four records, as a service answering for one flight would do them."""
    known = pl.read_parquet(files / "planes.parquet", columns=["tailnum"])
    flights = pl.read_parquet(files / "flights.parquet").join(known, on="tailnum", how="semi", maintain_order="left")
    asked = flights.tail(FLIGHTS_ASKED).select("origin", "tailnum", "carrier").to_dicts()
    last = flights.tail(1).to_dicts()[0]
    keys = {each.name: last[each.record_id] for each in GROUPS}
    shown = []
    for name, key in keys.items():
        record = store.get_record(name, key) or {}
        features = [feature for feature in store.get_group(name).feature_names if record.get(feature) is not None][:3]
        shown.append(
            (f"{name} {key}", ", ".join(f"{feature} {_short(record[feature])}" for feature in features) + ", …")
        )
    told.say(f"   {last['carrier']} {last['flight']} {last['origin']} to {last['dest']}, plane {last['tailnum']}")
    told.say(grid(("record", "features"), shown))
    timed: dict[str, list[int]] = {name: [] for name in (*keys, "all four")}
    for turn in range(LOOK_UPS):
        flight = asked[turn % len(asked)]
        begun = time.perf_counter_ns()
        for each in GROUPS:
            before = time.perf_counter_ns()
            store.get_record(each.name, flight[each.record_id])
            timed[each.name].append(time.perf_counter_ns() - before)
        timed["all four"].append(time.perf_counter_ns() - begun)
    found = {name: _quantiles(times) for name, times in timed.items()}
    told.document["online"] = {"look_ups": LOOK_UPS, "flights": len(asked), "microseconds": found}
    where = "in process" if store.workspace.settings.online == "embedded:" else "asking the server"
    told.say(f"   {LOOK_UPS:,} look-ups of {len(asked):,} flights, {where}, microseconds:")
    told.say(
        grid(
            ("get_record", "p50", "p99"),
            [(name, f"{each['p50']:.1f}", f"{each['p99']:.1f}") for name, each in found.items()],
            right=(1, 2),
        )
    )


def _quantiles(times: list[int]) -> dict[str, float]:
    ordered = sorted(times)
    return {"p50": ordered[len(ordered) // 2] / 1e3, "p99": ordered[len(ordered) * 99 // 100] / 1e3}


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _verify(told: Told, store: FeatureStore) -> None:
    reports = [store.verify(each.name) for each in GROUPS]
    told.document["verify"] = [
        {"group": each.group, "ok": each.ok, "keys": each.checked, "cells": each.cells, "different": each.different}
        for each in reports
    ]
    for each in reports:
        verdict = "equal" if each.ok else f"{each.different:,} keys DIFFER"
        told.say(f"   {each.group}: {each.checked:,} keys, {each.cells:,} cells, {verdict}")


def _recreate(told: Told, store: FeatureStore, saved: SavedDataset) -> None:
    again = store.datasets.recreate(saved.id, keep=False)
    told.document["recreated"] = {
        "id": saved.id,
        "content_hash": again.content_hash,
        "equal": again.content_hash == saved.content_hash,
    }
    told.say(f"   saved     {saved.content_hash}\n   recreated {again.content_hash}: the same content")


def _finish(told: Told, workspace: Path, saved: SavedDataset, files: Path) -> None:
    w = f" -w {workspace}"
    data = files.relative_to(Path.cwd()) if files.is_relative_to(Path.cwd()) else files
    commands = (
        f"tilth get weather JFK{w}",
        f"tilth get weather JFK --at 2013-07-01T12:00:00Z{w}",
        f"tilth history planes N14228{w}",
        f"tilth dataset show {saved.id}{w}",
        f"tilth dataset build {data}/flights.parquet -e departure -j weather:on=origin,max_age=1h --known-by row{w}",
        f"tilth put planes tailnum=N99999 registered=2013-12-31T00:00:00Z seats=180{w}",
        f"tilth verify{w}",
        f"tilth doctor{w}",
    )
    told.document["next"] = list(commands)
    told.say(f"\nDone in {span(told.document['seconds'])}. What you can do next:", style="bold")
    for command in commands:
        told.say(f"   {command}")
