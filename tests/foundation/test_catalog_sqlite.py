"""What only the SQLite catalog promises: durable commits, its own errors of the file, a fork told apart."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

import pytest

from foundation.catalog import default_actor
from foundation.catalog.sqlite import SqliteCatalog, open_catalog
from foundation.errors import Conflict, LimitExceeded, Unavailable


@pytest.fixture
def catalog(tmp_path: Path):
    opened = SqliteCatalog(tmp_path / "deep" / "catalog.sqlite")
    yield opened
    opened.close()


def test_commits_are_synced_and_readers_do_not_wait(catalog: SqliteCatalog) -> None:
    def ask(pragma: str) -> object:
        return catalog._connection.execute(f"PRAGMA {pragma}").fetchone()[0]

    assert ask("synchronous") == 2
    assert ask("journal_mode") == "wal"
    assert ask("busy_timeout") == 30_000


def test_a_path_may_hold_anything_a_url_can_say(tmp_path: Path) -> None:
    place = tmp_path / "a b%20ü?#" / "catalog.sqlite"
    opened = open_catalog(place.as_uri().replace("file:", "sqlite:", 1))
    opened.create("k", "n", {})
    opened.close()
    assert place.exists()


def test_a_full_disk_is_a_limit_and_nothing_is_half_written(catalog: SqliteCatalog) -> None:
    catalog.create("k", "kept", {"x": 1})
    pages = catalog._connection.execute("PRAGMA page_count").fetchone()[0]
    catalog._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LimitExceeded, match="full"):
        catalog.create("k", "large", {"x": "y" * 200_000})
    catalog._connection.execute("PRAGMA max_page_count = 100000")
    assert [entry.name for entry in catalog.find("k").entries] == ["kept"]
    assert catalog.generation() == 1
    catalog.create("k", "large", {"x": "y" * 200_000})


def test_a_lock_that_is_never_given_back_is_unavailable(catalog: SqliteCatalog) -> None:
    catalog._connection.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(catalog.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        catalog.create("k", "n", {})
    assert catalog.generation() == 0, "reading goes on"
    other.execute("ROLLBACK")
    other.close()
    assert catalog.create("k", "n", {}).version == 1


def test_a_forked_process_is_told_to_open_its_own(catalog: SqliteCatalog) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            catalog.generation()
            os.write(write, b"answered")
        except Conflict as error:
            os.write(write, error.message.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        assert told.read() == b"the catalog was open when this process was forked"
    os.waitpid(child, 0)
    assert catalog.generation() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="user numbers are POSIX")
def test_somebody_is_always_the_actor(monkeypatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("no such user")))
    assert default_actor() == f"uid {os.getuid()}"
    monkeypatch.setenv("LOGNAME", "ann")
    assert default_actor() == "ann"
