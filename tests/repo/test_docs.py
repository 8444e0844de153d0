"""The docs say what there is: names, commands, links, examples, versions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from repo import walls
from repo.walls import ROOMS, ROOT

from foundation.operations import operations_of
from foundation.settings import Settings

DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
EXAMPLES = sorted((ROOT / "docs" / "examples").rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _code() -> str:
    return "\n".join(walls.code_in(path.read_text()) for path in DOCS)


def _tilth():
    import typer.main

    return typer.main.get_command(import_module("service.cli").app)


def _run(words: list[str], folder: Path) -> None:
    """Run in a folder of its own, with our commands on the path and nothing of the caller's settings."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("TILTH_")}
    surroundings["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{surroundings.get('PATH', '')}"
    run = subprocess.run(words, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, f"{words} ended with {run.returncode}\n{run.stdout}\n{run.stderr}"


def test_every_operation_is_in_the_docs() -> None:
    names = []
    for room in ROOMS:
        if (ROOT / room / "operations.py").exists():
            module = import_module(f"{room}.operations")
            own = [
                each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__
            ]
            names += [one.name for each in own for one in operations_of(each)]
    assert names
    assert walls.unmentioned(names, _code()) == []


def test_every_setting_is_in_the_docs_and_does_something() -> None:
    assert walls.unmentioned(Settings.names(), _code()) == []
    code = "\n".join(
        path.read_text() for path in walls.sources(*walls.PACKAGES) if path != ROOT / "foundation" / "settings.py"
    )
    unused = [name for name in Settings.names() if not re.search(rf"settings\.{name}\b", code)]
    assert unused == [], "a setting nobody reads promises something that does not happen"


def test_every_command_is_in_the_docs() -> None:
    verbs = list(walls.verbs(_tilth()))
    assert len(verbs) > 8
    missing = walls.unmentioned([f"tilth {verb}" for verb in verbs], _code())
    assert missing == []


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_the_commands_of_a_page_exist(path: Path) -> None:
    tilth = _tilth()
    found = walls.commands(path.read_text())
    wrong = [f"line {line}: {said}" for line, words in found if (said := walls.unparsable(tilth, words))]
    assert wrong == []


def test_the_readme_shows_the_two_commands() -> None:
    shown = [words for _, words in walls.commands((ROOT / "README.md").read_text())]
    assert ["demo"] in shown
    assert "uv run pytest" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_links_lead_somewhere(path: Path) -> None:
    assert walls.dead_links(path) == []


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_blocks_marked_run_do_run(path: Path, tmp_path: Path) -> None:
    """Blocks marked ``python run`` or ``sh run``, in order, in one folder; the Python ones of a page share names."""
    marked = [block for block in walls.blocks(path.read_text()) if block.info[1:2] == ("run",)]
    python = "\n\n".join(block.text for block in marked if block.info[0] == "python")
    shell = "\n".join(block.text for block in marked if block.info[0] in ("sh", "bash"))
    assert all(block.info[0] in ("python", "sh", "bash") for block in marked)
    if python:
        (tmp_path / "page.py").write_text(python)
        _run([sys.executable, "-P", "-W", "error", "page.py"], tmp_path)
    if shell:
        _run(["bash", "-euo", "pipefail", "-c", shell], tmp_path)


def test_a_block_that_fails_is_noticed(tmp_path: Path) -> None:
    warns = [sys.executable, "-W", "error", "-c", "import warnings; warnings.warn('x')"]
    for words in (warns, ["bash", "-c", "false"]):
        with pytest.raises(AssertionError, match="ended with 1"):
            _run(words, tmp_path)
    _run(["bash", "-euc", 'tilth --version && test -z "$(env | grep ^TILTH_ || true)"'], tmp_path)


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=_name)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    _run([sys.executable, "-P", "-W", "error", str(path)], tmp_path)


def test_the_changelog_speaks_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    heads = re.findall(r"^## (\S+)", (ROOT / "docs" / "changelog.md").read_text(), re.MULTILINE)
    assert heads[0] == version


def test_decisions_are_numbered_without_gaps() -> None:
    names = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("*.md"))
    assert [name[:4] for name in names] == [f"{number:04}" for number in range(1, len(names) + 1)]
    assert len(names) >= 4
    for name in names:
        text = (ROOT / "docs" / "decisions" / name).read_text()
        assert text.startswith(f"# {name[:4]} "), name
