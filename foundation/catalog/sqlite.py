"""The catalog as one SQLite file: write-ahead log, every commit fsynced, a change and its audit row in one commit."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from foundation.catalog import AuditEntry, Entry, Page, default_actor
from foundation.clock import Clock, system_clock
from foundation.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    InvalidInput,
    LimitExceeded,
    NotFound,
    PlatformError,
    Unavailable,
)
from foundation.files.local import sync_path

__all__ = ["SqliteCatalog", "open_catalog"]

_FORMAT = 1
_BUSY_SECONDS = 30.0
_MAX_NAME = 512
_MAX_PAGE = 1000
_COLUMNS = "kind, name, version, document, created_at, updated_at"
_SORTS = ("name", "created_at", "updated_at")
_OWN_FIELDS = ("created_at", "updated_at", "version")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SEARCHED = frozenset({"name", "description", "tags", "parameters"})
_TABLES = """
CREATE TABLE IF NOT EXISTS numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
  kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, document TEXT NOT NULL,
  created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
  title TEXT NOT NULL, words TEXT NOT NULL, PRIMARY KEY (kind, name));
CREATE TABLE IF NOT EXISTS audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
  kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, detail TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS audit_of ON audit (kind, name, version);
"""
_GENERATION = "generation"
_FORMAT_KEY = "format"


class SqliteCatalog:
    """See ``foundation.catalog.Catalog``. One connection behind a lock: changes are rare, reads take microseconds."""

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self.path = path
        self.on_change: Callable[[int], None] | None = None
        self._clock = clock or system_clock
        self._lock = threading.RLock()
        self._pid = os.getpid()
        with _placed(path), _translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            is_new = not path.exists()
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
            if is_new:
                sync_path(path.parent)

    def _prepare(self) -> None:
        self._enter_wal()
        for pragma in ("synchronous=FULL", "foreign_keys=ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        known = self._connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'numbers'").fetchone()[0]
        if not known:
            self._connection.execute("BEGIN IMMEDIATE")
            for statement in _TABLES.split(";\n"):
                self._connection.execute(statement)
            self._connection.execute("INSERT OR IGNORE INTO numbers VALUES (?, ?)", (_FORMAT_KEY, _FORMAT))
            self._connection.execute("INSERT OR IGNORE INTO numbers VALUES (?, 0)", (_GENERATION,))
            self._connection.execute("COMMIT")
        found = self._number(_FORMAT_KEY)
        if found != _FORMAT:
            raise Conflict(
                f"catalog {self.path} has format {found}, this build reads format {_FORMAT}",
                subject="catalog",
                hint="open it with the version that wrote it, or a newer one",
            )

    def _enter_wal(self) -> None:
        # Two processes opening a new file at once can find it locked here whatever the busy timeout says.
        patience = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > patience:
                    raise
                time.sleep(0.01)

    # -- changes -----------------------------------------------------------------------------------------------------

    def create(self, kind: str, name: str, document: Mapping[str, Any], *, actor: str = "", note: str = "") -> Entry:
        """See ``Catalog.create``."""
        _check_text("kind", kind)
        _check_text("name", name)
        text, words = _encoded(kind, name, document)
        with self._change() as connection:
            if connection.execute("SELECT 1 FROM entries WHERE kind = ? AND name = ?", (kind, name)).fetchone():
                subject = f"{kind} {name!r}"
                raise AlreadyExists(
                    f"{subject} exists already", subject=subject, hint="choose another name, or update that one"
                )
            # Going on after a deleted namesake keeps a version anyone still holds from matching the new document.
            last = connection.execute(
                "SELECT max(version) FROM audit WHERE kind = ? AND name = ?", (kind, name)
            ).fetchone()
            version = (last[0] or 0) + 1
            now = self._clock.now()
            connection.execute(
                f"INSERT INTO entries ({_COLUMNS}, title, words) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (kind, name, version, text, now, now, name.casefold(), words),
            )
            _note(connection, AuditEntry(now, actor or default_actor(), "create", kind, name, version, note))
        return Entry(kind, name, version, json.loads(text), now, now)

    def update(
        self,
        kind: str,
        name: str,
        document: Mapping[str, Any],
        *,
        expected_version: int,
        actor: str = "",
        action: str = "update",
        note: str = "",
    ) -> Entry:
        """See ``Catalog.update``."""
        text, words = _encoded(kind, name, document)
        with self._change() as connection:
            held = self._held(connection, kind, name, expected_version)
            now = max(self._clock.now(), held.updated_at + 1)
            connection.execute(
                "UPDATE entries SET version = ?, document = ?, updated_at = ?, words = ? WHERE kind = ? AND name = ?",
                (held.version + 1, text, now, words, kind, name),
            )
            _note(connection, AuditEntry(now, actor or default_actor(), action, kind, name, held.version + 1, note))
        return Entry(kind, name, held.version + 1, json.loads(text), held.created_at, now)

    def delete(
        self, kind: str, name: str, *, expected_version: int | None = None, actor: str = "", note: str = ""
    ) -> None:
        """See ``Catalog.delete``."""
        with self._change() as connection:
            held = self._held(connection, kind, name, expected_version)
            connection.execute("DELETE FROM entries WHERE kind = ? AND name = ?", (kind, name))
            now = self._clock.now()
            _note(connection, AuditEntry(now, actor or default_actor(), "delete", kind, name, held.version, note))

    def next_number(self, counter: str) -> int:
        """See ``Catalog.next_number``."""
        with self._transaction() as connection:
            return _count_up(connection, f"counter:{counter}")

    def _held(self, connection: sqlite3.Connection, kind: str, name: str, expected: int | None) -> Entry:
        held = self._read(connection, kind, name)
        if expected is not None and held.version != expected:
            subject = f"{kind} {name!r}"
            raise Conflict(
                f"{subject} is at version {held.version}, not {expected}: someone changed it meanwhile",
                subject=subject,
                hint="read it again and repeat the change",
            )
        return held

    # -- questions ---------------------------------------------------------------------------------------------------

    def get(self, kind: str, name: str) -> Entry:
        """See ``Catalog.get``."""
        with self._reading() as connection:
            return self._read(connection, kind, name)

    def _read(self, connection: sqlite3.Connection, kind: str, name: str) -> Entry:
        row = connection.execute(f"SELECT {_COLUMNS} FROM entries WHERE kind = ? AND name = ?", (kind, name)).fetchone()
        if row is None:
            known = connection.execute("SELECT name FROM entries WHERE kind = ? LIMIT 10000", (kind,))
            raise NotFound.of(kind, name, [found for (found,) in known])
        return _entry(row)

    def find(
        self,
        kind: str,
        *,
        name_contains: str = "",
        filters: Mapping[str, object] | None = None,
        sort: str = "name",
        descending: bool = False,
        limit: int = 100,
        token: str | None = None,
    ) -> Page:
        """See ``Catalog.find``."""
        if sort not in _SORTS:
            raise InvalidInput(f"sort {sort!r} is unknown", subject="sort", hint=f"use one of {', '.join(_SORTS)}")
        if not 1 <= limit <= _MAX_PAGE:
            raise InvalidInput(f"limit {limit} is out of range", subject="limit", hint=f"use 1 to {_MAX_PAGE}")
        clauses: list[tuple[str, list[object]]] = [("kind = ?", [kind])]
        if name_contains:
            clauses.append(("instr(title, ?)", [name_contains.casefold()]))
        clauses += [_clause(path, wanted) for path, wanted in (filters or {}).items()]
        question = _fingerprint([clauses, sort, descending])
        if token is not None:
            place = _place(token, question)
            clauses.append((f"({sort}, name) {'<' if descending else '>'} (?, ?)", place))
        order = "DESC" if descending else "ASC"
        sql = (
            f"SELECT {_COLUMNS} FROM entries WHERE {' AND '.join(text for text, _ in clauses)} "
            f"ORDER BY {sort} {order}, name {order} LIMIT ?"
        )
        with self._reading() as connection:
            rows = connection.execute(sql, [*(v for _, values in clauses for v in values), limit + 1]).fetchall()
        entries = tuple(_entry(row) for row in rows[:limit])
        if len(rows) <= limit:
            return Page(entries)
        last = entries[-1]
        return Page(entries, _token(question, [getattr(last, sort), last.name]))

    def search(self, text: str, kinds: Sequence[str] = (), *, limit: int = 50) -> list[Entry]:
        """See ``Catalog.search``."""
        words = text.casefold().split()
        if not words:
            return []
        whole = text.casefold().strip()
        hit = "(CASE WHEN instr(title, ?) THEN 2 WHEN instr(words, ?) THEN 1 ELSE 0 END)"
        score = f"(title = ?) * 4 + (instr(title, ?) = 1) + {' + '.join([hit] * len(words))}"
        found = " AND ".join(["(instr(title, ?) OR instr(words, ?))"] * len(words))
        among = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        doubled = [word for word in words for _ in range(2)]
        sql = f"SELECT {_COLUMNS} FROM entries WHERE {found}{among} ORDER BY {score} DESC, name, kind LIMIT ?"
        with self._reading() as connection:
            rows = connection.execute(sql, [*doubled, *kinds, whole, whole, *doubled, limit]).fetchall()
        return [_entry(row) for row in rows]

    def audit(
        self, kind: str | None = None, name: str | None = None, *, since: int | None = None, limit: int = 100
    ) -> list[AuditEntry]:
        """See ``Catalog.audit``."""
        clauses = [("kind = ?", kind), ("name = ?", name), ("at >= ?", since)]
        asked = [(text, value) for text, value in clauses if value is not None]
        where = f"WHERE {' AND '.join(text for text, _ in asked)} " if asked else ""
        sql = f"SELECT at, actor, action, kind, name, version, detail FROM audit {where}ORDER BY id DESC LIMIT ?"
        with self._reading() as connection:
            rows = connection.execute(sql, [*(value for _, value in asked), limit]).fetchall()
        return [AuditEntry(*row) for row in rows]

    def generation(self) -> int:
        """See ``Catalog.generation``."""
        with self._reading():
            return self._number(_GENERATION)

    def _number(self, name: str) -> int:
        row = self._connection.execute("SELECT value FROM numbers WHERE name = ?", (name,)).fetchone()
        return int(row[0])

    def close(self) -> None:
        """See ``Catalog.close``."""
        with self._lock:
            if self._pid == os.getpid():
                self._connection.close()

    # -- transactions ------------------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if self._pid != os.getpid():
            raise Conflict(
                "the catalog was open when this process was forked",
                subject=str(self.path),
                hint="open it after the fork, or start workers with the spawn method",
            )
        with self._lock, _translated(self.path):
            yield self._connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._transaction() as connection:
            yield connection
            generation = _count_up(connection, _GENERATION)
            if self.on_change is not None:
                self.on_change(generation)


def _count_up(connection: sqlite3.Connection, name: str) -> int:
    sql = "INSERT INTO numbers VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value"
    return int(connection.execute(sql, (name,)).fetchall()[0][0])


def _note(connection: sqlite3.Connection, entry: AuditEntry) -> None:
    connection.execute(
        "INSERT INTO audit (at, actor, action, kind, name, version, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (entry.at, entry.actor, entry.action, entry.kind, entry.name, entry.version, entry.detail),
    )


def _entry(row: Sequence[Any]) -> Entry:
    kind, name, version, document, created_at, updated_at = row
    return Entry(kind, name, version, json.loads(document), created_at, updated_at)


def _check_text(field: str, value: object) -> None:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_NAME or "\0" in value:
        shown = repr(value)[:80]
        raise InvalidInput(
            f"catalog {field} {shown} is not allowed", subject=field, hint=f"use 1 to {_MAX_NAME} characters of text"
        )


def _encoded(kind: str, name: str, document: Mapping[str, Any]) -> tuple[str, str]:
    """The document as JSON text, and its searchable words."""
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        subject = f"{kind} {name!r}"
        raise InvalidInput(
            f"the document of {subject} is not plain JSON: {error}",
            subject=subject,
            hint="use text, finite numbers, booleans, null, lists and mappings with text keys",
        ) from error
    return text, "\n".join(_words(json.loads(text))).casefold()


def _words(value: object, *, counts: bool = False) -> Iterator[str]:
    """Text found under the searched keys, at any depth; below them keys count too."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if counts:
                yield key
            yield from _words(inner, counts=counts or key in _SEARCHED)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner, counts=counts)
    elif counts and value is not None:
        yield str(value)


