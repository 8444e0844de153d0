"""Workspace: an opened place. A directory with its settings, catalog, files, clock and the one who works there."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from foundation.catalog import Catalog, default_actor, open_catalog
from foundation.clock import Clock, moment_of, system_clock
from foundation.errors import AccessDenied, Conflict, InvalidInput, LimitExceeded, NotSupported, PlatformError
from foundation.files import Files, open_files
from foundation.files.local import sync_path
from foundation.settings import TOML_NAME, Settings, shown_url

__all__ = ["PACKAGES", "WORKSPACE_NAME", "Workspace", "check_packages"]

PACKAGES = ("foundation", "featurestore", "ingest", "service")
"""The packages one installation consists of."""
WORKSPACE_NAME = "workspace.json"
"""The file that makes a directory a workspace."""
_FORMAT = 1
_SEAMS = ("catalog", "files", "online")


@dataclass(frozen=True)
class _Deed:
    """What ``workspace.json`` says.

    Attributes:
        id: 16 hexadecimal digits, drawn when the workspace was made; keeps workspaces apart in shared stores.
        created_at: instant (microseconds, UTC).
        seams: setting name to the URL the workspace was made with, without credentials.
    """

    id: str
    created_at: int
    seams: Mapping[str, str]


class Workspace:
    """An opened place; close it, or use it as a context manager.

    The same directory may be open in several processes at once.

    Attributes:
        root: the directory, absolute.
        id: 16 hexadecimal digits no other workspace has; a prefix for keys in stores shared with others.
        created_at: instant it was made (microseconds, UTC).
        settings: the settings in force; seam URLs as given.
        catalog: the opened catalog.
        files: the opened files root.
        clock: gives every instant.
        actor: who works here, for the audit trail.
    """

    def __init__(self, root: Path, deed: _Deed, settings: Settings, *, clock: Clock, actor: str) -> None:
        self.root = root
        self.id = deed.id
        self.created_at = deed.created_at
        self.settings = settings
        self.clock = clock
        self.actor = actor
        self.catalog: Catalog = open_catalog(_located(root, settings.catalog), clock=clock)
        try:
            with _place_errors(root):
                self.files: Files = open_files(_located(root, settings.files))
        except BaseException:
            self.catalog.close()
            raise

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, clock: Clock | None = None, actor: str | None = None, **settings: object
    ) -> Workspace:
        """Open a directory, making it a workspace when it is new or empty (``tilth.toml`` may be there already).

        A workspace keeps the catalog, files and online URLs it was made with; leave them out to use those.

        Args:
            path: the directory.
            clock: gives instants; the system's without.
            actor: who works here; the operating system's user without.
            **settings: see ``foundation.settings.Settings``; None is "not given".

        Raises:
            InvalidInput: a bad setting, a path that is no directory, a directory of something else, or an unreadable
                ``workspace.json``.
            AccessDenied: the directory cannot be made or written.
            Conflict: other catalog, files or online URLs than it was made with, or packages shadowed by others.
            NotSupported: a newer version of tilth made it.
            LimitExceeded: the disk is full.
        """
        check_packages()
        root = _root_of(path)
        clock = clock or system_clock
        wanted = Settings.load(root, settings)
        with _place_errors(root):
            deed = _read_deed(root) or _found(root, wanted, clock)
            if not os.access(root, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "not writable")
        return cls(root, deed, _agreed(root, deed, wanted), clock=clock, actor=actor or default_actor())

    def close(self) -> None:
        """Release the catalog; closing twice does no harm."""
        self.catalog.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check_packages(find: Callable[[str], Any] = find_spec) -> None:
    """Check that our packages come from one installation; their names are plain words another project may use too.

    Raises:
        Conflict: naming the package and the path that shadows it.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        spec = find(name)
        places = [Path(place).resolve() for place in (spec.submodule_search_locations or ())] if spec else []
        if places and places[0] == home / name:
            continue
        found = spec.origin if spec and not places else (str(places[0]) if places else "nowhere")
        raise Conflict(
            f"package {name!r} is found at {found}, not in {home}",
            subject=f"package {name!r}",
            hint="rename what shadows it, start Python with -P, or install tilth in an environment of its own",
        )


