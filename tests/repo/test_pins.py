"""Every installed dependency is pinned by name to the version installed."""

from __future__ import annotations

import tomllib

import pytest
from repo.pins import ROOT, installed, locked, pinned, plain, rewritten


def test_what_is_installed_is_what_is_pinned() -> None:
    pins = pinned((ROOT / "pyproject.toml").read_text())
    names = _needed()
    here = installed()
    wrong = {name: (here[name], pins.get(name)) for name in sorted(names & here.keys()) if here[name] != pins.get(name)}
    assert wrong == {}, "run: uv run python tests/repo/pins.py"
    assert len(names & here.keys()) > 20


def _needed() -> set[str]:
    """Everything our requirements reach, as far as it is installed."""
    from importlib.metadata import PackageNotFoundError, requires

    import packaging.requirements

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    found: set[str] = set()
    queue = [packaging.requirements.Requirement(text) for text in wanted]
    while queue:
        need = queue.pop()
        name = plain(need.name)
        if name in found or name == "tilth":
            continue
        found.add(name)
        try:
            inner = requires(need.name) or []
        except PackageNotFoundError:
            continue
        queue += [
            one for one in map(packaging.requirements.Requirement, inner) if one.marker is None or one.marker.evaluate()
        ]
    return found


def test_pins_are_rewritten_and_read_back() -> None:
    text = '[project]\nname = "x"\n\n[tool.uv]\nconstraint-dependencies = []\n\n[tool.ruff]\nline-length = 1\n'
    once = rewritten(text, {"b": "2", "a": "1.0.post1"})
    assert pinned(once) == {"a": "1.0.post1", "b": "2"}
    assert once.index('"a==') < once.index('"b==')
    assert once.endswith("[tool.ruff]\nline-length = 1\n")
    assert rewritten(once, {"c": "3"}) == rewritten(text, {"c": "3"})
    with pytest.raises(ValueError, match="exactly one"):
        rewritten("[tool.uv]\n", {"a": "1"})


def test_the_lock_gives_versions_that_are_the_same_everywhere() -> None:
    lock = {
        "package": [
            {"name": "numpy", "version": "1"},
            {"name": "numpy", "version": "2"},
            {"name": "Ruamel_Yaml", "version": "3"},
            {"name": "tilth", "version": "0"},
            {"name": "local"},
        ]
    }
    assert locked(lock) == {"ruamel-yaml": "3"}