def _clause(path: str, wanted: object) -> tuple[str, list[object]]:
    """One filter as SQL and its parameters. Keys travel as parameters, so any text is safe in them."""
    given = wanted if isinstance(wanted, tuple) else (wanted, wanted)
    if len(given) != 2 or not all(_is_comparable(value) for value in given):
        raise InvalidInput(
            f"filter {path!r} cannot compare with {wanted!r}",
            subject=f"filter {path!r}",
            hint="use text, a number, a boolean or None, or a pair (low, high)",
        )
    if isinstance(wanted, tuple):
        low, high = wanted
        bounds = [(">=", low), ("<=", high)]
        asked = [(sign, bound) for sign, bound in bounds if bound is not None]
        test = " AND ".join(f"{{0}} {sign} ?" for sign, _ in asked) or "TRUE"
        values = [bound for _, bound in asked]
    else:
        test, values = "{0} IS ?", [wanted]
    if path in _OWN_FIELDS:
        return test.format(path), values
    top, dot, below = path.partition(".")
    if not _FIELD.fullmatch(top):
        raise InvalidInput(
            f"filter {path!r} names no field",
            subject=f"filter {path!r}",
            hint="use field or field.key, as in tags.team",
        )
    table = f"json_each(document, '$.{top}')" if dot else "json_each(document)"
    return f"EXISTS (SELECT 1 FROM {table} WHERE key = ? AND {test.format('value')})", [below if dot else top, *values]


