"""The walls: each is applied to the repository, and each is shown to fall on a bad sample."""

from __future__ import annotations

import inspect
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import click
import pytest
from repo import walls
from repo.walls import PACKAGES, ROOMS, ROOT, sources, tracked

from foundation.operations import operation

CODE = sources(*PACKAGES, "tests", "benchmarks")


def _rooms() -> list[type]:
    """Every class with operations of every room."""
    found = []
    for room in ROOMS:
        if (ROOT / room / "operations.py").exists():
            module = import_module(f"{room}.operations")
            found += [
                each for _, each in inspect.getmembers(module, inspect.isclass) if each.__module__ == module.__name__
            ]
    return found


# -- applied ----------------------------------------------------------------------------------------------------------


def test_no_file_is_too_long() -> None:
    assert walls.long_files(CODE) == []
    assert len(CODE) > 40


def test_no_function_is_too_long() -> None:
    assert [said for path in sources(*PACKAGES) for said in walls.long_functions(path)] == []


def test_a_rooms_front_is_short() -> None:
    fronts = [ROOT / package / "__init__.py" for package in PACKAGES]
    assert walls.long_files(fronts, walls.INIT_LINES) == []


def test_rooms_know_each_other_by_their_front() -> None:
    assert [said for path in sources(*PACKAGES) for said in walls.deep_imports(path)] == []


def test_operations_are_called_by_name_beyond_eight() -> None:
    rooms = _rooms()
    assert rooms
    assert walls.wide_operations(rooms) == []


def test_tests_are_no_packages() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_the_root_holds_what_it_should() -> None:
    assert walls.strangers(tracked()) == []


def test_tracked_files_name_no_machine_and_no_index() -> None:
    found = {}
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if said := walls.machine_paths(text) + walls.index_addresses(text):
            found[str(path.relative_to(ROOT))] = said
    assert found == {}


