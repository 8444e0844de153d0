"""The only importer of LMDB: one environment per path and process, with the databases named once."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lmdb

from foundation.errors import Conflict, LimitExceeded, Unavailable

__all__ = ["KEY_BYTES", "Environment", "Transaction", "Usage"]

KEY_BYTES = 511
"""Longest LMDB key."""
_MAX_READERS = 1024
_LITTLE = 1 << 20

Transaction = Any
"""An ``lmdb.Transaction``."""


@dataclass(frozen=True)
class Usage:
    """How full an environment is.

    Attributes:
        used: bytes of pages in use, free ones between them included.
        map_size: most bytes it can hold.
        readers: reader slots taken, by every process that has it open.
        stale: slots of dead processes this look cleared.
    """

    used: int
    map_size: int
    readers: int
    stale: int


class Environment:
    """An LMDB environment shared by everyone in this process who opens the same folder.

    LMDB serialises writers across processes and threads, and a commit is on disk when it returns. The map size is
    address space, not disk: the file grows as it is used.
    """

    _shared: dict[str, tuple[Environment, int]] = {}  # noqa: RUF012
    _lock = threading.Lock()

    def __init__(self, folder: Path, *, databases: tuple[str, ...], map_size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._pid = os.getpid()
        with _translated(folder):
            self._env = lmdb.open(
                str(folder),
                map_size=map_size,
                max_dbs=len(databases),
                max_readers=_MAX_READERS,
                max_spare_txns=8,
                subdir=True,
            )
            self._env.reader_check()
            self.databases = {name: self._env.open_db(name.encode()) for name in databases}
        self.begin = self._env.begin

    @classmethod
    def share(cls, folder: Path, *, databases: tuple[str, ...], map_size: int) -> Environment:
        """Open, or take another hold on, the environment of a folder; ``release`` gives the hold back."""
        name = str(folder.resolve())
        with cls._lock:
            held, count = cls._shared.get(name, (None, 0))
            if held is not None and held._pid != os.getpid():
                raise Conflict(
                    "the workspace was open when this process was forked",
                    subject=name,
                    hint="open it after the fork, or start workers with the spawn method",
                )
            if held is None:
                held = cls(folder, databases=databases, map_size=map_size)
            cls._shared[name] = (held, count + 1)
            return held

    def release(self) -> None:
        """Give one hold back; the last one closes the environment."""
        name = str(self.folder.resolve())
        with self._lock:
            held, count = self._shared.get(name, (self, 1))
            if count > 1:
                self._shared[name] = (held, count - 1)
                return
            self._shared.pop(name, None)
            if self._pid == os.getpid():
                self._env.close()

    def usage(self) -> Usage:
        """How full it is, and who reads; slots that died readers hold are cleared, since they keep old pages alive."""
        stale = self._env.reader_check()
        info, stat = self._env.info(), self._env.stat()
        return Usage((info["last_pgno"] + 1) * stat["psize"], info["map_size"], info["num_readers"], stale)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """A write transaction: durable when the block ends, undone when it raises.

        Raises:
            LimitExceeded: the disk or the map is full; nothing of the block was written.
            Unavailable: any other failure of the environment.
        """
        with _translated(self.folder), self._env.begin(write=True) as transaction:
            yield transaction


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except lmdb.MapFullError as error:
        raise LimitExceeded(
            f"the map of {folder} is full", subject=str(folder), hint="raise the setting map_size, or flush and purge"
        ) from error
    except (lmdb.Error, OSError) as error:
        if isinstance(error, lmdb.DiskError) or "No space left" in str(error) or _is_full(folder):
            raise LimitExceeded(
                f"the disk of {folder} is full", subject=str(folder), hint="free space; nothing was written"
            ) from error
        raise Unavailable(f"{folder}: {error}", subject=str(folder)) from error


def _is_full(folder: Path) -> bool:
    """LMDB reports a short write as an input/output error; the disk itself says why."""
    return shutil.disk_usage(folder).free < _LITTLE
