"""Files in a local folder. Durable means fsynced: data, then the directories that name it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse

import pyarrow.fs as pafs

__all__ = ["LocalFiles", "open_files", "sync_path"]


class LocalFiles:
    """See ``foundation.files.Files``."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root.absolute()
        self.url = self.root.as_uri()
        self.filesystem: pafs.FileSystem = pafs.SubTreeFileSystem(str(self.root), pafs.LocalFileSystem())
        self.storage_options: Mapping[str, str] = {}

    def locate(self, path: str) -> str:
        """The plain absolute path."""
        return str(self.root / path)

    def sync(self, paths: Iterable[str]) -> None:
        """Fsync each file, then every directory that names one, once, up to the root."""
        folders: set[Path] = set()
        for path in paths:
            full = self.root / path
            sync_path(full)
            parent = full.parent
            while parent != self.root.parent and parent not in folders:
                folders.add(parent)
                parent = parent.parent
        for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
            sync_path(folder)

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        return (self.root / path).exists()

    def delete(self, path: str) -> None:
        """Remove a file or a whole folder."""
        full = self.root / path
        if full.is_dir():
            shutil.rmtree(full, ignore_errors=True)
        else:
            full.unlink(missing_ok=True)


def sync_path(path: Path) -> None:
    """Fsync one file or directory."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_files(url: str) -> LocalFiles:
    """Open a ``file:///folder`` URL, creating the folder."""
    return LocalFiles(Path(unquote(urlparse(url).path)))