def test_the_wheel_holds_our_packages_and_nothing_else(tmp_path: Path) -> None:
    import os
    import shutil
    import subprocess

    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        if os.environ.get("TILTH_REQUIRE_PARTS") == "1":
            pytest.fail("uv is not on the path")
        pytest.skip("uv, which builds the wheel, is not on the path")
    run = subprocess.run(
        [uv, "build", "--wheel", "--quiet", "--out-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert run.returncode == 0, run.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert walls.wheel_problems(names, sys.stdlib_module_names) == []
    built = {name for name in names if name.endswith(".py")}
    assert built == {str(path.relative_to(ROOT)) for path in sources(*PACKAGES)}


# -- shown to fall ----------------------------------------------------------------------------------------------------


def test_a_long_file_falls(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("x = 1\n" * 801)
    assert walls.long_files([path]) == [f"{path}: 801 lines, the wall is 800"]
    path.write_text("x = 1\n" * 800)
    assert walls.long_files([path]) == []


@pytest.mark.parametrize(("lines", "falls"), [(59, False), (60, True)])
def test_a_long_function_falls(tmp_path: Path, lines: int, falls: bool) -> None:
    path = tmp_path / "m.py"
    doc = '    """Say.\n' + "    more\n" * 50 + '    """\n'
    for head in ("def f():\n", "async def f():\n"):
        path.write_text(head + doc + "    x = 1\n" * lines)
        assert bool(walls.long_functions(path)) is falls
    path.write_text("class C:\n    def m(self):\n" + "        x = 1\n" * lines)
    assert bool(walls.long_functions(path)) is falls


def test_a_deep_import_falls(tmp_path: Path) -> None:
    (tmp_path / "ingest").mkdir()
    path = tmp_path / "ingest" / "m.py"
    path.write_text(
        "from featurestore import FeatureStore\nfrom featurestore.groups import FeatureGroup\n"
        "import featurestore.reads\nfrom ingest.sources import x\nfrom foundation.errors import InvalidInput\n"
    )
    said = walls.deep_imports(path, root=tmp_path)
    assert [line.split(":")[1] for line in said] == ["2", "3"]


def test_a_wide_operation_falls() -> None:
    class Room:
        @operation
        def wide(self, a, b, c, d, e, f, g, h, i) -> None:
            """Nine."""

        @operation
        def fits(self, a, b, c, d, e, f, g, h, *, i=1, j=2) -> None:
            """Eight and two by name."""

    assert walls.wide_operations([Room]) == ["Room.wide takes 9 positional parameters, the wall is 8"]


def test_paths_and_addresses_of_a_machine_fall() -> None:
    slash = "/"
    for bad in (f"{slash}home/ann/data", f"cd {slash}tmp/x", f'"{slash}root/.cache"', f"see {slash}work/main."):
        assert walls.machine_paths(bad), bad
    for good in ("a/tmp/x", "~/things/x", "{tmp_path}/home/x", "s3://bucket/tmp/x", "/data/place", "file:///data"):
        assert walls.machine_paths(good) == [], good
    for bad in ("index" + "-url = x", "https://mirror.example/pypi/sim" + "ple/", "find" + "_links=x"):
        assert walls.index_addresses(bad), bad
    assert walls.index_addresses("https://docs.python.org/3/library/simple.html") == []


def test_a_stranger_at_the_root_falls(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("README.md", ".ci/run", "scripts/x.py", "featurestore/a.py", "setup.py")]
    assert walls.strangers(paths, root=tmp_path) == ["scripts", "setup.py"]


def test_a_wrong_wheel_falls() -> None:
    good = [f"{package}/__init__.py" for package in PACKAGES] + ["tilth-1.dist-info/METADATA"]
    assert walls.wheel_problems(good, ["json"]) == []
    assert walls.wheel_problems(good[1:], ["json"]) == ["package foundation is missing"]
    assert walls.wheel_problems([*good, "tests/test_x.py"], ["json"]) == ["tests does not belong in the wheel"]
    assert "json hides a module of the standard library" in walls.wheel_problems([*good, "json/__init__.py"], ["json"])


SAMPLE = """# Title
Use `put_records` and not getting.

```sh
$ uv run tilth demo   # the main job
pip install uv && uv run tilth group show users --json
TILTH_THREADS=1 tilth \\
  get users 7
```
~~~python run
print("`x`")
~~~
```
tilth not a shell block
```
"""


def test_blocks_spans_and_commands_are_found() -> None:
    assert [(block.info, block.line) for block in walls.blocks(SAMPLE)] == [
        (("sh",), 4),
        (("python", "run"), 10),
        ((), 13),
    ]
    code = walls.code_in(SAMPLE)
    assert walls.unmentioned(["put_records", "get", "getting", "put", "print"], code) == ["getting", "put"]
    assert [words for _, words in walls.commands(SAMPLE)] == [
        ["demo"],
        ["group", "show", "users", "--json"],
        ["get", "users", "7"],
    ]
    assert [line for line, _ in walls.commands(SAMPLE)] == [5, 6, 7]


def _cli() -> click.Group:
    group = click.Group(
        "group",
        commands=[click.Command("show", params=[click.Argument(["name"]), click.Option(["--json"], is_flag=True)])],
    )
    return click.Group("tilth", commands=[group, click.Command("demo"), click.Command("old", hidden=True)])


@pytest.mark.parametrize(
    ("line", "fits"),
    [
        ("demo", True),
        ("group show users --json", True),
        ("group show --help", True),
        ("--help", True),
        ("group show", False),
        ("group show users --jsn", False),
        ("group show a b", False),
        ("group drop users", False),
        ("dmo", False),
        ("demo now", False),
    ],
)
def test_a_command_that_does_not_exist_falls(line: str, fits: bool) -> None:
    assert (walls.unparsable(_cli(), line.split()) is None) is fits


def test_verbs_are_listed_as_typed() -> None:
    assert list(walls.verbs(_cli())) == ["group show", "demo"]


def test_a_dead_link_falls(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    (tmp_path / "b.md").write_text("# B")
    path.write_text("[b](b.md#x) [web](https://example.com) [top](#a) [gone](c.md)")
    assert walls.dead_links(path) == [f"{path}: [gone](c.md) leads nowhere"]
