"""Files in a local folder. Durable means fsynced: data, then the directories that name it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlparse

import pyarrow.fs as pafs

__all__ = ["LocalFiles", "open_files", "sync_path"]


class LocalFiles:
    """See ``foundation.files.Files``."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        made = [folder for folder in (self.root, *self.root.parents) if not folder.exists()]
        self.root.mkdir(parents=True, exist_ok=True)
        for folder in made:
            sync_path(folder.parent)
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
        """Remove a file or a whole folder, durably; files that others remove meanwhile are no error."""
        full = self.root / path
        while full.is_dir():
            with suppress(FileNotFoundError):
                shutil.rmtree(full)
        full.unlink(missing_ok=True)
        if full.parent.is_dir():
            sync_path(full.parent)


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
