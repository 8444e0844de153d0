"""Files: every file is a part, so that what was loaded is not read again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from foundation.engines import files_of, scan
from foundation.errors import InvalidInput
from ingest.sources import Part

__all__ = ["FileSource", "open_source"]


@dataclass(frozen=True)
class FileSource:
    """Paths, folders and globs, of one or several formats.

    Attributes:
        paths: in order; files of a folder or glob are sorted by path.
    """

    paths: tuple[str, ...]

    @classmethod
    def of(cls, *paths: str | os.PathLike[str]) -> FileSource:
        """From paths of any kind."""
        return cls(tuple(os.fspath(path) for path in paths))

    def parts(self) -> Iterator[Part]:
        """One part a file (or Delta table); nothing is opened before it is asked for."""
        for path in files_of(self.paths):
            yield Part(str(path), partial(scan, path))

    def to_document(self) -> dict[str, Any]:
        """``{"files": [...]}``."""
        return {"files": list(self.paths)}


def open_source(document: Mapping[str, Any], folder: Path) -> FileSource:
    """Read ``{"files": path or list of paths}``.

    Raises:
        InvalidInput: not of that form.
    """
    given = document["files"]
    listed = [given] if isinstance(given, str) else given
    if (
        set(document) != {"files"}
        or not isinstance(listed, list)
        or not listed
        or not all(isinstance(each, str) for each in listed)
    ):
        raise InvalidInput(
            f"the source {dict(document)!r} is not a list of files", subject="source", hint='{"files": "data/*.csv"}'
        )
    return FileSource(tuple(str(folder / each) for each in listed))