def _is_comparable(value: object) -> bool:
    if isinstance(value, int):
        return -(1 << 63) <= value < 1 << 63
    return value is None or isinstance(value, str | float)


def _fingerprint(question: object) -> str:
    return hashlib.sha256(json.dumps(question, default=str).encode()).hexdigest()[:16]


def _token(question: str, place: list[object]) -> str:
    return base64.urlsafe_b64encode(json.dumps([question, *place]).encode()).decode()


def _place(token: str, question: str) -> list[object]:
    try:
        read = json.loads(base64.urlsafe_b64decode(token.encode()))
    except ValueError:
        read = None
    asked, *place = read if isinstance(read, list) and read else [""]
    if asked != question or len(place) != 2:
        raise InvalidInput(
            "the page token does not belong to this question",
            subject="token",
            hint="repeat the listing with the same filters and sort, or start without a token",
        )
    return place


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translation(path, error) from error


@contextmanager
def _placed(path: Path) -> Iterator[None]:
    """The operating system's objections to a place."""
    try:
        yield
    except PermissionError as error:
        raise AccessDenied(
            f"catalog {path} cannot be written", subject=str(path), hint="check the folder's owner and mode"
        ) from error
    except OSError as error:
        raise InvalidInput(
            f"catalog {path} cannot be made: {error.strerror}", subject=str(path), hint="name a file in a folder"
        ) from error


