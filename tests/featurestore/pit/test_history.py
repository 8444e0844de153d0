"""Point-in-time answers agree with the loops of ``oracle.py``: every option, however the rows lie in files."""

from __future__ import annotations

import dataclasses
import random
import tempfile

import numpy as np
import oracle
import pyarrow as pa
import pytest
from histories import (
    FEATURES,
    KEYS,
    history_of,
    known_of,
    maybe,
    question_of,
    spine_of,
    spine_rows,
    store,
    values_of,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle import Rec

from featurestore import records
from featurestore.offline import offline_schema
from featurestore.pit import history, reader, scans
from featurestore.pit.history import Asked
from foundation.clock import instant_of
from foundation.errors import InvalidInput, NotFound

SLOW_IS_FINE = [HealthCheck.too_slow, HealthCheck.data_too_large]
SEEDS = st.integers(0, 2**48)
"""Everything comes from one seed: drawing each part apart gives mostly empty histories."""
MANY = settings(deadline=None, max_examples=200, suppress_health_check=SLOW_IS_FINE)
SOME = settings(MANY, max_examples=80)


@MANY
@given(SEEDS)
def test_answer_agrees_with_the_loops(seed):
    chance = random.Random(seed)
    kind, runs = history_of(chance)
    everything = [row for rows, *_ in runs for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        snapshot = store(folder, kind, runs)
        for _ in range(3):
            asked, lines = question_of(chance), spine_of(chance, kind)
            known, threads = chance.choice(["off", "row", "column"]), chance.choice([1, 2])
            spine = spine_rows(snapshot.group, lines, known)
            answered = history.answer(snapshot, asked, spine, evidence=True, threads=threads)
            check(answered, asked, everything, lines, known)


def check(answered, asked, everything, lines, known):
    assert answered.columns.column_names == list(asked.features)
    assert len(answered.columns) == len(lines)
    answered.columns.validate(full=True)
    columns = answered.columns.to_pydict()
    for place, line in enumerate(lines):
        served, why = oracle.winners(everything, asked, line[0], line[1], known_of(line, known), known != "off")
        about = (line, asked, served)
        assert answered.why_not[place] == why, about
        assert answered.matched[place] == bool(served), about
        for name in asked.features:
            if asked.recent is None:
                expected = served[0].values[name] if served else None
            else:
                expected = [row.values[name] for row in served] if served else None
            assert columns[name][place] == expected, (name, about)
        assert answered.event_time[place] == (served[0].event if served else 0)
        best = max((row.effective_known for row in served), default=0)
        assert answered.known_at[place] == best
        if answered.declared[place]:
            assert any(row.known == best for row in served)
        elif served:
            assert any(row.known is None and row.write == best for row in served)


@SOME
@given(SEEDS)
def test_explain_agrees_with_answer(seed):
    chance = random.Random(seed)
    kind, runs = history_of(chance)
    everything = [row for rows, *_ in runs for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        snapshot = store(folder, kind, runs)
        for _ in range(3):
            asked, key = question_of(chance), chance.choice(KEYS[kind][1])
            time, known = chance.randint(-1, 11), maybe(chance, chance.randint(0, 9))
            served, _ = oracle.winners(everything, asked, key, time, known, known is not None)
            told = history.explain(snapshot, asked, key, time, known)
            assert len(told) == sum(row.key == key for row in everything)
            won = [row for row in told if row.verdict == "won"]
            assert [(row.event_time, row.rank) for row in won] == [(row.event, row.rank) for row in served]
            assert [row.values for row in won] == [row.values for row in served]
            assert [row.known_at for row in won] == [row.effective_known for row in served]
            assert all(row.verdict for row in told)


def rec_of(group, line):
    """A row read back, as the loops know it."""
    numbers = {name: line[name] for name in ("write_time", "tilth_known_at", "tilth_expires_at", "at")}
    instants = {name: None if value is None else instant_of(value) for name, value in numbers.items()}
    return Rec(
        key=tuple(line[name] for name in group.record_id),
        event=instants["at"],
        rank=line["tilth_rank"],
        write=instants["write_time"],
        known=instants["tilth_known_at"],
        deleted=line["is_deleted"],
        hard=line["tilth_hard"],
        expires=instants["tilth_expires_at"],
        offline_only=line["tilth_offline_only"],
        values={name: line[name] for name, _ in FEATURES},
    )


@SOME
@given(SEEDS)
def test_rows_of_a_key(seed):
    chance = random.Random(seed)
    kind, runs = history_of(chance)
    everything = [row for rows, *_ in runs for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        snapshot = store(folder, kind, runs)
        for key in KEYS[kind][1]:
            as_of = maybe(chance, chance.randint(0, 9))
            table = history.rows_of(snapshot, key, as_of=as_of)
            assert table.schema.names == offline_schema(snapshot.group).names
            mine = [row for row in everything if row.key == key and (as_of is None or row.write <= as_of)]
            expected = sorted(mine, key=lambda row: (row.event, row.rank))
            assert [rec_of(snapshot.group, line) for line in table.to_pylist()] == expected


def stored(row):
    flags = records.DELETED * row.deleted | records.HARD * row.hard | records.ONLINE | records.OFFLINE
    return records.Stored(row.event, row.rank, row.expires or 0, 1, flags, 0, row.write, b"")


@SOME
@given(SEEDS)
def test_latest_rows_are_what_the_log_folds_to(seed):
    chance = random.Random(seed)
    kind, runs = history_of(chance)
    everything = [row for rows, *_ in runs for row in rows if not row.offline_only]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scans, "_PIECE_ROWS", chance.choice([1, 5, 10**6]))
        patch.setattr(scans, "_SLAB_ROWS", chance.choice([2, 10**6]))
        snapshot = store(folder, kind, runs)
        lines = [line for table in history.latest_rows(snapshot) for line in table.to_pylist()]
    found = {}
    for line in lines:
        row = rec_of(snapshot.group, line)
        assert row.key not in found
        found[row.key] = stored(row)._replace(barrier=line["barrier"])
    log = sorted(everything, key=lambda row: row.sequence)
    expected = {key: records.fold([stored(row) for row in log if row.key == key]) for key in {row.key for row in log}}
    assert found == expected
    assert list(found) == sorted(found)


@SOME
@given(SEEDS)
def test_range_rows_agree_with_the_loops(seed):
    chance = random.Random(seed)
    kind, runs = history_of(chance)
    everything = [row for rows, *_ in runs for row in rows]
    asked = dataclasses.replace(question_of(chance), recent=None, label_within=None)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scans, "_PIECE_ROWS", chance.choice([1, 5, 10**6]))
        snapshot = store(folder, kind, runs)
        tables = list(history.range_rows(snapshot, asked))
    lines = [line for table in tables for line in table.to_pylist()]
    names = [name for name, _ in FEATURES]
    found = [
        (tuple(line[name] for name in snapshot.group.record_id), instant_of(line["at"]), [line[name] for name in names])
        for line in lines
    ]
    expected = oracle.in_range(everything, asked)
    assert found == [(row.key, row.event, [row.values[name] for name in names]) for row in expected]


def small(folder, kind="int"):
    """Three records of one key."""
    key = KEYS[kind][1][1]
    rows = [
        Rec(key, event, -sequence, event, values=values_of(sequence)) for sequence, event in ((1, 2), (2, 4), (3, 6))
    ]
    return store(folder, kind, [(rows, 0, 2, False, True)])


@pytest.mark.parametrize("threads", [1, 2])
def test_progress_rises_to_one(tmp_path, threads):
    snapshot = small(tmp_path)
    told = []
    spine = spine_rows(snapshot.group, [((2,), 5, None)], "off")
    history.answer(snapshot, Asked(("f",)), spine, threads=threads, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 2


def test_identifiers_and_event_time_may_be_asked_for(tmp_path):
    snapshot = small(tmp_path, "pair")
    spine = spine_rows(snapshot.group, [((12, "3"), 5, None), ((12, "3"), 1, None)], "off")
    table = history.answer(snapshot, Asked(("site", "at", "f", "id")), spine).columns
    assert table.schema.field("at").type == offline_schema(snapshot.group).field("at").type
    lines = [{**line, "at": line["at"] and instant_of(line["at"])} for line in table.to_pylist()]
    assert lines == [{"site": "3", "at": 4, "f": 2.5, "id": 12}, {"site": None, "at": None, "f": None, "id": None}]


def test_no_feature_still_says_which_rows_match(tmp_path):
    snapshot = small(tmp_path)
    answered = history.answer(
        snapshot, Asked(()), spine_rows(snapshot.group, [((2,), 5, None), ((2,), 0, None)], "off")
    )
    assert answered.columns.num_columns == 0
    assert answered.matched.tolist() == [True, False]
    assert answered.event_time.tolist() == [4, 0]


def test_an_empty_table_and_an_empty_spine(tmp_path):
    snapshot = store(tmp_path, "text", [])
    spine = spine_rows(snapshot.group, [(("a",), 5, None)], "off")
    answered = history.answer(snapshot, Asked(("f", "s")), spine, evidence=True)
    assert answered.columns.to_pylist() == [{"f": None, "s": None}]
    assert answered.why_not.tolist() == [history.REASONS.index("no record")]
    assert history.answer(snapshot, Asked(("f",), recent=2), spine).columns.to_pylist() == [{"f": None}]
    assert list(history.latest_rows(snapshot)) == []
    assert list(history.range_rows(snapshot, Asked(("f",)))) == []
    assert len(history.rows_of(snapshot, ("a",))) == 0
    empty = spine_rows(snapshot.group, [], "off")
    assert (
        len(
            history.answer(
                small(tmp_path / "b"), Asked(("f",)), spine_rows(small(tmp_path / "c").group, [], "off")
            ).columns
        )
        == 0
    )
    assert len(history.answer(snapshot, Asked(("f",)), empty).columns) == 0


@pytest.mark.parametrize(
    ("asked", "error", "named"),
    [
        (Asked(("g",)), NotFound, "'g'"),
        (Asked(("f", "f")), InvalidInput, "'f'"),
        (Asked(("f",), recent=0), InvalidInput, "recent=0"),
        (Asked(("f",), recent=1, label_within=3), InvalidInput, "recent=1"),
        (Asked(("f",), label_within=-1), InvalidInput, "label_within=-1"),
    ],
)
def test_senseless_questions_are_refused(tmp_path, asked, error, named):
    snapshot = small(tmp_path)
    with pytest.raises(error, match=named):
        history.answer(snapshot, asked, spine_rows(snapshot.group, [((2,), 5, None)], "off"))


def test_keys_of_another_type_are_refused(tmp_path):
    snapshot = small(tmp_path)
    good = spine_rows(snapshot.group, [((2,), 5, None)], "off")
    text = dataclasses.replace(good, keys=good.keys.cast(pa.schema([("id", pa.string())])))
    with pytest.raises(InvalidInput, match="'id' is string"):
        history.answer(snapshot, Asked(("f",)), text)
    with pytest.raises(InvalidInput, match="key columns"):
        history.answer(snapshot, Asked(("f",)), dataclasses.replace(good, keys=good.keys.rename_columns(["key"])))
    with pytest.raises(InvalidInput, match="does not fit"):
        history.rows_of(snapshot, ("two",))
    with pytest.raises(InvalidInput, match="1 value"):
        history.rows_of(snapshot, (1, 2))
    with pytest.raises(InvalidInput, match="has a null"):
        history.rows_of(snapshot, (None,))


def test_options_that_need_a_spine_are_refused_without_one(tmp_path):
    with pytest.raises(InvalidInput, match="need a spine"):
        list(history.range_rows(small(tmp_path), Asked(("f",), recent=1)))


def test_units_out_of_reach_are_not_read(tmp_path, monkeypatch):
    snapshot = small(tmp_path)
    read = []
    plain = reader.Reader.read
    monkeypatch.setattr(
        reader.Reader, "read", lambda self, unit, columns: read.append(unit) or plain(self, unit, columns)
    )

    def reads(key, time, **options):
        read.clear()
        history.answer(snapshot, Asked(("f",), **options), spine_rows(snapshot.group, [((key,), time, None)], "off"))
        return [unit.group for unit in read]

    assert reads(3, 9) == []
    assert reads(2, 1) == []
    assert reads(2, 3) == [0, 0]
    assert sorted(reads(2, 9)) == [0, 1, 1]
    assert sorted(reads(2, 9, event_range=(5, None))) == [1, 1]
    assert reads(2, 9, as_of=1) == []


def test_many_rows_of_few_keys(tmp_path):
    """Long slices, duplicate spine rows, extreme keys and times."""
    generator = np.random.default_rng(4)
    keys = [(-(2**63),), (0,), (2**63 - 1,)]
    rows = [
        Rec(keys[generator.integers(0, 3)], int(event), -sequence, int(event), values=values_of(1))
        for sequence, event in enumerate(generator.integers(-(2**40), 2**40, 900), 1)
    ]
    snapshot = store(tmp_path, "int", [(rows[:600], 0, 70, False, True), (rows[600:], 0, 300, False, True)])
    lines = [(keys[generator.integers(0, 3)], int(time), None) for time in generator.integers(-(2**41), 2**41, 500)] * 2
    lines += [(keys[0], -(2**62), None), (keys[2], 2**62, None)]
    answered = history.answer(snapshot, Asked(("f",)), spine_rows(snapshot.group, lines, "off"))
    for place, (key, time, _) in enumerate(lines):
        events = [row.event for row in rows if row.key == key and row.event <= time]
        assert answered.matched[place] == bool(events)
        assert answered.event_time[place] == max(events, default=0)
