"""The data every side reads: made from a seed, written in pieces, kept between runs under telling names."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

START = 1_704_067_200_000_000
"""2024-01-01 in microseconds UTC."""
SPAN = 365 * 86_400_000_000
"""Records and spine rows spread over a year."""
DELAY = 7 * 86_400_000_000
"""A record becomes known up to a week after its event."""
_PIECE = 1_000_000
_TIME = pa.timestamp("us", tz="UTC")


def feature_names(count: int) -> list[str]:
    """``f0`` to ``f<count - 1>``."""
    return [f"f{number}" for number in range(count)]


def _write(path: Path, schema: pa.Schema, pieces: Iterator[pa.Table]) -> Path:
    """Write Parquet with pyarrow's own defaults (snappy, row groups of about a million rows), whole or not at all."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with pq.ParquetWriter(part, schema) as writer:
        for piece in pieces:
            writer.write_table(piece)
    part.rename(path)
    return path


def _sizes(rows: int) -> list[int]:
    return [min(_PIECE, rows - start) for start in range(0, rows, _PIECE)]


def _entities(numbers: np.ndarray, text: bool) -> pa.Array:
    if not text:
        return pa.array(numbers)
    return (
        pl.select("customer-" + pl.Series(numbers).cast(pl.String).str.zfill(9))
        .to_series()
        .to_arrow()
        .cast(pa.string())
    )


def records(
    folder: Path,
    rows: int,
    entities: int,
    *,
    features: int = 10,
    text: bool = False,
    known: bool = False,
    seed: int = 1,
) -> Path:
    """Records in no order: ``entity`` (int64 or text), ``event_timestamp``, ``f0``… (float64), perhaps ``known_at``."""
    kind = pa.string() if text else pa.int64()
    fields = [pa.field("entity", kind), pa.field("event_timestamp", _TIME)]
    fields += [pa.field(name, pa.float64()) for name in feature_names(features)]
    fields += [pa.field("known_at", _TIME)] if known else []

    def pieces() -> Iterator[pa.Table]:
        for number, size in enumerate(_sizes(rows)):
            random = np.random.default_rng([seed, number])
            event = START + random.integers(0, SPAN, size)
            columns = [_entities(random.integers(0, entities, size), text), pa.array(event).cast(_TIME)]
            columns += [pa.array(random.random(size)) for _ in range(features)]
            columns += [pa.array(event + random.integers(0, DELAY, size)).cast(_TIME)] if known else []
            yield pa.Table.from_arrays(columns, schema=pa.schema(fields))

    name = f"records-{rows}x{features}-{entities}{'-text' * text}{'-known' * known}-{seed}.parquet"
    return _write(folder / name, pa.schema(fields), pieces())


def sorted_copy(path: Path) -> Path:
    """The same records by (entity, event time)."""
    there = path.with_name(f"{path.stem}-sorted.parquet")
    if there.exists():
        return there
    table = pl.read_parquet(path).sort("entity", "event_timestamp").to_arrow(compat_level=pl.CompatLevel.oldest())
    table = table.cast(pq.read_schema(path))
    return _write(there, table.schema, iter(table.slice(at, _PIECE) for at in range(0, len(table), _PIECE)))


def parts(path: Path, tail: int, each: int) -> tuple[Path, list[Path]]:
    """The records cut in two: a base, and ``tail`` small files of ``each`` rows from the end of the file."""
    rows = pq.read_metadata(path).num_rows
    cut = rows - tail * each
    base = path.with_name(f"{path.stem}-base-{cut}.parquet")
    names = [path.with_name(f"{path.stem}-tail-{each}-{number}.parquet") for number in range(tail)]
    if not all(name.exists() for name in (base, *names)):
        whole = pl.scan_parquet(path)
        whole.head(cut).sink_parquet(base, compression="snappy")
        for number, name in enumerate(names):
            whole.slice(cut + number * each, each).sink_parquet(name, compression="snappy")
    return base, names


def spine(folder: Path, rows: int, entities: int, *, text: bool = False, seed: int = 99) -> Path:
    """Rows to join to: ``entity``, ``event_timestamp`` and ``row``, the row's number, by which answers are compared."""
    kind = pa.string() if text else pa.int64()
    schema = pa.schema([("entity", kind), ("event_timestamp", _TIME), ("row", pa.int64())])

    def pieces() -> Iterator[pa.Table]:
        for number, size in enumerate(_sizes(rows)):
            random = np.random.default_rng([seed, number])
            times = pa.array(START + random.integers(0, SPAN, size)).cast(_TIME)
            row = pa.array(np.arange(size) + number * _PIECE)
            yield pa.Table.from_arrays([_entities(random.integers(0, entities, size), text), times, row], schema=schema)

    return _write(folder / f"spine-{rows}-{entities}{'-text' * text}-{seed}.parquet", schema, pieces())


def online_schema(floats: int, ints: int, texts: int) -> pa.Schema:
    """``entity``, ``event_timestamp``, then floats, ints and texts."""
    fields = [pa.field("entity", pa.int64()), pa.field("event_timestamp", _TIME)]
    fields += [pa.field(f"x{number}", pa.float64()) for number in range(floats)]
    fields += [pa.field(f"n{number}", pa.int64()) for number in range(ints)]
    fields += [pa.field(f"s{number}", pa.string()) for number in range(texts)]
    return pa.schema(fields)


def mixed(
    folder: Path,
    rows: int,
    *,
    floats: int = 15,
    ints: int = 5,
    texts: int = 5,
    entities: int | None = None,
    first: int = 0,
) -> Path:
    """Rows of mixed types; entities ``first``, ``first + 1``, … once each, or drawn from ``entities`` of them."""
    schema = online_schema(floats, ints, texts)
    words = np.array([f"{word}-{number}" for word in ("amber", "birch", "cedar", "delta") for number in range(250)])
    vocabulary = pa.array(words)

    def piece(number: int, size: int) -> pa.Table:
        random = np.random.default_rng([7, first, number])
        whom: np.ndarray = first + number * _PIECE + np.arange(size)
        if entities is not None:
            whom = random.integers(0, entities, size)
        columns: list[pa.Array] = [pa.array(whom), pa.array(START + random.integers(0, SPAN, size)).cast(_TIME)]
        columns += [pa.array(random.random(size)) for _ in range(floats)]
        columns += [pa.array(random.integers(0, 1_000_000, size)) for _ in range(ints)]
        columns += [vocabulary.take(pa.array(random.integers(0, len(words), size))) for _ in range(texts)]
        return pa.Table.from_arrays(columns, schema=schema)

    name = f"mixed-{rows}-{floats}-{ints}-{texts}-{entities or 'each'}-{first}.parquet"
    return _write(folder / name, schema, (piece(number, size) for number, size in enumerate(_sizes(rows))))


def piecewise(total: int, rounds: int) -> list[tuple[int, int]]:
    """(first, count) of about equal shares of ``total``."""
    share = math.ceil(total / rounds)
    return [(first, min(share, total - first)) for first in range(0, total, share)]
