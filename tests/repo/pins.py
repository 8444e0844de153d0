"""Pin every dependency by name to the version the suite was run with: ``uv run python tests/repo/pins.py``.

Writes ``[tool.uv] constraint-dependencies`` of pyproject.toml from the environment it runs in, and from ``uv.lock`` for
optional packages that are not installed. The lock file itself is not kept in the repository.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
_OWN = "tilth"
_BLOCK = re.compile(r"^constraint-dependencies = \[.*?\]\n", re.DOTALL | re.MULTILINE)


def plain(name: str) -> str:
    """A distribution name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed() -> dict[str, str]:
    """Name to version of everything installed here, tools that brought themselves left out."""
    found = {plain(each.metadata["Name"]): each.version for each in distributions()}
    return {name: version for name, version in found.items() if name not in (_OWN, "pip", "setuptools", "wheel", "uv")}


def locked(lock: dict[str, Any]) -> dict[str, str]:
    """Name to version of what the lock file resolved to one version only."""
    packages = [(plain(each["name"]), each.get("version")) for each in lock.get("package", [])]
    times = Counter(name for name, _ in packages)
    return {name: version for name, version in packages if version and times[name] == 1 and name != _OWN}


def pinned(text: str) -> dict[str, str]:
    """Name to version of the pins in a pyproject.toml."""
    pins = tomllib.loads(text)["tool"]["uv"]["constraint-dependencies"]
    return dict(pin.split("==") for pin in pins)


def rewritten(text: str, versions: dict[str, str]) -> str:
    """A pyproject.toml with these pins."""
    lines = "".join(f'  "{name}=={version}",\n' for name, version in sorted(versions.items()))
    block = f"constraint-dependencies = [\n{lines}]\n"
    result, count = _BLOCK.subn(lambda _: block, text)
    if count != 1:
        raise ValueError("pyproject.toml needs exactly one constraint-dependencies list")
    return result


def main() -> None:
    """Write the pins."""
    path, lock = ROOT / "pyproject.toml", ROOT / "uv.lock"
    versions = locked(tomllib.loads(lock.read_text())) if lock.exists() else {}
    text = rewritten(path.read_text(), versions | installed())
    path.write_text(text)
    print(f"{len(pinned(text))} versions pinned")


if __name__ == "__main__":
    main()
