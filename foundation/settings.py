"""Settings: the only place that reads the environment or a configuration file.

A value is looked for as an argument, then as an environment variable (``TILTH_MAP_SIZE`` for ``map_size``), then in
``tilth.toml`` inside the workspace, and else is the default.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from foundation.errors import InvalidInput

__all__ = ["PREFIX", "TOML_NAME", "Settings", "named_workspace", "shown_url"]

PREFIX = "TILTH_"
"""Environment variables start with this."""
TOML_NAME = "tilth.toml"
"""The configuration file, inside the workspace."""

_GIB = 1 << 30
_SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_SIZES |= {"kib": 1 << 10, "mib": 1 << 20, "gib": _GIB, "tib": 1 << 40}
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MAX_MAP = 1 << 46
_SCHEMES = {
    "catalog": ("sqlite",),
    "files": ("file", "s3"),
    "online": ("embedded", "redis", "rediss", "redis+cluster", "rediss+cluster"),
}


@dataclass(frozen=True)
class Settings:
    """How a workspace is set up. Sizes are bytes; a URL without ``//`` is relative to the workspace.

    Attributes:
        catalog: where groups and datasets are described.
        files: root of the offline tables: ``file:folder``, ``file:///folder`` or ``s3://bucket/prefix``.
        online: the online store: ``embedded:``, ``redis://host:port/0`` or ``redis+cluster://host:port``
            (``rediss`` for TLS).
        engine: what carries out table work; ``local``.
        map_size: address space of the embedded store, an upper bound for its file; not disk until used.
        future_bound: event times further ahead of now than this are refused.
        flush_rows: the log is flushed to the offline store when it holds this many rows of a group.
        threads: threads for joins, loads and merges; 0 is one per core.
        memory: bytes a join, load or merge may use; larger work goes in chunks.
        time_travel: how far back ``as_of`` and old table versions stay readable; vacuum keeps what is younger.
        sources: where each value came from: ``argument``, ``environment TILTH_…``, a file's path, or ``default``.
    """

    catalog: str = "sqlite:catalog.sqlite"
    files: str = "file:files"
    online: str = "embedded:"
    engine: str = "local"
    map_size: int = 64 * _GIB
    future_bound: timedelta = timedelta(days=1)
    flush_rows: int = 100_000
    threads: int = 0
    memory: int = 2 * _GIB
    time_travel: timedelta = timedelta(days=7)
    sources: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def names(cls) -> list[str]:
        """Names of the settings a user may give."""
        return [each.name for each in fields(cls) if each.name != "sources"]

    @classmethod
    def load(
        cls,
        folder: Path | None = None,
        given: Mapping[str, object] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> Settings:
        """Collect the settings.

        Args:
            folder: the workspace, where ``tilth.toml`` may be.
            given: arguments; None counts as not given.
            environment: instead of the process's environment.

        Raises:
            InvalidInput: an unknown setting, or a value that does not fit, naming setting, value, source and fix.
        """
        surroundings = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        sources: dict[str, str] = {}

        def take(name: str, value: object, source: str) -> None:
            if name not in _READERS:
                raise _unknown(name, source)
            values[name] = _read(name, value, source)
            sources[name] = source

        if folder is not None:
            path = folder / TOML_NAME
            for name, value in _toml(path).items():
                take(name, value, str(path))
        for name in cls.names():
            variable = f"{PREFIX}{name.upper()}"
            if surroundings.get(variable):
                take(name, surroundings[variable], f"environment {variable}")
        for name, value in (given or {}).items():
            if value is not None:
                take(name, value, "argument")
        return cls(**values, sources={name: sources.get(name, "default") for name in cls.names()})


def named_workspace(environment: Mapping[str, str] | None = None) -> Path | None:
    """The workspace the environment variable ``TILTH_WORKSPACE`` names, for commands that are given none."""
    name = (os.environ if environment is None else environment).get(f"{PREFIX}WORKSPACE")
    return Path(name) if name else None


def default_workspace(*, named_only: bool = False) -> Path | None:
    """The workspace a command works in when none is named: ``TILTH_WORKSPACE``, else ``tilth-workspace`` here.

    Args:
        named_only: None instead of the last resort.
    """
    named = os.environ.get(f"{PREFIX}WORKSPACE")
    if named:
        return Path(named)
    return None if named_only else Path("tilth-workspace")


def shown_url(url: str) -> str:
    """A URL as it may be shown and stored: without a user name or password, and without a trailing slash."""
    # Passwords may hold "/" and "@" as they are; where only hosts follow, everything up to the last "@" goes.
    plain = re.sub(r"//.*@" if "redis" in url.partition(":")[0] else r"//[^/@]*@", "//", url)
    plain = re.sub(r"(?<=[?&])(username|password)=[^&]*&?", "", plain).rstrip("?&")
    return re.sub(r"(?<=[^/:])/+$", "", plain)


def _toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"{path} is not TOML: {error}", subject=str(path), hint="write lines like threads = 2"
        ) from error
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", subject=str(path)) from error


def _unknown(name: str, source: str) -> InvalidInput:
    near = get_close_matches(name, Settings.names(), n=1)
    return InvalidInput(
        f"setting {name!r} ({source}) does not exist",
        subject=f"setting {name}",
        hint=f"did you mean {near[0]!r}?" if near else f"settings: {', '.join(Settings.names())}",
    )


def _read(name: str, value: object, source: str) -> object:
    try:
        return _READERS[name](name, value)
    except ValueError as error:
        shown = repr(shown_url(value) if isinstance(value, str) else value)
        raise InvalidInput(
            f"setting {name} = {shown} ({source}) does not fit", subject=f"setting {name}", hint=str(error)
        ) from None


def _url(name: str, value: object) -> str:
    schemes = _SCHEMES[name]
    hint = f"use a URL: {', '.join(f'{scheme}:…' for scheme in schemes)}"
    if not isinstance(value, str) or value.partition(":")[0] not in schemes or ":" not in value:
        raise ValueError(hint)
    scheme, _, rest = value.partition(":")
    if scheme == "embedded":
        if rest:
            raise ValueError("use embedded: alone; its files live in the workspace")
    elif scheme not in ("file", "sqlite"):
        if not re.match(r"//[^/]", rest):
            raise ValueError(f"name a place, as in {scheme}://{'bucket/prefix' if scheme == 's3' else 'host:port'}")
    elif not _is_local_place(rest):
        raise ValueError(f"use {scheme}:name inside the workspace, or {scheme}:///folder/name")
    return value


def _is_local_place(rest: str) -> bool:
    if rest.startswith("/"):
        return re.fullmatch(r"////?[^/].*", rest) is not None
    return rest not in ("", ".", "..") and ".." not in rest.split("/")


def _engine(name: str, value: object) -> str:
    if value != "local":
        raise ValueError("use local")
    return "local"


def _whole(value: object, units: Mapping[str, int]) -> int | None:
    """A whole number, or text of a number and a unit; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if isinstance(value, int):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    if match is None or match[2].lower() not in units:
        return None
    exact = float(match[1]) * units[match[2].lower()]
    return int(exact) if exact == int(exact) else None


