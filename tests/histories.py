"""Random histories of a group, written as runs in every shape, and questions about them."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from oracle import Rec

from featurestore.groups import define_group
from featurestore.offline import Run, Snapshot, offline_schema
from featurestore.questions import Asked, SpineRows
from foundation.files.local import LocalFiles
from foundation.schema import Schema

KEYS = {
    "int": ([("id", "Integral")], [(-5,), (2,), (7,), (2**40,)]),
    "text": ([("id", "String")], [("",), ("a",), ("ab",), ("é",)]),
    "pair": ([("id", "Integral"), ("site", "String")], [(1, "23"), (12, "3"), (1, ""), (2, "b")]),
    "odd": (
        [("id", "Boolean"), ("site", "Date"), ("n", "Integral")],
        [(True, date(2020, 1, 1), 4), (False, date(1960, 5, 1), 4), (True, date(2020, 1, 1), -4)],
    ),
}
FEATURES = [("f", "Fractional"), ("s", "String"), ("b", "Boolean"), ("l", "List<Integral>"), ("d", "Decimal(10, 2)")]


def group_of(kind):
    columns = [*KEYS[kind][0], ("at", "Timestamp"), *FEATURES]
    names = [name for name, _ in KEYS[kind][0]]
    return define_group("g", record_id=names, event_time="at", schema=Schema.of(columns), ttl=timedelta(days=1))


def values_of(number):
    """Distinct values with nulls here and there; a tombstone has none."""
    return {
        "f": None if number % 5 == 0 else number + 0.5,
        "s": None if number % 7 == 0 else f"v{number}",
        "b": None if number % 4 == 3 else number % 2 == 0,
        "l": None if number % 6 == 1 else [number] * (number % 3),
        "d": None,
    }


def table_of(group, rows):
    """Rows as the offline table holds them."""
    schema = offline_schema(group)
    lines = []
    for row in rows:
        line = dict(zip(group.record_id, row.key, strict=True))
        line |= {"at": row.event, **row.values, "api_invocation_time": row.write, "write_time": row.write}
        line |= {"is_deleted": row.deleted, "tilth_rank": row.rank, "tilth_known_at": row.known}
        line |= {"tilth_expires_at": row.expires, "tilth_hard": row.hard, "tilth_offline_only": row.offline_only}
        lines.append(line)
    return pa.table(
        {field.name: pa.array([line[field.name] for line in lines], field.type) for field in schema}, schema=schema
    )


def sorted_rows(group, table):
    frame = pl.from_arrow(table)
    order = frame.with_row_index("i").sort([*group.record_id, group.event_time, "tilth_rank"])["i"].to_arrow()
    return table.take(order)


def write(files, group, path, table, row_group_size=None, **options):
    """One run, sorted."""
    Path(files.locate("t")).mkdir(parents=True, exist_ok=True)
    target = files.locate(f"t/{path}")
    pq.write_table(sorted_rows(group, table), target, row_group_size=row_group_size, **options)
    return Run(path, len(table), Path(target).stat().st_size)


INSTANTS = st.integers(0, 9)


@st.composite
def histories(draw, kinds=tuple(KEYS)):
    """(kind of key, list of runs; a run is (rows, committed_at, row group size, lacks a column, statistics?))."""
    kind = draw(st.sampled_from(kinds))
    pool = KEYS[kind][1]
    special = draw(st.sampled_from(["plain", "plain", "soft", "hard", "all"]))
    count = draw(st.integers(0, 24))
    replaces = draw(st.sampled_from(["keep", "replace", "mixed"]))
    runs = [[] for _ in range(draw(st.integers(1, 4)))]
    shapes = [
        (
            draw(st.sampled_from([0, 0, 4, 8])),
            draw(st.sampled_from([1, 2, 3, 100])),
            draw(st.booleans()),
            draw(st.booleans()),
        )
        for _ in runs
    ]
    for sequence in range(1, count + 1):
        where = draw(st.integers(0, len(runs) - 1))
        committed, _, lacks, _ = shapes[where]
        sign = {"keep": -1, "replace": 1}.get(replaces) or draw(st.sampled_from([-1, 1]))
        hard = special in ("hard", "all") and draw(st.integers(0, 5)) == 0
        deleted = hard or (special in ("soft", "all") and draw(st.integers(0, 3)) == 0)
        event = draw(INSTANTS)
        values = values_of(sequence) if not deleted else dict.fromkeys(values_of(0))
        if lacks:
            values["s"] = None
        runs[where].append(
            Rec(
                key=draw(st.sampled_from(pool)),
                event=event,
                rank=sign * sequence,
                write=max(draw(INSTANTS), committed),
                known=draw(st.one_of(st.none(), INSTANTS)) if special == "all" else None,
                deleted=deleted,
                hard=hard,
                expires=draw(st.one_of(st.none(), st.integers(event, 12))) if special in ("soft", "all") else None,
                offline_only=draw(st.integers(0, 5)) == 0,
                values=values,
            )
        )
    return kind, [(rows, *shape) for rows, shape in zip(runs, shapes, strict=True)]


@st.composite
def questions(draw):
    maybe = st.one_of(st.none(), INSTANTS)
    label = draw(st.integers(0, 3)) == 0
    return Asked(
        features=tuple(name for name, _ in FEATURES),
        inclusive=draw(st.booleans()),
        max_age=draw(st.one_of(st.none(), st.none(), st.integers(0, 6))),
        as_of=draw(maybe),
        event_range=(draw(st.one_of(st.none(), INSTANTS)), draw(maybe)) if draw(st.booleans()) else (None, None),
        include_deleted=draw(st.booleans()),
        recent=draw(st.one_of(st.none(), st.integers(1, 4))) if not label else None,
        label_within=draw(st.integers(0, 6)) if label else None,
        matured_by=draw(st.integers(5, 20)),
    )


def spines(pool):
    part = st.sampled_from(pool)
    nulled = part.map(lambda key: (None, *key[1:])) | part.map(lambda key: (*key[:-1], None))
    key = st.one_of(part, part, part, part, nulled)
    return st.lists(
        st.tuples(key, st.one_of(st.none(), st.integers(-1, 11)), st.one_of(st.none(), INSTANTS)), max_size=20
    )


def spine_rows(group, lines, known):
    schema = group.schema.arrow
    keys = pa.table(
        {
            name: pa.array([line[0][i] for line in lines], schema.field(name).type)
            for i, name in enumerate(group.record_id)
        }
    )
    times = np.array([77 if line[1] is None else line[1] for line in lines], np.int64)
    valid = np.array([line[1] is not None for line in lines], np.bool_)
    if known == "off":
        return SpineRows(keys, times, valid)
    if known == "row":
        return SpineRows(keys, times, valid, times, valid)
    column = np.array([0 if line[2] is None else line[2] for line in lines], np.int64)
    return SpineRows(keys, times, valid, column, np.array([line[2] is not None for line in lines], np.bool_))


def known_of(line, known):
    return {"off": None, "row": line[1], "column": line[2]}[known]


def store(folder, kind, runs):
    """Write the runs below a folder and pin them."""
    files, group = LocalFiles(Path(folder)), group_of(kind)
    written = []
    for number, (rows, committed, size, lacks, statistics) in enumerate(runs):
        table = table_of(group, rows)
        if committed:
            # the rows' own write times lie before the commit, which decides
            early = pa.array(
                [max(0, row.write - 3) if row.write == committed else row.write for row in rows], pa.int64()
            )
            place = table.schema.get_field_index("write_time")
            table = table.set_column(place, "write_time", early.cast(table.schema.field("write_time").type))
        if lacks:
            table = table.drop_columns(["s", "d"])
        run = write(files, group, f"run-{number}.parquet", table, size, write_statistics=statistics)
        written.append(Run(run.path, run.rows, run.size, committed))
    return Snapshot(group, 1, "t", tuple(written), files)
