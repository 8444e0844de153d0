"""The rules that hold the repository's shape, as functions that return what breaks them; the tests apply them."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
ROOMS = ("featurestore", "ingest", "service")
PACKAGES = ("foundation", *ROOMS)
FILE_LINES = 800
FUNCTION_LINES = 60
INIT_LINES = 40
POSITIONAL = 8

_ROOT_ENTRIES = {"LICENSE", "README.md", "pyproject.toml", "uv.lock", *PACKAGES, "tests", "docs", "benchmarks"}
# Written in pieces, so that this file does not break the rule it states.
_MACHINE_PATHS = re.compile(r"(?<![\w.$}{)~-])/(?:" + "|".join(("work", "root", "home", "tmp")) + r")/[\w.-]+")
_INDEXES = re.compile(
    "|".join(
        (
            "index" + "[-_]url",
            "find" + "[-_]links",
            "python" + "hosted",
            "trusted" + "[-_]host",
            r"https?://[^\s\"'`)]*/sim" + r"ple(?![\w.])",
        )
    ),
    re.IGNORECASE,
)


# -- code -------------------------------------------------------------------------------------------------------------


def sources(*folders: str, root: Path = ROOT) -> list[Path]:
    """Python files below some folders of the repository."""
    found = (path for folder in folders for path in (root / folder).rglob("*.py"))
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))


def long_files(paths: Iterable[Path], limit: int = FILE_LINES) -> list[str]:
    """Files of more lines than allowed."""
    counts = ((path, len(path.read_text().splitlines())) for path in paths)
    return [f"{path}: {count} lines, the wall is {limit}" for path, count in counts if count > limit]


def long_functions(path: Path, limit: int = FUNCTION_LINES) -> list[str]:
    """Functions of more lines than allowed; the docstring is not counted."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                said = node.body[0]
                count -= (said.end_lineno or said.lineno) - said.lineno + 1
            if count > limit:
                found.append(f"{path}:{node.lineno}: {node.name} has {count} lines, the wall is {limit}")
    return found


def deep_imports(path: Path, rooms: Iterable[str] = ROOMS, root: Path = ROOT) -> list[str]:
    """Imports of another room's inside: rooms know each other by the public names of the package only."""
    own = path.relative_to(root).parts[0]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            room, dot, _ = name.partition(".")
            if dot and room != own and room in rooms:
                found.append(f"{path}:{node.lineno}: imports {name}; use the public names of {room}")
    return found


def wide_operations(rooms: Iterable[type], limit: int = POSITIONAL) -> list[str]:
    """Operations with more positional parameters than allowed."""
    from foundation.operations import operations_of

    return [
        f"{room.__name__}.{one.name} takes {len(one.positional)} positional parameters, the wall is {limit}"
        for room in rooms
        for one in operations_of(room)
        if len(one.positional) > limit
    ]


# -- text -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block of a Markdown file: its info words (``python run``), its text, and the line it starts at."""

    info: tuple[str, ...]
    text: str
    line: int


def blocks(markdown: str) -> list[Block]:
    """The fenced blocks of a Markdown text."""
    found: list[Block] = []
    start: tuple[str, tuple[str, ...], int] | None = None
    held: list[str] = []
    for number, line in enumerate(markdown.splitlines(), 1):
        fence = re.match(r"\s*(`{3,}|~{3,})(.*)$", line)
        if start is None:
            if fence:
                start, held = (fence[1], tuple(fence[2].split()), number), []
        elif fence and fence[1].startswith(start[0]) and not fence[2].strip():
            found.append(Block(start[1], "\n".join(held), start[2]))
            start = None
        else:
            held.append(line)
    return found


def code_in(markdown: str) -> str:
    """Everything a Markdown text sets as code: fenced blocks and spans between backticks."""
    fenced = [block.text for block in blocks(markdown)]
    rest = re.sub(r"(?ms)^\s*(`{3,}|~{3,}).*?^\s*\1\s*$", "", markdown)
    return "\n".join([*fenced, *re.findall(r"`([^`\n]+)`", rest)])


