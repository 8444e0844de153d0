"""Linters, types and floors: the same commands a hook or an editor runs, inside the test command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from repo.walls import ROOT

pytestmark = [pytest.mark.xdist_group("checks"), pytest.mark.timeout(600)]

_IMPORTLINTER = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def _run(*words: str, cwd: Path = ROOT) -> tuple[int, str]:
    run = subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=590, stdin=subprocess.DEVNULL
    )
    return run.returncode, run.stdout + run.stderr


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("-m", "ruff", "check", "."), id="ruff-check"),
        pytest.param(("-m", "ruff", "format", "--check", "."), id="ruff-format"),
        pytest.param(("-m", "mypy"), id="mypy"),
        pytest.param(("-c", _IMPORTLINTER, "--no-cache"), id="lint-imports"),
    ],
)
def test_the_repository_is_clean(words: tuple[str, ...]) -> None:
    code, said = _run(*words)
    assert code == 0, said


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A copy of our configuration around four packages that break it."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for name in ("foundation", "featurestore", "ingest", "service"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f'"""Package {name}."""\n')
    for name, driver in {"delta": "deltalake", "sql": "duckdb", "redis": "redis", "lmdb": "lmdb"}.items():
        (tmp_path / "foundation" / f"{name}.py").write_text(f'"""Driver."""\n\nimport {driver}\n\nX = {driver}\n')
    (tmp_path / "foundation" / "down.py").write_text('"""Up."""\n\nimport service\n\nX = service\n')
    (tmp_path / "featurestore" / "driver.py").write_text('"""Driver."""\n\nimport duckdb\n\nX = duckdb\n')
    (tmp_path / "ingest" / "a.py").write_text('"""A."""\n\nfrom ingest.b import X\n\nY = X\n')
    (tmp_path / "ingest" / "b.py").write_text('"""B."""\n\nfrom ingest.a import Y\n\nX = Y\n')
    (tmp_path / "service" / "env.py").write_text(
        '"""Env."""\n\nimport os\n\n\ndef read(name):\n    """Read."""\n    return os.environ[name]\n'
    )
    return tmp_path


def test_the_checks_catch_what_they_are_for(broken: Path) -> None:
    code, said = _run("-m", "ruff", "check", ".", cwd=broken)
    assert code == 1
    assert "TID251" in said
    assert "ANN001" in said
    code, said = _run("-c", "import sys; sys.path.insert(0, ''); " + _IMPORTLINTER, "--no-cache", cwd=broken)
    assert code == 1
    plain = " ".join(said.split())
    assert "foundation.down -> service" in plain
    assert "featurestore.driver -> duckdb" in plain
    for contract in ("Imports go down", "Only foundation.sql imports DuckDB", "No circles inside a room"):
        line = next(line for line in said.splitlines() if line.startswith(contract))
        assert "BROKEN" in line, said
