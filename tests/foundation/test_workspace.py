"""Opening a place: what makes a workspace, what is refused, and two processes at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from foundation.clock import Clock
from foundation.errors import AccessDenied, Conflict, InvalidInput, NotSupported
from foundation.workspace import PACKAGES, Workspace, check_packages


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch) -> None:
    for name in list(os.environ):
        if name.startswith("TILTH_"):
            monkeypatch.delenv(name)


def test_a_new_path_becomes_a_workspace_that_opens_again(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "place with space%20"
    with Workspace.open(place, clock=Clock(lambda: 5_000_000), actor="ann") as made:
        assert made.root == place
        assert (made.actor, made.created_at) == ("ann", 5_000_000)
        made.catalog.create("feature group", "users", {"x": 1}, actor=made.actor)
        assert made.files.locate("a/b") == str(place / "files" / "a" / "b")
    assert {entry.name for entry in place.iterdir()} >= {"workspace.json", "catalog.sqlite", "files"}
    with Workspace.open(str(place)) as again:
        assert (again.id, again.created_at) == (made.id, 5_000_000)
        assert again.catalog.get("feature group", "users").document == {"x": 1}
        assert again.actor


def test_a_moved_workspace_opens_where_it_is(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "a") as made:
        made.catalog.create("feature group", "users", {})
    (tmp_path / "a").rename(tmp_path / "b")
    with Workspace.open(tmp_path / "b") as moved:
        assert moved.id == made.id
        assert moved.catalog.get("feature group", "users").version == 1
        assert moved.files.locate("x") == str(tmp_path / "b" / "files" / "x")
    assert not (tmp_path / "a").exists()


def test_two_workspaces_have_ids_of_their_own(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "a") as a, Workspace.open(tmp_path / "b") as b:
        assert a.id != b.id
        assert len(a.id) == len(b.id) == 16


def test_an_empty_directory_and_one_with_a_settings_file_will_do(tmp_path: Path) -> None:
    (tmp_path / "tilth.toml").write_text('threads = 3\nfuture_bound = "2h"\n')
    with Workspace.open(tmp_path) as workspace:
        assert workspace.settings.threads == 3
        assert workspace.settings.sources["threads"] == str(tmp_path / "tilth.toml")


def test_a_directory_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidInput, match=r"not empty and not a workspace: it holds thesis\.txt"):
        Workspace.open(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidInput) as caught:
            Workspace.open(path)
        assert "directory" in caught.value.hint


@pytest.mark.parametrize("bad", ["", 7, None, "a\0b"])
def test_a_path_must_be_a_path(bad: object) -> None:
    with pytest.raises(InvalidInput, match="not a path"):
        Workspace.open(bad)


def test_a_bad_setting_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="setting threads = 'many'"):
        Workspace.open(tmp_path / "place", threads="many")
    with pytest.raises(InvalidInput, match="setting 'thread'"):
        Workspace.open(tmp_path / "place", thread=1)
    assert not (tmp_path / "place").exists()


@pytest.mark.parametrize(
    ("name", "made", "other"),
    [
        ("online", "embedded:", "redis://localhost:6379/0"),
        ("online", "redis://ann:secret@localhost:6379/0", "redis://localhost:6379/1"),
        ("catalog", "sqlite:catalog.sqlite", "sqlite:other.sqlite"),
        ("files", "file:files", "file:///elsewhere/files"),
    ],
)
def test_other_stores_than_it_was_made_with_are_a_conflict(tmp_path: Path, name: str, made: str, other: str) -> None:
    Workspace.open(tmp_path / "p", **{name: made}).close()
    with pytest.raises(Conflict) as caught:
        Workspace.open(tmp_path / "p", **{name: other})
    assert other in str(caught.value)
    assert made.replace("ann:secret@", "") in str(caught.value)
    assert caught.value.subject == f"setting {name}"
    Workspace.open(tmp_path / "p", **{name: made}).close()


def test_recorded_stores_are_used_where_none_is_named(tmp_path: Path, monkeypatch) -> None:
    Workspace.open(tmp_path / "p", online="redis://localhost:6379/3", files=f"file://{tmp_path}/lake").close()
    with Workspace.open(tmp_path / "p") as again:
        assert again.settings.online == "redis://localhost:6379/3"
        assert again.files.locate("x") == str(tmp_path / "lake" / "x")
    with Workspace.open(tmp_path / "p", files=f"file://{tmp_path}/lake/"):
        pass
    monkeypatch.setenv("TILTH_ONLINE", "embedded:")
    with pytest.raises(Conflict, match="environment TILTH_ONLINE"):
        Workspace.open(tmp_path / "p")


@pytest.mark.parametrize(
    "url",
    [
        "redis://ann:se@cret@localhost:6379/0",
        "redis://:se/cret@localhost:6379/0",
        "redis+cluster://localhost:6379?username=ann&password=secret&ssl=1",
        "rediss://localhost:6379?password=secret",
    ],
)
def test_a_password_is_used_but_not_stored(tmp_path: Path, url: str) -> None:
    with Workspace.open(tmp_path / "p", online=url) as workspace:
        assert workspace.settings.online == url
    with Workspace.open(tmp_path / "p") as again:
        assert "localhost:6379" in again.settings.online
    Workspace.open(tmp_path / "p", online=url).close()
    for path in (tmp_path / "p").rglob("*"):
        if path.is_file():
            assert b"cret" not in path.read_bytes()


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    Workspace.open(tmp_path).close()
    path = tmp_path / "workspace.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(NotSupported, match="has format 2, this build reads up to 1"):
        Workspace.open(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": "1"}', '{"format": 1}'])
def test_a_damaged_workspace_file_is_told(tmp_path: Path, text: str) -> None:
    Workspace.open(tmp_path).close()
    (tmp_path / "workspace.json").write_text(text)
    with pytest.raises(InvalidInput, match="cannot be understood"):
        Workspace.open(tmp_path)


def test_a_left_over_draft_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".workspace.json.draft").write_text('{"form')
    with Workspace.open(tmp_path) as workspace:
        assert workspace.id


_UNPRIVILEGED = """
import os, sys
import featurestore, ingest, service
from foundation.errors import PlatformError
from foundation.workspace import Workspace
Workspace.open(sys.argv[1]).close()
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for path in sys.argv[2:]:
    try:
        Workspace.open(path).close()
        print("opened")
    except PlatformError as error:
        print(type(error).__name__, error)