def unmentioned(names: Iterable[str], code: str) -> list[str]:
    """Names that do not occur as whole words in the code of the docs."""
    return [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", code)]


def commands(markdown: str, program: str = "tilth") -> list[tuple[int, list[str]]]:
    """(line, arguments) of every call of a program in the shell blocks of a Markdown text."""
    found = []
    for block in blocks(markdown):
        if block.info[:1] not in (("sh",), ("bash",), ("shell",), ("console",)):
            continue
        text = block.text.replace("\\\n", "  ")
        for offset, line in enumerate(text.splitlines(), 1):
            for part in re.split(r"&&|\|\||;|\|", line.removeprefix("$ ")):
                words = shlex.split(part, comments=True)
                while words and (words[:2] == ["uv", "run"] or "=" in words[0]):
                    words = words[2:] if words[0] == "uv" else words[1:]
                if words and words[0] == program:
                    found.append((block.line + offset, words[1:]))
    return found


def unparsable(command: Any, words: list[str], path: str = "tilth") -> str | None:
    """Why a click command does not take these words, or None when it does. Nothing is carried out."""
    inner = getattr(command, "commands", None)
    if inner is not None:
        for place, word in enumerate(words):
            if word in inner:
                return unparsable(inner[word], words[place + 1 :], f"{path} {word}")
            if not word.startswith("-"):
                return f"{path} has no command {word!r}"
    if "--help" in words:
        return None
    try:
        command.make_context(path, list(words), resilient_parsing=False).close()
    except Exception as error:
        return f"{path}: {getattr(error, 'message', None) or error!r}"
    return None


def verbs(command: Any, path: str = "") -> Iterator[str]:
    """Every verb of a click command, as typed: ``group create``, ``get`` …"""
    for name, inner in (getattr(command, "commands", None) or {}).items():
        if getattr(inner, "hidden", False):
            continue
        full = f"{path} {name}".strip()
        if getattr(inner, "commands", None):
            yield from verbs(inner, full)
        else:
            yield full


def dead_links(path: Path) -> list[str]:
    """Relative links of a Markdown file that lead nowhere."""
    found = []
    for text, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", path.read_text()):
        place = target.partition("#")[0]
        if place and "://" not in target and not target.startswith("mailto:") and not (path.parent / place).exists():
            found.append(f"{path}: [{text}]({target}) leads nowhere")
    return found


# -- the repository ---------------------------------------------------------------------------------------------------


def tracked(root: Path = ROOT) -> list[Path]:
    """The files of the repository, new ones included, ignored ones not."""
    run = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(root / name for name in run.stdout.split("\0") if name and (root / name).is_file())


def strangers(paths: Iterable[Path], root: Path = ROOT) -> list[str]:
    """Entries at the root that do not belong there; files and folders starting with a dot do."""
    tops = {path.relative_to(root).parts[0] for path in paths}
    return sorted(top for top in tops if top not in _ROOT_ENTRIES and not top.startswith("."))


def machine_paths(text: str) -> list[str]:
    """Absolute paths that exist on one machine only."""
    return _MACHINE_PATHS.findall(text)


def index_addresses(text: str) -> list[str]:
    """Where packages are fetched from is the machine's business, not the repository's."""
    return [match[0] for match in _INDEXES.finditer(text)]


def wheel_problems(names: Iterable[str], stdlib: Iterable[str], packages: Iterable[str] = PACKAGES) -> list[str]:
    """What is wrong with a wheel of these files: a package missing, foreign, or hiding the standard library."""
    tops = {name.partition("/")[0] for name in names}
    found = sorted(top for top in tops if not top.endswith(".dist-info"))
    problems = [f"package {name} is missing" for name in packages if name not in found]
    problems += [f"{name} does not belong in the wheel" for name in found if name not in packages]
    problems += [f"{name} hides a module of the standard library" for name in found if name in set(stdlib)]
    return problems
