"""Random histories of a group, written as runs in every shape, and questions about them."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from oracle import Rec

from featurestore.groups import define_group
from featurestore.offline import Run, Snapshot, offline_schema
from featurestore.pit.questions import Asked, SpineRows
from foundation.files.local import LocalFiles
from foundation.schema import Schema

KEYS = {
    "int": ([("id", "Integral")], [(-5,), (2,), (7,), (2**40,)]),
    "text": ([("id", "String")], [("",), ("a",), ("ab",), ("é",)]),
    "long": ([("id", "String")], [("x" * 30,), ("x" * 29 + "y",), ("a\0",), ("a",)]),
    "wide": ([("id", "Integral"), ("n", "Integral")], [(-(2**63), 1), (2**63 - 1, 1), (0, 2**62), (0, -(2**62))]),
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


def maybe(chance, value, odds=2):
    """The value once in ``odds`` times, else None."""
    return value if chance.randrange(odds) == 0 else None


def history_of(chance):
    """(kind of key, runs); a run is (rows, committed_at, rows of a row group, lacks columns, has statistics)."""
    kind = chance.choice(list(KEYS))
    pool = KEYS[kind][1][: chance.choice([1, 2, 4])]
    special = chance.choice(["plain", "soft", "hard", "all", "all"])
    replaces = chance.choice(["keep", "replace", "mixed"])
    shapes = [
        (chance.choice([0, 0, 4, 8]), chance.choice([1, 2, 3, 100]), chance.random() < 0.2, chance.random() < 0.7)
        for _ in range(chance.choice([1, 1, 2, 4]))
    ]
    runs = [[] for _ in shapes]
    for sequence in range(1, chance.choice([4, 12, 30])):
        where = chance.randrange(len(runs))
        committed, _, lacks, _ = shapes[where]
        sign = {"keep": -1, "replace": 1}.get(replaces) or chance.choice([-1, 1])
        hard = special in ("hard", "all") and chance.randrange(6) == 0
        deleted = hard or (special in ("soft", "all") and chance.randrange(4) == 0)
        event = chance.randint(0, 9)
        values = values_of(sequence) if not deleted else dict.fromkeys(values_of(0))
        if lacks:
            values["s"] = None
        runs[where].append(
            Rec(
                key=chance.choice(pool),
                event=event,
                rank=sign * sequence,
                write=max(chance.randint(0, 9), committed),
                known=maybe(chance, chance.randint(0, 9)) if special == "all" else None,
                deleted=deleted,
                hard=hard,
                expires=maybe(chance, chance.randint(event, 12), 3) if special in ("soft", "all") else None,
                offline_only=chance.randrange(6) == 0,
                values=values,
            )
        )
    return kind, [(rows, *shape) for rows, shape in zip(runs, shapes, strict=True)]


def question_of(chance):
    """A question with some options on."""
    label = chance.randrange(4) == 0
    start, end = maybe(chance, chance.randint(0, 6)), maybe(chance, chance.randint(3, 9))
    return Asked(
        features=tuple(name for name, _ in FEATURES),
        inclusive=chance.random() < 0.5,
        max_age=maybe(chance, chance.randint(0, 6), 3),
        as_of=maybe(chance, chance.randint(2, 9), 3),
        event_range=(start, end) if chance.randrange(3) == 0 else (None, None),
        include_deleted=chance.randrange(4) == 0,
        recent=maybe(chance, chance.randint(1, 4), 3) if not label else None,
        label_within=chance.randint(0, 6) if label else None,
        matured_by=chance.randint(5, 20),
    )


def spine_of(chance, kind):
    """(key, time, known by) of each row, a null here and there."""
    pool = KEYS[kind][1]

    def key():
        whole = list(chance.choice(pool[: chance.choice([1, 2, 4])]))
        if chance.randrange(12) == 0:
            whole[chance.randrange(len(whole))] = None
        return tuple(whole)

    def instant():
        return None if chance.randrange(12) == 0 else chance.randint(-1, 11)

    return [(key(), instant(), instant()) for _ in range(chance.choice([0, 3, 12, 25]))]


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