def _translation(path: Path, error: sqlite3.Error) -> PlatformError:
    said, subject = str(error), str(path)
    if "disk is full" in said:
        return LimitExceeded(f"the disk of {path} is full", subject=subject, hint="free space; nothing was written")
    if "readonly" in said or "unable to open" in said:
        return AccessDenied(
            f"catalog {path} cannot be written: {said}", subject=subject, hint="check the folder's owner and mode"
        )
    if isinstance(error, sqlite3.OperationalError):
        return Unavailable(f"catalog {path}: {said}", subject=subject, hint="another process holds it; try again")
    if isinstance(error, sqlite3.ProgrammingError):
        return Conflict(f"catalog {path}: {said}", subject=subject, hint="it was closed; open it again")
    return InvalidInput(
        f"catalog {path} is not a readable SQLite file: {said}",
        subject=subject,
        hint="put the file back from a copy, or name another place",
    )


def open_catalog(url: str, *, clock: Clock | None = None) -> SqliteCatalog:
    """Open ``sqlite:///folder/file``, making the file when it is not there."""
    place = unquote(urlparse(url).path)
    if not place.startswith("/") or place.endswith("/"):
        raise InvalidInput(
            f"catalog URL {url!r} names no file", subject="setting catalog", hint="use sqlite:///folder/file"
        )
    return SqliteCatalog(Path(place), clock=clock)
