"""Paths, folders and globs, and the files they stand for."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from foundation import delta
from foundation.engines.formats import EXTENSIONS, extension_of
from foundation.errors import NotFound

__all__ = ["expand", "is_delta"]


def is_delta(path: Path) -> bool:
    """Whether a folder is a Delta table."""
    return (path / delta.LOG).is_dir()


def expand(source: str | os.PathLike[str]) -> list[Path]:
    """The files of a path, a folder (every known format below it) or a glob, sorted by path.

    Raises:
        NotFound: there is none.
    """
    text = os.fspath(source)
    text = text.removeprefix("file://") if text.startswith("file:///") else text
    path = Path(text)
    if path.is_file():
        return [path]
    if path.is_dir():
        below = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
        found = sorted(
            each for each in below if extension_of(each) in EXTENSIONS and not each.name.startswith((".", "_"))
        )
    else:
        found = sorted(Path(name) for name in glob.glob(text, recursive=True) if os.path.isfile(name))
    if not found:
        what = f"folder {text!r} has no file to read" if path.is_dir() else f"file {text!r} does not exist"
        raise NotFound(what, subject=f"file {text!r}", hint=f"formats: {', '.join(sorted(EXTENSIONS))}")
    return found
