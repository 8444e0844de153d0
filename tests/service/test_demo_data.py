"""What the demo prepares, counted again the slow way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from service import demo_data


@pytest.fixture(scope="module")
def flights():
    return demo_data.Flights(demo_data.source_folder())


@pytest.fixture(scope="module")
def weather():
    return demo_data.Weather(demo_data.source_folder())


def test_arrivals_lie_after_departures_plus_time_in_the_air(flights):
    flown = flights.frame.filter(pl.col("arr_delay").is_not_null())
    spent = (flown["arrived"] - flown["departed"]).dt.total_minutes()
    assert flown.height == 327_346
    assert spent.min() > 20
    assert spent.max() < 15 * 60


def test_the_label_is_null_only_where_nothing_arrived(flights):
    spine = flights.spine()
    assert (spine.height, spine["late"].null_count(), int(spine["late"].sum())) == (336_776, 9_430, 77_630)
    assert spine["flight_id"].to_list() == list(range(spine.height))


@pytest.mark.parametrize(
    ("make", "key", "moment", "delay", "column", "hours"),
    [
        (demo_data.carrier_delays, "carrier", "arrived", "arr_delay", "day", 24),
        (demo_data.carrier_delays, "carrier", "arrived", "arr_delay", "week", 168),
        (demo_data.airport_delays, "origin", "departed", "dep_delay", "3h", 3),
    ],
)
def test_trailing_statistics_hold_only_what_had_happened(flights, make, key, moment, delay, column, hours):
    frame = flights.frame
    statistics = make(frame)
    assert statistics.group_by(key, "until").len()["len"].max() == 1
    for row in statistics.gather_every(statistics.height // 40, offset=400).to_dicts():
        inside = (pl.col(moment) <= row["until"]) & (pl.col(moment) > row["until"] - timedelta(hours=hours))
        seen = frame.filter((pl.col(key) == row[key]) & inside & pl.col(delay).is_not_null())[delay]
        assert row[f"flights_{column}"] == len(seen)
        if len(seen):
            assert row[f"mean_delay_{column}"] == pytest.approx(seen.mean())
            assert row[f"late_share_{column}"] == pytest.approx((seen > 15).mean())
        else:
            assert row[f"mean_delay_{column}"] is None


def test_weather_ends_up_as_it_was_and_nothing_is_published_before_its_hour(weather):
    first, second = weather.first(), weather.second()
    real = pl.read_csv(demo_data.source_folder() / "weather.csv", null_values=["NA"], infer_schema_length=None)
    real = real.with_columns(observed=pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC"))
    final = pl.concat([first, second.drop("kind")]).unique(["origin", "observed"], keep="last")
    joined = real.join(final, on=["origin", "observed"], suffix="_ours")
    assert joined.height == real.height == final.height
    assert joined.filter(pl.col("temp").ne_missing(pl.col("temp_ours"))).height == 0
    for part in (first, second):
        assert part.filter(pl.col("published") <= pl.col("observed")).height == 0
    kinds = dict(second["kind"].value_counts().iter_rows())
    assert kinds == {"late": 653, "corrected": 326}
    assert first.height + kinds["late"] == real.height


def test_the_same_data_every_time(weather):
    again = demo_data.Weather(demo_data.source_folder())
    assert again.first().equals(weather.first())
    assert weather.second()["published"].min() >= datetime(2013, 1, 1, tzinfo=UTC)