def _root_of(path: object) -> Path:
    if not isinstance(path, str | os.PathLike) or not os.fspath(path) or "\0" in str(path):
        raise InvalidInput(f"workspace path {path!r} is not a path", subject="path", hint="name a directory")
    return Path(path).expanduser().absolute()


def _located(root: Path, url: str) -> str:
    """A seam's URL with places relative to the workspace made absolute."""
    scheme, _, rest = url.partition(":")
    if rest.startswith("/"):
        return f"{scheme}:///{rest.lstrip('/')}" if rest.startswith("///") else url
    return f"{scheme}://{(root / rest).as_uri().removeprefix('file://')}"


def _agreed(root: Path, deed: _Deed, wanted: Settings) -> Settings:
    """The settings in force: recorded URLs where none was given, and a Conflict where another one was."""
    recorded: dict[str, Any] = {}
    for name, url in deed.seams.items():
        source = wanted.sources.get(name, "default")
        asked = shown_url(str(getattr(wanted, name)))
        if source == "default":
            recorded[name] = url
        elif _located(root, asked) != _located(root, url):
            raise Conflict(
                f"workspace {root} was made with {name} {url}, not {asked} ({source})",
                subject=f"setting {name}",
                hint=f"leave {name} out, or open another directory with {asked}",
            )
    return replace(wanted, **recorded)


def _read_deed(root: Path) -> _Deed | None:
    path = root / WORKSPACE_NAME
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document["format"], int):
            raise ValueError("format is not a number")
        if document["format"] > _FORMAT:
            raise NotSupported(
                f"workspace {root} has format {document['format']}, this build reads up to {_FORMAT}",
                subject=str(root),
                hint="open it with the version of tilth that made it, or a newer one",
            )
        return _Deed(str(document["id"]), int(document["created_at"]), {name: str(document[name]) for name in _SEAMS})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{path} cannot be understood: {type(error).__name__}: {error}",
            subject=str(path),
            hint="put the file back from a copy",
        ) from error


def _found(root: Path, settings: Settings, clock: Clock) -> _Deed:
    """Make ``root`` a workspace, or read it if another process just did.

    The file appears whole or not at all (written beside, fsynced, renamed), and the directory's lock lets one process
    at a time decide.
    """
    if root.exists() and not root.is_dir():
        raise InvalidInput(f"{root} is a file", subject=str(root), hint="a workspace is a directory; name another path")
    new = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root):
        held = _read_deed(root)
        if held is not None:
            return held
        draft = root / f".{WORKSPACE_NAME}.draft"
        foreign = sorted({entry.name for entry in root.iterdir()} - {TOML_NAME, draft.name})
        if foreign:
            raise InvalidInput(
                f"{root} is not empty and not a workspace: it holds {', '.join(foreign[:3])}",
                subject=str(root),
                hint="name a new or empty directory",
            )
        now = clock.now()
        deed = _Deed(secrets.token_hex(8), now, {name: shown_url(str(getattr(settings, name))) for name in _SEAMS})
        document = {
            "format": _FORMAT,
            "id": deed.id,
            "created_at": now,
            "created": moment_of(now).isoformat(),
            **deed.seams,
        }
        draft.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        sync_path(draft)
        os.replace(draft, root / WORKSPACE_NAME)
        for folder in (root, *(folder.parent for folder in new)):
            sync_path(folder)
    return deed


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _place_errors(root: Path) -> Iterator[None]:
    """The operating system's objections to a place, as ours."""
    try:
        yield
    except OSError as error:
        raise _translation(root, error) from error


def _translation(root: Path, error: OSError) -> PlatformError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LimitExceeded(f"the disk of {root} is full", subject=str(root), hint="free space; nothing was written")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDenied(
            f"workspace {root} cannot be written: {error.strerror}",
            subject=str(root),
            hint="check the owner and mode of the directory, or name another one",
        )
    return InvalidInput(
        f"workspace {root} cannot be opened: {error.strerror}", subject=str(root), hint="name a directory"
    )