"""


def test_a_place_that_cannot_be_written_is_denied(tmp_path: Path) -> None:
    # By another user where this one may write everywhere; the way there must be open to that user.
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "made").mkdir()
        (home / "empty").mkdir()
        Workspace.open(home / "made").close()
        places = [home / "below" / "new", home / "made", home / "empty"]
        closed = (home / "made", home / "empty", home)
        try:
            for path in closed:
                path.chmod(0o555)
            run = subprocess.run(
                [sys.executable, "-c", _UNPRIVILEGED, str(tmp_path), *map(str, places)],
                capture_output=True,
                text=True,
                timeout=60,
            )
        finally:
            for path in closed:
                path.chmod(0o755)
    assert run.returncode == 0, run.stderr
    said = run.stdout.splitlines()
    assert [line.split()[0] for line in said] == [AccessDenied.__name__] * 3, said
    assert all("cannot be written" in line for line in said)


def _open_together(place: str, gate, told) -> None:
    gate.wait(30)
    with Workspace.open(place) as workspace:
        workspace.catalog.next_number("opened")
        told.put(workspace.id)


def test_processes_opening_a_new_path_at_once_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    gate, told = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_open_together, args=(str(tmp_path / "new"), gate, told)) for _ in range(4)]
    for worker in workers:
        worker.start()
    ids = {told.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(ids) == 1
    with Workspace.open(tmp_path / "new") as workspace:
        assert workspace.id in ids
        assert workspace.catalog.next_number("opened") == 5


def _open_many(root: str) -> None:
    number = 0
    while True:
        number += 1
        Workspace.open(f"{root}/place{number}").close()


def test_a_kill_while_opening_leaves_a_place_that_opens(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_open_many, args=(str(tmp_path),))
    worker.start()
    patience = time.monotonic() + 60
    while not (tmp_path / "place2").exists() and time.monotonic() < patience:
        time.sleep(0.002)
    time.sleep(0.03)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(30)
    places = sorted(tmp_path.iterdir())
    assert places
    for place in places:
        with Workspace.open(place) as workspace:
            workspace.catalog.create("feature group", "after", {})


# -- packages --------------------------------------------------------------------------------------------------------


def test_our_packages_come_from_one_installation() -> None:
    check_packages()


@pytest.mark.parametrize("shadowed", PACKAGES)
def test_a_shadowing_path_is_named(tmp_path: Path, shadowed: str) -> None:
    from importlib.util import find_spec

    def find(name: str) -> ModuleSpec | None:
        if name != shadowed:
            return find_spec(name)
        spec = ModuleSpec(name, None, origin=str(tmp_path / name / "__init__.py"), is_package=True)
        spec.submodule_search_locations = [str(tmp_path / name)]
        return spec

    with pytest.raises(Conflict) as caught:
        check_packages(find)
    assert str(tmp_path / shadowed) in str(caught.value)
    with pytest.raises(Conflict, match="nowhere"):
        check_packages(lambda name: None if name == shadowed else find_spec(name))


def test_a_real_shadow_is_told_on_opening(tmp_path: Path) -> None:
    (tmp_path / "ingest").mkdir()
    (tmp_path / "ingest" / "__init__.py").write_text("")
    code = f"""
from foundation.errors import Conflict
from foundation.workspace import Workspace
try:
    Workspace.open({str(tmp_path / "place")!r})
except Conflict as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert f"package 'ingest' is found at {tmp_path / 'ingest'}" in run.stdout
