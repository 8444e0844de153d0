"""Pipeline = Source -> optional function over Arrow tables -> gate -> Sink. Declared in Python, JSON or TOML."""

from __future__ import annotations

import inspect
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from foundation.checks import Suite
from foundation.content import hash_texts
from foundation.engines import Scan
from foundation.errors import InvalidInput, NotFound, NotSupported, PlatformError
from foundation.names import check_name
from ingest.sinks import Sink, open_sink
from ingest.sources import Source, open_source

__all__ = ["Pipeline", "Transform", "Transformed"]

Transform = Callable[[pa.Table], pa.Table | pl.DataFrame]
"""A function of a batch: any rows and columns out, the same ones for the same batch. It sees empty batches, too."""

_FIELDS = frozenset({"name", "source", "transform", "gate", "sink"})


@dataclass(frozen=True)
class Pipeline:
    """What goes where, through what. Running it is ``batch.run``.

    Attributes:
        name: for reports.
        source: where rows come from.
        sink: where they go.
        transform: applied to each batch as read; None for none.
        gate: checks after the transform (and, for a group, after its types).
    """

    name: str
    source: Source
    sink: Sink
    transform: Transform | None = None
    gate: Suite | None = None

    def __post_init__(self) -> None:
        check_name("pipeline", self.name)

    def scan_of(self, scan: Scan) -> Scan:
        """A part's rows as the sink gets them."""
        return scan if self.transform is None else Transformed(scan, self.transform)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any], folder: Path | None = None) -> Pipeline:
        """Read a declaration.

        Args:
            document: ``name``, ``source``, ``sink``, and if wanted ``transform`` (``"module:function"``) and ``gate``
                (a suite, or the path of one).
            folder: relative paths start here; None is the working folder.

        Raises:
            InvalidInput: not of that form.
            NotFound: no such module, function or gate file.
        """
        place = folder or Path()
        if unknown := set(document) - _FIELDS:
            raise InvalidInput(
                f"the pipeline has an unknown field {min(unknown)!r}",
                subject="pipeline",
                hint=f"fields: {', '.join(sorted(_FIELDS))}",
            )
        for field in ("source", "sink"):
            if not isinstance(document.get(field), Mapping):
                raise InvalidInput(f"the pipeline has no {field}", subject="pipeline", hint=f'write "{field}": {{...}}')
        named = document.get("transform")
        return cls(
            name=str(document.get("name", "")),
            source=open_source(document["source"], place),
            sink=open_sink(document["sink"], place),
            transform=None if named is None else _function(named),
            gate=_gate(document.get("gate"), place),
        )

    @classmethod
    def from_file(cls, path: str | Path) -> Pipeline:
        """Read a ``.json`` or ``.toml`` file; its relative paths start in its own folder.

        Raises:
            NotFound: no such file.
            InvalidInput: not JSON or TOML, or see ``from_dict``.
        """
        place = Path(path)
        document = _document(place)
        return cls.from_dict(document, place.parent)

    def to_document(self) -> dict[str, Any]:
        """What ``from_dict`` reads.

        Raises:
            NotSupported: rows in memory, or a function that has no name to import it by.
        """
        document = {"name": self.name, "source": self.source.to_document(), "sink": self.sink.to_document()}
        if self.transform is not None:
            document["transform"] = _name_of(self.transform)
        if self.gate is not None:
            document["gate"] = self.gate.to_document()
        return document


class Transformed:
    """A ``Scan`` through a function, batch by batch, nothing kept.

    Its identity is the content read and the function's source text: the same rows through the same function are the
    same load, and a changed function makes a new one. What the function calls does not count.
    """

    def __init__(self, scan: Scan, transform: Transform) -> None:
        self._scan = scan
        self._transform = transform
        self.text = scan.text
        self.rows = None

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns after the function, found by giving it an empty batch."""
        return self._apply(self._scan.schema.empty_table()).schema

    @cached_property
    def identity(self) -> str:
        """See the class."""
        try:
            text = inspect.getsource(self._transform)
        except (OSError, TypeError):
            text = getattr(self._transform, "__qualname__", type(self._transform).__qualname__)
        return hash_texts(["transform", self._scan.identity, text])

    def batches(self, rows: int = 1_000_000) -> Iterator[pa.Table]:
        """Batches of up to ``rows`` rows read, with however many the function makes of them."""
        for batch in self._scan.batches(rows):
            yield self._apply(batch)

    def _apply(self, batch: pa.Table) -> pa.Table:
        name = getattr(self._transform, "__name__", "transform")
        try:
            made = self._transform(batch)
        except PlatformError:
            raise
        except Exception as error:
            raise InvalidInput(
                f"the function {name} fails on {batch.num_rows} rows: {type(error).__name__}: {error}",
                subject=f"transform {name}",
                hint="it gets Arrow tables, empty ones too; text columns when the source is CSV",
            ) from error
        if isinstance(made, pl.DataFrame):
            made = made.to_arrow(compat_level=pl.CompatLevel.oldest())
        if not isinstance(made, pa.Table):
            raise InvalidInput(
                f"the function {name} gives {type(made).__name__}",
                subject=f"transform {name}",
                hint="return an Arrow table or a polars frame",
            )
        return made


def _document(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"file {str(path)!r} does not exist", subject=f"file {str(path)!r}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", subject=f"file {str(path)!r}") from error
    try:
        document = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{path}: {error}", subject=f"file {str(path)!r}", hint="write JSON or TOML") from error
    if not isinstance(document, dict):
        raise InvalidInput(f"{path} holds no object", subject=f"file {str(path)!r}")
    return document


def _gate(given: object, folder: Path) -> Suite | None:
    if given is None:
        return None
    if isinstance(given, str):
        return Suite.from_dict(_document(folder / given))
    if isinstance(given, Mapping):
        return Suite.from_dict(given)
    raise InvalidInput(f"gate {given!r} is no suite", subject="gate", hint="give a suite or the path of its JSON")


def _function(name: object) -> Transform:
    module, _, attribute = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not module or not attribute:
        raise InvalidInput(
            f"transform {name!r} names no function", subject="transform", hint='"package.module:function"'
        )
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise NotFound(f"transform {name!r}: {error}", subject="transform", hint="is it on the path?") from error
    if not callable(found):
        raise InvalidInput(f"transform {name!r} is no function", subject="transform")
    transform: Transform = found
    return transform


def _name_of(transform: Transform) -> str:
    module, name = getattr(transform, "__module__", ""), getattr(transform, "__qualname__", "")
    if not module or not name.isidentifier():
        raise NotSupported(
            f"{transform!r} cannot be written down", subject="transform", hint="use a function of a module"
        )
    return f"{module}:{name}"
