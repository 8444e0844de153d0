"""Run files: names, order, cuts, footers, and what a full disk leaves."""

import subprocess
import sys
import textwrap

import numpy as np
import offline_tables as tables
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from offline_tables import group_of, order_of, rows_of

from featurestore.offline import offline_schema, runs, sink
from featurestore.offline.footers import read_footer, stats_of
from featurestore.offline.runs import count_until, cut_rows, entity_starts, new_name, parse_name, published_name
from foundation.errors import InvalidInput, NotFound, PlatformError


@pytest.fixture
def files(tmp_path):
    made = tables.local_files(tmp_path)
    made.filesystem.create_dir("t")
    return made


def write(files, group, rows, **options):
    out = sink.RunSink(files, "t", group, "log", **options)
    frame = runs.sort_rows(group, rows)
    step = max(1, frame.height // 7)
    for start in range(0, frame.height, step):
        out.write(frame[start : start + step])
    return out.close()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 12))
def test_cuts_are_at_entities_and_pieces_are_small(lengths, target):
    starts = np.cumsum([0, *lengths[:-1]])
    rows = sum(lengths)
    cuts = cut_rows(starts, rows, target)
    places = [0, *(place for place, _ in cuts)]
    assert places == sorted(set(places))
    assert all(after - before <= target for before, after in zip(places, [*places[1:], rows], strict=True))
    for before, (place, aligned) in zip(places, cuts, strict=False):
        assert aligned == (place in starts)
        if not aligned:
            assert not any(before < start <= before + target for start in starts), "an entity boundary was passed over"


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["", "a", "é", "\U0001f600", "z"]), st.booleans())))
def test_counting_up_to_a_bound_matches_a_loop(rows):
    held = sorted(rows, key=lambda row: (row[0], row[1].encode(), row[2]))
    frame = pl.DataFrame(held, schema={"a": pl.Int64, "b": pl.String, "c": pl.Boolean}, orient="row")
    columns = runs.searchable(frame, ["a", "b", "c"])
    for bound in [*held, (1, "f", True), (-1, "", False), (9, "", False)]:
        wanted = sum((row[0], row[1].encode(), row[2]) <= (bound[0], bound[1].encode(), bound[2]) for row in held)
        if held:
            assert count_until(columns, 0, bound) == wanted


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 60), st.integers(0, 10_000), st.integers(1, 9))
def test_rows_are_sorted_like_a_loop_sorts_them(count, seed, keys):
    group = group_of()
    rows = rows_of(group, count, seed, keys=keys)
    wanted = sorted(rows.to_pylist(), key=order_of(group))
    frame = runs.sort_rows(group, rows)
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(offline_schema(group))
    assert table.to_pylist() == wanted
    assert runs.sort_rows(group, table).equals(frame)


def test_entities_start_where_any_key_column_changes():
    frame = pl.DataFrame({"a": [1, 1, 1, 2, 2], "b": ["x", "x", "y", "y", "y"]})
    assert entity_starts(frame, ["a", "b"]).tolist() == [0, 2, 3]
    assert entity_starts(frame, ["a"]).tolist() == [0, 3]
    assert entity_starts(frame[:0], ["a"]).tolist() == []


def test_names_say_what_a_run_is():
    name = new_name("load")
    assert parse_name(name) == ("load", 0, name[5:-8])
    published = published_name(name, 1_700_000_000_000_000)
    assert parse_name(published) == ("load", 1_700_000_000_000_000, name[5:-8])
    assert published_name(published, 7) == published_name(name, 7)
    parts = [new_name("merge", part, "0" * 32) for part in (0, 1)]
    assert {parse_name(part).stem for part in parts} == {"0" * 32}
    assert parse_name(new_name("log-77-12345678")).committed_at == 0
    with pytest.raises(InvalidInput):
        parse_name("part-00000-c000.snappy.parquet")


def test_row_groups_and_files_are_cut_at_entities(files, monkeypatch):
    monkeypatch.setattr(sink, "GROUP_ROWS", 40)
    group = group_of()
    rows = rows_of(group, 1000, keys=12)
    written = write(files, group, rows, file_bytes=1)
    assert sum(run.rows for run in written) == 1000
    assert len(written) > 5
    previous: set[tuple[object, ...]] = set()
    held = []
    for run in written:
        file = pq.ParquetFile(files.filesystem.open_input_file(f"t/{run.path}"))
        assert files.filesystem.get_file_info(f"t/{run.path}").size == run.size
        entities: set[tuple[object, ...]] = set()
        for part in range(file.num_row_groups):
            piece = file.read_row_group(part).to_pylist()
            assert len(piece) <= 40
            here = {(row["id"], row["site"]) for row in piece}
            assert not here & entities, "an entity of fewer rows than a row group was split"
            entities |= here
            held += piece
        assert not entities & previous, "an entity is in two files"
        previous = entities
    assert held == sorted(rows.to_pylist(), key=order_of(group))


