"""Seam Files: bytes below a root URL, with the file system objects Arrow and Delta want."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Protocol

import pyarrow.fs as pafs

from foundation.errors import InvalidInput

__all__ = ["Files", "open_files"]

_BACKENDS = {"file": "foundation.files.local", "s3": "foundation.files.s3"}


class Files(Protocol):
    """A tree of files. Paths are relative to the root, with ``/`` between parts."""

    url: str
    """The root, e.g. ``file:///data/place`` or ``s3://bucket/place``."""
    filesystem: pafs.FileSystem
    """Arrow's view, rooted like this one: open ``filesystem.open_input_file(path)`` with relative paths."""
    storage_options: Mapping[str, str]
    """What delta-rs and polars need besides the URL."""

    def locate(self, path: str) -> str:
        """Full URL (or plain local path) of a relative path, for delta-rs, polars and DuckDB."""

    def sync(self, paths: Iterable[str]) -> None:
        """Make files and the directories that name them durable; a no-op where writes already are."""

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""

    def delete(self, path: str) -> None:
        """Remove a file or a whole folder; nothing happens when it is not there."""


def open_files(url: str) -> Files:
    """Open the backend of a URL's scheme (``file``, ``s3``).

    Raises:
        InvalidInput: an unknown scheme.
    """
    scheme = url.partition("://")[0]
    if scheme not in _BACKENDS:
        raise InvalidInput(f"files URL {url!r} has an unknown scheme", hint="use file:///folder or s3://bucket/prefix")
    files: Files = import_module(_BACKENDS[scheme]).open_files(url)
    return files
