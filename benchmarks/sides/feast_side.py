"""Feast: historical features on its DuckDB store, online features and writes on Redis. Has its own environment.

Set up as its documentation recommends for speed: a registry cached for good, no feature server, the SDK in process.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import feast
import pandas as pd
import pyarrow.feather as feather
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.repo_config import RegistryConfig, RepoConfig
from feast.types import Float64, Int64, String

from benchmarks.sides.protocol import Clock, serve

_HOME = Path(tempfile.mkdtemp(prefix="feast-side-"))
_TYPES = {"double": Float64, "int64": Int64, "string": String, "large_string": String}
_HELD: dict[str, Any] = {}


def spine(path: str) -> dict[str, Any]:
    _HELD["spine"] = pq.read_table(path).to_pandas()
    return {"rows": len(_HELD["spine"]), "version": feast.__version__}


def _view(name: str, path: str, key: str, columns: dict[str, str], known: str | None) -> FeatureView:
    source = FileSource(
        name=f"{name}_file", path=path, timestamp_field="event_timestamp", created_timestamp_column=known
    )
    return FeatureView(
        name=name,
        entities=[_HELD["entity"]],
        ttl=timedelta(0),
        schema=[Field(name=column, dtype=_TYPES[kind]) for column, kind in columns.items()]
        + [Field(name="entity", dtype=_TYPES[key])],
        source=source,
        online=True,
    )


def setup(
    views: dict[str, str],
    key: str = "int64",
    known: str | None = None,
    redis: str | None = None,
    skip_dedup: bool = False,
) -> dict[str, Any]:
    """Apply a fresh repository: one feature view per file."""
    folder = Path(tempfile.mkdtemp(dir=_HOME))
    online: dict[str, Any] = {"type": "sqlite", "path": str(folder / "online.db")}
    if redis is not None:
        online = {"type": "redis", "connection_string": redis, "skip_dedup": skip_dedup}
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=RegistryConfig(path=str(folder / "registry.db"), cache_ttl_seconds=0),
        offline_store={"type": "duckdb"},
        online_store=online,
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    store = FeatureStore(config=config)
    kind = ValueType.STRING if key == "string" else ValueType.INT64
    _HELD["entity"] = Entity(name="entity", join_keys=["entity"], value_type=kind)
    skipped = {"entity", "event_timestamp", "known_at"}
    made = []
    names = {}
    for name, path in views.items():
        columns = {field.name: str(field.type) for field in pq.read_schema(path) if field.name not in skipped}
        made.append(_view(name, path, key, columns, known))
        names[name] = [f"{name}:{column}" for column in columns]
    store.apply([_HELD["entity"], *made])
    _HELD["store"], _HELD["names"] = store, names
    return {"views": list(names), "version": feast.__version__}


def join(views: list[str], known: bool = False, out: str | None = None) -> dict[str, Any]:
    """Historical features as Arrow."""
    wanted = [name for view in views for name in _HELD["names"][view]]
    frame = _HELD["spine"].copy(deep=False)
    options = {"filter_by_created_timestamp": True} if known else {}
    with Clock() as clock:
        job = _HELD["store"].get_historical_features(
            entity_df=frame, features=wanted, full_feature_names=len(views) > 1, **options
        )
        result = job.to_arrow()
    if out:
        feather.write_feather(result, out, compression="uncompressed")
    return {"seconds": clock.seconds, "rows": len(result)}


def write(view: str, path: str, batch: int) -> dict[str, Any]:
    """Write a file's rows to the online store from a frame in memory, ``batch`` rows a call."""
    frame: pd.DataFrame = pq.read_table(path).to_pandas()
    with Clock() as clock:
        for start in range(0, len(frame), batch):
            _HELD["store"].write_to_online_store(view, df=frame[start : start + batch])
    return {"seconds": clock.seconds, "rows": len(frame)}


def materialize(view: str, path: str) -> dict[str, Any]:
    """Write a file's rows to the online store the other documented way."""
    from datetime import UTC, datetime

    rows = pq.read_metadata(path).num_rows
    with Clock() as clock:
        _HELD["store"].materialize(datetime(2023, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), [view])
    return {"seconds": clock.seconds, "rows": rows}


def get(view: str, batches: list[list[int]]) -> dict[str, Any]:
    """Online features of each batch of keys, as Python values; median and all times in seconds."""
    store, wanted = _HELD["store"], _HELD["names"][view]
    times = []
    for keys in batches:
        start = time.perf_counter()
        store.get_online_features(features=wanted, entity_rows=[{"entity": key} for key in keys]).to_dict()
        times.append(time.perf_counter() - start)
    return {"seconds": median(times), "times": times}


def peek(view: str, keys: list[int]) -> dict[str, Any]:
    """What it answers, to compare."""
    rows = [{"entity": key} for key in keys]
    answer = _HELD["store"].get_online_features(features=_HELD["names"][view], entity_rows=rows).to_dict()
    return {"answer": answer}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # again: Feast's imports turn warnings back on
    try:
        serve(
            {
                "spine": spine,
                "setup": setup,
                "join": join,
                "write": write,
                "materialize": materialize,
                "get": get,
                "peek": peek,
            }
        )
    finally:
        shutil.rmtree(_HOME, ignore_errors=True)