def test_an_entity_larger_than_a_row_group_is_split_but_stays_in_one_file(files, monkeypatch):
    monkeypatch.setattr(sink, "GROUP_ROWS", 16)
    columns = [("id", "Integral"), ("at", "Timestamp"), ("x", "Fractional")]
    group = group_of(columns=columns, record_id="id")
    rows = rows_of(group, 200, keys=1)
    (run,) = write(files, group, rows, file_bytes=1)
    assert run.rows == 200
    assert read_footer(files, f"t/{run.path}").num_row_groups == 13


def test_footers_prove_what_readers_skip(files):
    columns = [("id", "Integral"), ("at", "Timestamp"), ("x", "Fractional")]
    group = group_of(columns=columns, record_id="id")
    lines = [{**row, "is_deleted": False, "tilth_expires_at": None} for row in rows_of(group, 50).to_pylist()]
    same = [{**row, "write_time": lines[0]["write_time"]} for row in lines]
    rows = rows_of(group, 0).from_pylist(same, schema=offline_schema(group))
    (run,) = write(files, group, rows)
    footer = read_footer(files, f"t/{run.path}")
    stats = {
        footer.schema.column(place).name: footer.row_group(0).column(place).statistics
        for place in range(footer.num_columns)
    }
    assert (stats["is_deleted"].min, stats["is_deleted"].max, stats["is_deleted"].null_count) == (False, False, 0)
    assert stats["tilth_expires_at"].null_count == 50
    assert stats["write_time"].min == stats["write_time"].max == lines[0]["write_time"]
    told = stats_of(footer, group)
    assert told["minValues"]["id"] == min(row["id"] for row in lines)
    assert told["maxValues"]["at"] == max(row["at"] for row in lines).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert told["nullCount"]["tilth_expires_at"] == 50
    assert "x" not in told["nullCount"]


def test_long_text_is_left_out_of_the_statistics(files):
    group = group_of()
    lines = [{**row, "site": "m"} for row in rows_of(group, 10).to_pylist()]
    lines[0]["site"] = "q" * 300
    lines[1]["site"] = "zz"
    (run,) = write(files, group, rows_of(group, 0).from_pylist(lines, schema=offline_schema(group)))
    told = stats_of(read_footer(files, f"t/{run.path}"), group)
    assert told["maxValues"]["site"] == "zz"
    assert told["minValues"]["site"] == "m"
    lines[1]["site"] = "z" * 300
    (run,) = write(files, group, rows_of(group, 0).from_pylist(lines, schema=offline_schema(group)))
    told = stats_of(read_footer(files, f"t/{run.path}"), group)
    assert "site" not in told["maxValues"]
    assert "site" not in told["minValues"]


def test_damage_is_a_typed_error(files, tmp_path):
    (tmp_path / "t" / "bad.parquet").write_bytes(b"PAR1 this is no parquet file")
    with pytest.raises(PlatformError, match=r"bad\.parquet is damaged"):
        read_footer(files, "t/bad.parquet")
    with pytest.raises(NotFound, match="is gone"):
        read_footer(files, "t/none.parquet")
    group = group_of()
    (run,) = write(files, group, rows_of(group, 500))
    whole = bytearray((tmp_path / "t" / run.path).read_bytes())
    whole[200:900] = bytes(700)
    (tmp_path / "t" / run.path).write_bytes(whole)
    with pytest.raises(PlatformError, match="is damaged"), runs.open_run(files, f"t/{run.path}") as file:
        list(file.iter_batches())


def test_aborting_leaves_nothing(files, tmp_path, monkeypatch):
    monkeypatch.setattr(sink, "GROUP_ROWS", 10)
    group = group_of()
    out = sink.RunSink(files, "t", group, "merge", file_bytes=1)
    out.write(runs.sort_rows(group, rows_of(group, 200)))
    assert list((tmp_path / "t").iterdir())
    out.abort()
    assert list((tmp_path / "t").iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path):
    """A process that may write no file above 64 KB stands for a disk without space: both end a write in an OSError."""
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        import offline_tables as tables
        from featurestore.offline.delta import DeltaStore
        from foundation.errors import LimitExceeded
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        group = tables.group_of()
        store = DeltaStore(tables.local_files(Path(sys.argv[1])))
        store.create(group)
        rows = tables.rows_of(group, 4000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        try:
            store.write_run(group, rows, "log")
        except LimitExceeded as error:
            left = [path.name for path in (Path(sys.argv[1]) / store.folder(group)).iterdir()]
            print(left, error)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    assert done.stdout.startswith("['_delta_log'] no space left")
