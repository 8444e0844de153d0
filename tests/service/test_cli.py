"""The command as a newcomer meets it: every verb, right and wrong, in a folder of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest

import featurestore
from service.cli import run
from service.console import exit_code

NOW = datetime.now(UTC).replace(microsecond=0)
SCHEMA = (
    "id:Integral, seen:Timestamp, score:Fractional, name:String, ok:Boolean, tags:List<String>, price:Decimal(8, 2)"
)


def ago(**length):
    return (NOW - timedelta(**length)).isoformat()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TILTH_WORKSPACE", raising=False)
    return tmp_path


@pytest.fixture
def tilth(folder, capfd):
    """Runs a command line: (exit code, stdout, stderr)."""

    def call(*words):
        code = run([str(word) for word in words])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


@pytest.fixture
def said(tilth):
    """Runs a command line with ``--json`` that must end with 0, or with the code given: the document."""

    def call(*words, code=0):
        ended, out, err = tilth(*words, "--json")
        assert (ended, err) == (code, "")
        return json.loads(out)

    return call


@pytest.fixture
def refused(tilth):
    """Runs a command line that must fail: (exit code, error line, fix line). Plain and as JSON say the same."""

    def call(*words):
        code, out, err = tilth(*words)
        assert code
        assert out == ""
        message, _, fix = err.strip().partition("\n")
        assert message.startswith("error: ")
        again, out, err = tilth(*words, "--json")
        error = json.loads(err)["error"]
        assert (again, out, error["message"]) == (code, "", message.removeprefix("error: "))
        return code, message.removeprefix("error: "), fix.removeprefix("fix: ")

    return call


@pytest.fixture
def users(tilth):
    """A workspace with a group."""
    assert tilth("group", "create", "users", "--schema", SCHEMA, "--record-id", "id", "--event-time", "seen")[0] == 0
    return "users"


# -- groups ------------------------------------------------------------------------------------------------------------


def test_a_group_is_created_shown_found_changed_and_deleted(said, tilth):
    options = ("--ttl", "30d", "--tag", "team=risk", "--describe", "score=how good", "--parameter", "score.unit=points")
    made = said("group", "create", "u", "--schema", SCHEMA, "--record-id", "id", "--event-time", "seen", *options)
    assert (made["name"], made["record_id"], made["ttl"], made["tags"]) == ("u", ["id"], 2592000, {"team": "risk"})
    shown = said("group", "show", "u")
    assert shown == made
    score = next(each for each in shown["features"] if each["name"] == "score")
    assert (score["type"], score["description"], score["parameters"]) == ("Fractional", "how good", {"unit": "points"})
    assert [each["name"] for each in said("group", "list", "--tag", "team=risk")["groups"]] == ["u"]
    assert said("group", "list", "--tag", "team=other")["groups"] == []
    assert [each["name"] for each in said("group", "search", "risk")["groups"]] == ["u"]
    changed = said("group", "update", "u", "--add", "age:Integral", "--no-ttl", "--remove-tag", "team")
    assert (changed["version"], changed["ttl"], changed["tags"]) == (2, None, {})
    assert "age" in tilth("group", "show", "u")[1]
    assert said("group", "delete", "u", "--offline", "purge", "--yes") == {"deleted": "u", "offline": "purge"}
    assert said("group", "list")["groups"] == []
    assert [each["action"] for each in said("audit", "u")["entries"]][-1] == "create"


def test_a_group_like_a_file_takes_its_columns(folder, said):
    (folder / "a.csv").write_text("id,at,x,y,word\n1,2026-01-01T00:00:00Z,1,1.5,a\n2,2026-01-02T00:00:00Z,,2,b\n")
    made = said("group", "create", "a", "--like", "a.csv", "--record-id", "id", "--event-time", "at")
    types = {each["name"]: each["type"] for each in made["features"]}
    assert types == {"id": "Integral", "at": "Timestamp", "x": "Integral", "y": "Fractional", "word": "String"}


def test_lists_of_groups_come_in_pages(said):
    for name in ("a", "b", "c"):
        said("group", "create", name, "--schema", "k:String, t:Timestamp", "--record-id", "k", "--event-time", "t")
    first = said("group", "list", "--limit", 2)
    second = said("group", "list", "--limit", 2, "--token", first["next_token"])
    names = [each["name"] for each in first["groups"] + second["groups"]]
    assert (names, second["next_token"]) == (["a", "b", "c"], None)


@pytest.mark.parametrize(
    ("words", "code", "message", "fix"),
    [
        (["--schema", "id:Integer, t:Timestamp"], 2, "'Integer' is not a feature type", "Integral"),
        (["--schema", "id, t:Timestamp"], 2, "'id' is not name:Type", "--schema"),
        (["--schema", "id:Integral, id:String"], 2, "'id' is given twice", "name of its own"),
        (["--schema", "x:Integral, t:Timestamp"], 2, "record_id column 'id' is not in the schema", "columns"),
        (["--schema", "id:Integral, x:Timestamp"], 2, "event_time column 't' is not in the schema", "columns"),
        (["--schema", "id:Integral, t:Timestamp", "--ttl", "7"], 2, "--ttl '7' is not a length of time", "7d"),
        (["--schema", "id:Integral, t:Timestamp", "--on-equal", "last"], 2, "on_equal 'last' is unknown", "replace"),
        (["--schema", "id:Integral, t:Timestamp", "--tag", "x"], 2, "--tag 'x' is not name=value", "team=risk"),
        (["--schema", "id:Integral, t:Timestamp", "--parameter", "x=1"], 2, "is not feature.key", "age.unit"),
        (["--schema", "id:Integral, t:Timestamp", "--no-online", "--no-offline"], 2, "a group needs a store", "online"),
        (["--like", "gone.parquet"], 3, "'gone.parquet' does not exist", ""),
        ([], 2, "give either --schema or --like", "e.g."),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(refused, folder, words, code, message, fix):
    ended, said, hint = refused("group", "create", "g", "--record-id", "id", "--event-time", "t", *words)
    assert (ended, message in said, fix in hint) == (code, True, True), (said, hint)


def test_groups_that_are_not_there_and_groups_that_are(refused, users):
    again = ("group", "create", "users", "--schema", SCHEMA, "--record-id", "id", "--event-time", "seen")
    assert refused(*again)[0] == 4
    assert refused("group", "show", "user")[::2] == (3, "did you mean 'users'?")
    assert refused("group", "update", "users", "--add", "score:Integral")[0] == 2
    assert refused("group", "update", "users")[1] == "nothing to change"
    assert refused("group", "delete", "users", "--offline", "burn")[0] == 2
    assert refused("group", "delete", "nobody")[0] == 3
    assert refused("group", "list", "--sort", "size")[0] == 2


def test_purging_asks_first(tilth, users, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert tilth("group", "delete", "users", "--offline", "purge")[0] == 130
    assert tilth("group", "show", "users")[0] == 0


# -- records -----------------------------------------------------------------------------------------------------------


def test_a_record_is_put_read_deleted_and_remembered(said, tilth, users):
    fields = ("score=0.5", "name=Ann = B", "ok=true", 'tags=["a", "b"]', "price=12.30")
    assert said("put", "users", "id=7", f"seen={ago(days=2)}", *fields)["count"] == 1
    held = said("get", "users", "7")
    assert held["status"] == "present"
    wanted = {"id": 7, "seen": ago(days=2), "score": 0.5, "name": "Ann = B", "ok": True, "tags": ["a", "b"]}
    assert held["record"] == {**wanted, "price": "12.30"}
    assert held["age"] == pytest.approx(2 * 86400, abs=600)
    assert said("get", "users", "7", "--features", "score,ok")["record"] == {"score": 0.5, "ok": True}
    said("put", "users", json.dumps({"id": 7, "seen": ago(days=1), "score": 0.75}))
    assert said("get", "users", "7", "--at", ago(hours=36))["record"]["score"] == 0.5
    assert said("get", "users", "7", "--as-of", ago(hours=1), code=3)["record"] is None
    assert said("list", "users")["keys"] == [7]
    said("delete", "users", "7", "--event-time", ago(hours=1))
    gone = said("get", "users", "7", code=3)
    assert (gone["status"], gone["record"]) == ("deleted", None)
    assert said("list", "users")["keys"] == []
    assert said("list", "users", "--deleted")["keys"] == [7]
    assert [row["is_deleted"] for row in said("history", "users", "7")["rows"]] == [False, False, True]
    code, out, _ = tilth("history", "users", "7")
    assert (code, out.count("deleted")) == (0, 1)
    assert said("history", "users", "8", code=3)["rows"] == []
    assert tilth("get", "users", "8")[:2] == (3, "users 8: missing\n")


def test_many_records_are_put_from_a_file_all_or_none(folder, said, refused, users):
    lines = [json.dumps({"id": number, "seen": ago(days=1), "score": number / 2}) for number in range(5)]
    (folder / "r.jsonl").write_text("\n".join(lines))
    assert said("put", "users", "--file", "r.jsonl")["count"] == 5
    (folder / "bad.jsonl").write_text(lines[0] + '\n{"id": "x", "seen": 1}\n')
    assert refused("put", "users", "-f", "bad.jsonl")[0] == 2
    (folder / "broken.jsonl").write_text(lines[0] + "\n{\n")
    assert "line 2 is not JSON" in refused("put", "users", "-f", "broken.jsonl")[1]
    assert refused("put", "users", "-f", "gone.jsonl")[0] == 3
    assert said("list", "users")["keys"] == list(range(5))


def test_an_idempotency_key_writes_once(said, users):
    words = ("put", "users", "id=1", f"seen={ago(days=1)}", "--idempotency-key", "k1")
    first, again = said(*words), said(*words)
    assert (first["repeated"], again["repeated"]) == (False, True)
    assert len(said("history", "users", "1")["rows"]) == 1


def test_composite_keys_with_a_moment_and_a_date(said, refused):
    schema = "shop:String, day:Date, hour:Timestamp, at:Timestamp, n:Integral"
    said("group", "create", "g", "--schema", schema, "--record-id", "shop,day,hour", "--event-time", "at")
    said("put", "g", "shop=A", "day=2026-01-02", "hour=2026-01-02T03:00:00Z", f"at={ago(days=1)}", "n=3")
    record = {"shop": "A", "day": "2026-01-02", "hour": "2026-01-02T04:00:00+00:00", "at": ago(days=1), "n": 4}
    said("put", "g", json.dumps(record))
    assert said("get", "g", "A", "2026-01-02", "2026-01-02T03:00:00Z")["record"]["n"] == 3
    assert said("get", "g", "A", "2026-01-02", "2026-01-02T04:00:00Z")["record"] == record
    assert refused("get", "g", "A")[1] == "group 'g' has 3 identifier(s), 1 given"
    assert "is not a date" in refused("get", "g", "A", "soon", "2026-01-02T03:00:00Z")[1]
    assert "has no time zone" in refused("get", "g", "A", "2026-01-02", "2026-01-02T03:00:00")[1]


@pytest.mark.parametrize(
    ("words", "message", "fix"),
    [
        (["id=x", "seen=2026-01-01T00:00:00Z"], "id = 'x' is not Integral", "whole number"),
        (["id=1", "seen=2026-01-01T00:00:00"], "has no time zone", "add one"),
        (["id=1", "seen=tomorrow"], "is not a moment", "ISO 8601"),
        (["id=1", "seen=2126-01-01T00:00:00Z"], "lies too far in the future", "future_bound"),
        (["id=1"], "event time 'seen' is missing", "event time"),
        (["seen=2026-01-01T00:00:00Z"], "key column 'id' is Integral, got None", "not null"),
        (["id=1", "sccore=1"], "feature 'sccore' is not in group 'users'", "did you mean 'score'?"),
        (["id=1", "seen=2026-01-01T00:00:00Z", "price=1.234"], "is Decimal(8, 2)", "exactly"),
        (["id=1", "seen=2026-01-01T00:00:00Z", "score=inf"], "score", "infinities"),
        (["id=1", "seen=2026-01-01T00:00:00Z", "ok=maybe"], "ok = 'maybe' is not Boolean", "true or false"),
        (["id=1", "seen=2026-01-01T00:00:00Z", "tags=a"], "is not List<String>", "JSON"),
        (["id=1", "id=2"], "'id' is given twice", "once"),
        (["id"], "'id' is not name=value", "e.g."),
        (['{"id": 1'], "the record is not JSON", "e.g."),
        (["[1]"], "is not name=value", "e.g."),
        ([], "give either a record or --file", "e.g."),
    ],
)
def test_a_wrong_record_says_what_is_wrong_and_is_not_written(refused, said, users, words, message, fix):
    code, told, hint = refused("put", "users", *words)
    assert (code, message in told, fix in hint) == (2, True, True), (told, hint)
    assert said("list", "users")["keys"] == []


def test_wrong_words_to_the_other_verbs(refused, users):
    assert refused("get", "users", "abc")[:2] == (2, "id = 'abc' is not Integral")
    assert refused("get", "users", "1", "--features", "nope")[0] == 2
    assert refused("get", "users", "1", "--at", "now")[0] == 2
    assert refused("get", "nobody", "1")[0] == 3
    assert refused("delete", "users", "1", "--event-time", "2026-01-01")[0] == 2
    assert refused("list", "users", "--limit", 0)[0] == 2
    assert refused("list", "users", "--token", "%%")[0] == 2
    assert refused("history", "nobody", "1")[0] == 3
    assert refused("put", "users", "id=1", f"seen={ago(days=1)}", "--stores", "moon")[0] == 2
    assert refused("put", "users", "id=1", f"seen={ago(days=1)}", "--ttl", "soon")[0] == 2
    assert refused("put", "users", "id=1", f"seen={ago(days=1)}", "--known-at", "soon")[0] == 2


# -- loads -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(folder):
    rows = ["id,seen,score", f"1,{ago(days=3)},0.1", f"2,{ago(days=3)},oops", "3,,0.3", f"4,{ago(days=3)},0.4"]
    (folder / "users.csv").write_text("\n".join(rows) + "\n")
    return "users.csv"


def test_a_load_keeps_what_fits_and_says_why_not(said, tilth, users, source):
    report = said("ingest", "users", source)
    assert (report["rows"], report["rejected"], report["repeated"]) == (2, 2, False)
    assert sum(report["reasons"].values()) == 2
    assert said("ingest", "users", source)["repeated"] is True
    assert said("ingest", "users", source, "--again")["rows"] == 2
    refused = said("quarantine", "users", "--load", report["load"])["rows"]
    assert {(row["row"], row["field"]) for row in refused} == {(1, "score"), (2, "seen")}
    assert "2 rows refused" in tilth("ingest", "users", source, "--again")[1]
    assert said("get", "users", "4")["record"]["score"] == 0.4


def test_a_load_can_be_refused_whole_or_gated(folder, said, refused, users, source):
    assert refused("ingest", "users", source, "--on-error", "reject")[0] == 2
    assert said("list", "users")["keys"] == []
    low = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "score", "max_value": 0.2}}
    (folder / "gate.json").write_text(json.dumps({"name": "scores", "expectations": [low]}))
    assert said("ingest", "users", source, "--gate", "gate.json")["rows"] == 1
    assert said("list", "users")["keys"] == [1]
    (folder / "broken.json").write_text("{")
    assert refused("ingest", "users", source, "--gate", "broken.json")[0] == 2
    assert refused("ingest", "users", source, "--gate", "gone.json")[0] == 3


def test_a_load_from_a_query_with_a_declared_delay(said, users, source):
    query = f"SELECT 9 AS id, TIMESTAMPTZ '{ago(days=3)}' AS seen, 0.9 AS score"
    assert said("ingest", "users", "--sql", query, "--known-at", "10m")["rows"] == 1
    row = said("history", "users", "9")["rows"][0]
    assert row["tilth_known_at"] == (NOW - timedelta(days=3) + timedelta(minutes=10)).isoformat()


def test_wrong_sources(folder, refused, users, source):
    (folder / "bad.parquet").write_text("garbage")
    (folder / "nokey.csv").write_text("seen,score\n2026-01-01T00:00:00Z,1\n")
    assert refused("ingest", "users", "gone.csv")[0] == 3
    assert "bad.parquet" in refused("ingest", "users", "bad.parquet")[1]
    assert "id" in refused("ingest", "users", "nokey.csv")[1]
    assert refused("ingest", "users")[0] == 2
    assert refused("ingest", "users", "--sql", "SELECT * FRM x")[0] == 2
    assert refused("ingest", "users", source, "--on-error", "ignore")[0] == 2
    assert refused("ingest", "users", source, "--known-at", "nope")[0] == 2
    assert refused("ingest", "nobody", source)[0] == 3


# -- datasets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def spine(folder, tilth, users):
    for day, score in ((5, 0.5), (3, 0.3), (1, 0.1)):
        assert tilth("put", "users", "id=1", f"seen={ago(days=day)}", f"score={score}")[0] == 0
    rows = [f"1,{ago(days=4)}", f"1,{ago(days=2)}", f"2,{ago(days=2)}", f"1,{ago(days=9)}"]
    (folder / "spine.csv").write_text("uid,ts\n" + "\n".join(rows) + "\n")
    return "spine.csv"


def test_a_training_set_is_previewed_saved_written_recreated_and_deleted(folder, said, tilth, refused, spine):
    words = ("dataset", "build", spine, "-e", "ts", "-j", "users:on=id:uid,features=score")
    seen = said(*words)
    assert [row["score"] for row in seen["first"]] == [0.5, 0.3, None, None]
    assert seen["certificate"]["passed"] is True
    assert said("dataset", "list")["datasets"] == []
    saved = said(*words, "--save", "s", "--description", "try", "--out", "s.parquet")
    assert (saved["id"], saved["rows"]) == ("s@v1", 4)
    assert pq.read_table(folder / "s.parquet").column("score").to_pylist() == [0.5, 0.3, None, None]
    assert "Leak certificate: passed" in tilth("dataset", "show", "s")[1]
    tilth("put", "users", "id=1", f"seen={ago(hours=60)}", "score=9")
    assert said("dataset", "recreate", "s")["recreated_hash"] == saved["content_hash"]
    assert said(*words, "--save", "s")["version"] == 2
    assert [each["id"] for each in said("dataset", "list", "s")["datasets"]] == ["s@v1", "s@v2"]
    assert refused("dataset", "delete", "s")[::2] == (2, "e.g. s@v2")
    assert said("dataset", "delete", "s@v2") == {"deleted": "s@v2"}
    assert refused("dataset", "show", "s@v2")[0] == 3


def test_a_recreated_dataset_that_differs_ends_with_1(folder, said, spine):
    saved = said("dataset", "build", spine, "-e", "ts", "-j", "users:on=uid,features=score", "--save", "s")
    path = next(folder.rglob("v1/spine.parquet"))
    table = pq.read_table(path)
    pq.write_table(table.take([0, 1, 2, 2]), path)
    found = said("dataset", "recreate", "s", code=1)
    assert (found["equal"], found["content_hash"]) == (False, saved["content_hash"])


def test_known_by_boundary_and_age_reach_the_join(said, spine):
    words = ("dataset", "build", spine, "-e", "ts")
    assert [
        row["score"] for row in said(*words, "-j", "users:on=uid,features=score", "--known-by", "row")["first"]
    ] == [None] * 4
    aged = said(*words, "-j", "users:on=uid,features=score,max_age=1h,prefix=u_")["first"]
    assert [row["u_score"] for row in aged] == [None] * 4
    recent = said(*words, "-j", "users:on=uid,features=score,recent=2")["first"]
    assert [row["score"] for row in recent] == [[0.5], [0.3, 0.5], None, None]
    labelled = said(*words, "--label", "users:on=uid,features=score,within=36h")["first"]
    assert [row["score"] for row in labelled] == [0.3, 0.1, None, None]
    early = said(*words, "-j", "users:on=uid,features=score", "--as-of", ago(hours=1))["first"]
    assert [row["score"] for row in early] == [None] * 4


def test_a_definition_file_says_the_same_as_options(folder, said, refused, spine):
    (folder / "d.toml").write_text(
        'spine = "spine.csv"\nevent_time = "ts"\n[[join]]\ngroup = "users"\non = {id = "uid"}\nfeatures = ["score"]\n'
        '[split]\nfractions = {train = 0.5, test = 0.5}\nby = "uid"\n'
    )
    asked = {
        "spine": "spine.csv",
        "event_time": "ts",
        "join": [{"group": "users", "on": ["uid"], "features": ["score"]}],
        "split": {"fractions": {"train": 0.5, "test": 0.5}, "by": ["uid"]},
    }
    (folder / "d.json").write_text(json.dumps(asked))
    split = ("--split", "train=0.5,test=0.5", "--split-by", "uid")
    by_options = said("dataset", "build", spine, "-e", "ts", "-j", "users:on=uid,features=score", *split)
    for name in ("d.toml", "d.json"):
        assert said("dataset", "build", "--file", name)["first"] == by_options["first"]
    (folder / "d.toml").write_text(
        'spine = "spine.csv"\nevent_time = "ts"\n[[join]]\ngroup = "users"\nmax_aeg = "1h"\n'
    )
    assert refused("dataset", "build", "-f", "d.toml")[::2] == (2, "did you mean 'max_age'?")
    (folder / "d.toml").write_text("spine = 3\nevent_time = 'ts'\n")
    assert "spine = 3 is not text" in refused("dataset", "build", "-f", "d.toml")[1]
    (folder / "d.toml").write_text("spine =")
    assert refused("dataset", "build", "-f", "d.toml")[0] == 2
    assert refused("dataset", "build", "-f", "gone.toml")[0] == 3


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "no spine is given"),
        (["spine.csv"], 2, "column of moments is not given"),
        (["spine.csv", "-e", "nope"], 2, "no column 'nope'"),
        (["gone.csv", "-e", "ts"], 3, "'gone.csv' does not exist"),
        (["spine.csv", "-e", "ts", "-j", "users:onn=uid"], 2, "'onn' is unknown"),
        (["spine.csv", "-e", "ts", "-j", "users"], 2, "id"),
        (["spine.csv", "-e", "ts", "-j", "nobody:on=uid"], 3, "'nobody' does not exist"),
        (["spine.csv", "-e", "ts", "-j", ":on=uid"], 2, "names no group"),
        (["spine.csv", "-e", "ts", "-j", "users:on=uid,on=uid"], 2, "gives 'on' twice"),
        (["spine.csv", "-e", "ts", "-j", "users:on=uid,features=nope"], 2, "feature 'nope'"),
        (["spine.csv", "-e", "ts", "-j", "users:on=uid,max_age=old"], 2, "max_age 'old'"),
        (["spine.csv", "-e", "ts", "-j", "users:on=uid,recent=two"], 2, "recent = 'two' is not a whole number"),
        (["spine.csv", "-e", "ts", "--label", "users:on=uid"], 2, "has no within"),
        (["spine.csv", "-e", "ts", "-j", "users:on=uid", "--boundary", ">"], 2, "boundary '>' is unknown"),
        (["spine.csv", "-e", "ts", "-j", "users:on=uid", "--out", "x.csv"], 2, "neither a .parquet file"),
        (["spine.csv", "-e", "ts", "-j", "users:on=uid", "--save", "s", "--out", "x"], 2, "is no .parquet file"),
        (["spine.csv", "-e", "ts", "-j", "users:on=uid", "--split", "a=0.5"], 2, "split"),
        (["spine.csv", "-e", "ts", "-j", "users:on=uid", "--split", "a=0.5,b=2026-01-01T00:00:00Z"], 2, "mixes"),
        (["spine.csv", "-e", "ts", "-j", "users:on=uid", "--save", "no good"], 2, "no good"),
        (["spine.csv", "-e", "ts", "-j", "users:on=uid", "--as-of", "then"], 2, "--as-of 'then'"),
    ],
)
def test_a_wrong_dataset_says_what_is_wrong(refused, spine, words, code, message):
    ended, told, _ = refused("dataset", "build", *words)
    assert (ended, message in told) == (code, True), told


def test_a_delta_folder_is_written(folder, said, spine):
    written = said("dataset", "build", spine, "-e", "ts", "-j", "users:on=uid,features=score", "--out", "t")
    assert written == {"rows": 4, "out": "t"}
    assert (folder / "t" / "_delta_log").is_dir()


# -- care --------------------------------------------------------------------------------------------------------------


def test_verify_finds_a_difference_and_mends_it(folder, said, tilth, users):
    tilth("put", "users", "id=1", f"seen={ago(days=1)}", "score=1")
    assert said("verify")["ok"] is True
    with featurestore.open("tilth-workspace") as store:
        view = store._parts.view("users")
        store._parts.online.replace(view.group, view.codec.key(1), None)
    found = said("verify", "users", code=1)
    assert (found["ok"], found["groups"][0]["different"]) == (False, 1)
    assert tilth("verify")[0] == 1
    assert said("verify", "--repair")["groups"][0]["repaired"] == 1
    assert said("verify", "--sample", "0.5")["ok"] is True


def test_the_rest_of_care_does_what_it_says(folder, said, refused, tilth, users):
    for day in (3, 2, 1):
        tilth("put", "users", "id=1", f"seen={ago(days=day)}", f"score={day}")
    assert said("flush")["rows"] == 0
    report = said("compact", "users")["groups"][0]
    assert (report["group"], report["runs_before"], report["runs_after"]) == ("users", 3, 1)
    assert said("vacuum", "--older-than", "7d")["groups"] == [{"group": "users", "removed": []}]
    assert said("rebuild", "users")["records"] == 1
    assert said("rebuild", "users", "--store", "offline")["records"] == 0
    assert said("export", "users", "out")["rows"] == 3
    assert list((folder / "out").rglob("*.parquet"))
    assert said("quarantine", "users")["rows"] == []
    assert said("audit", "--limit", 1)["entries"]
    assert refused("rebuild", "users", "--store", "moon")[0] == 2
    assert refused("verify", "--sample", "2")[0] == 2
    assert refused("vacuum", "users", "--older-than", "long")[0] == 2
    assert refused("audit", "--since", "then")[0] == 2
    assert refused("export", "nobody", "out")[0] == 3


def test_a_group_in_one_store_cannot_be_compared(said, refused):
    schema = ("--schema", "k:String, t:Timestamp", "--record-id", "k", "--event-time", "t")
    said("group", "create", "on", *schema, "--no-offline")
    said("group", "create", "off", *schema, "--no-online")
    assert refused("verify", "on")[0] == 7
    assert refused("get", "off", "x")[0] == 7
    assert refused("history", "on", "x")[0] == 7
    assert said("verify") == {"ok": True, "groups": []}


# -- the command itself ------------------------------------------------------------------------------------------------


def test_words_nobody_knows(refused, tilth):
    assert "Did you mean 'group'" in refused("gruop")[1]
    assert refused("get")[::2] == (2, "see tilth get --help")
    assert refused("get", "users", "1", "--nope")[0] == 2
    assert refused("list", "users", "--limit", "many")[0] == 2
    assert tilth()[0] == 2
    assert tilth("--version")[1].startswith("tilth ")
    assert "Examples" in tilth("get", "--help")[1]


def test_a_workspace_is_looked_for_and_only_made_on_purpose(folder, tilth, refused, said, monkeypatch):
    code, message, fix = refused("get", "users", "1")
    assert (code, message, "TILTH_WORKSPACE" in fix) == (3, "there is no workspace at tilth-workspace", True)
    assert list(folder.iterdir()) == []
    schema = ("--schema", "k:String, t:Timestamp", "--record-id", "k", "--event-time", "t")
    said("group", "create", "g", *schema, "-w", "here")
    monkeypatch.setenv("TILTH_WORKSPACE", "here")
    assert said("group", "list")["groups"][0]["name"] == "g"
    monkeypatch.delenv("TILTH_WORKSPACE")
    monkeypatch.chdir(folder / "here")
    assert said("group", "list")["groups"][0]["name"] == "g"
    monkeypatch.setenv("TILTH_THREADS", "many")
    assert "TILTH_THREADS" in refused("group", "list")[1]


def test_the_console_script_ends_quietly_when_nobody_reads_on(folder, said, users):
    said("put", "users", "id=1", f"seen={ago(days=1)}")
    for option, first in (("--json", "{\n"), ("", "group        users\n")):
        words = f"'{sys.executable}' -m service.cli group show users {option} | head -n 1"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", words], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout, done.stderr) == (0, first, "")


def test_the_shell_completes_verbs(folder):
    asked = {"COMP_WORDS": "tilth gro", "COMP_CWORD": "1", "_TILTH_COMPLETE": "complete_bash"}
    words = "import sys; sys.argv = ['tilth']; from service.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", words], env={**os.environ, **asked}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["group"]


def test_every_error_has_its_exit_code():
    from foundation import errors

    codes = {name: exit_code(getattr(errors, name)("x")) for name in errors.__all__ if name != "PlatformError"}
    assert codes == {
        "InvalidInput": 2,
        "NotFound": 3,
        "AlreadyExists": 4,
        "Conflict": 4,
        "InUse": 4,
        "LimitExceeded": 5,
        "AccessDenied": 6,
        "NotSupported": 7,
        "Unavailable": 75,
    }
    assert exit_code(KeyboardInterrupt()) == 130
