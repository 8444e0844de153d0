"""Environments of the peers: what they need is in the text files beside this one; built once, outside the tree."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

__all__ = ["environment"]


def environment(peer: str, cache: Path) -> Path:
    """The Python of a peer's own environment, which is made on first use with ``uv``.

    Args:
        peer: name of a requirements file in this folder, without ``.txt``.
        cache: folder to keep environments in.
    """
    requirements = Path(__file__).with_name(f"{peer}.txt")
    mark = hashlib.blake2b(requirements.read_bytes(), digest_size=4).hexdigest()
    home = cache / "envs" / f"{peer}-{mark}"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        shutil.rmtree(home, ignore_errors=True)
        cache.mkdir(parents=True, exist_ok=True)
        # Run from outside the tree: the project's own pins do not hold for a peer.
        for command in (["venv", "--python", "3.11", home], ["pip", "install", "--python", python, "-r", requirements]):
            subprocess.run(["uv", command[0], "--quiet", *map(str, command[1:])], check=True, cwd=cache)
        (home / "ready").touch()
    return python