def _number(low: int, high: int, units: Mapping[str, int], example: str) -> Callable[[str, object], int]:
    def read(name: str, value: object) -> int:
        number = _whole(value, units)
        if number is None or not low <= number <= high:
            raise ValueError(f"use a whole number from {low:,} to {high:,}{example}".replace(",", "_"))
        return number

    return read


def _size(low: int, high: int) -> Callable[[str, object], int]:
    return _number(low, high, _SIZES, ' bytes, or text such as "512 MiB"')


def _span(low: timedelta, high: timedelta) -> Callable[[str, object], timedelta]:
    def read(name: str, value: object) -> timedelta:
        span = value
        if isinstance(value, str):
            match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhdw])\s*", value)
            span = timedelta(seconds=min(float(match[1]) * _SPANS[match[2]], 1e12)) if match else None
        if not isinstance(span, timedelta) or not low <= span <= high:
            raise ValueError(f'use a timedelta, or text such as "90m", "12h" or "7d", from {low} to {high}')
        return span

    return read


_CENTURY = timedelta(days=36525)
_READERS: dict[str, Callable[[str, object], object]] = {
    "catalog": _url,
    "files": _url,
    "online": _url,
    "engine": _engine,
    "map_size": _size(1 << 20, _MAX_MAP),
    "future_bound": _span(timedelta(0), 80 * _CENTURY),
    "flush_rows": _number(1, 100_000_000, {"": 1}, ""),
    "threads": _number(0, 4096, {"": 1}, ""),
    "memory": _size(1 << 20, 1 << 46),
    "time_travel": _span(timedelta(0), 10 * _CENTURY),
}
