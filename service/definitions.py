"""Dataset definitions: what `tilth dataset build` is asked for, from options or from a TOML or JSON file.

A join in one option: ``weather:on=origin,features=temp+wind_speed,max_age=6h,prefix=wx_``. Lists are joined by ``+``;
where the spine's column has another name, ``on=faa:origin`` says record_id column, then spine column.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import InvalidInput, NotFound
from service.texts import read_moment, read_span

if TYPE_CHECKING:
    from featurestore import DatasetBuilder, FeatureStore

__all__ = ["Definition", "JoinAsked", "SplitAsked", "read_definition", "read_join", "read_split"]


@dataclass(frozen=True)
class JoinAsked:
    """One join, as for ``store.dataset(…).join`` or, with ``within``, ``join_label``."""

    group: str
    on: str | list[str] | dict[str, str] | None = None
    features: list[str] | None = None
    max_age: timedelta | None = None
    prefix: str | None = None
    recent: int | None = None
    include_deleted: bool = False
    event_range: tuple[str | None, str | None] | None = None
    within: timedelta | None = None


@dataclass(frozen=True)
class SplitAsked:
    """How rows are divided, as for ``store.dataset(…).split``."""

    fractions: dict[str, float] | None = None
    by: str | list[str] | None = None
    cuts: dict[str, datetime | None] | None = None
    seed: int = 0
    column: str = "split"


@dataclass(frozen=True)
class Definition:
    """A dataset as asked for.

    Attributes:
        spine: a file, or a query.
        event_time: the spine's column of moments.
        joins: in order.
        known_by, boundary, timezone, columns, as_of: as for ``store.dataset``.
        split: or None.
    """

    spine: str
    event_time: str
    joins: tuple[JoinAsked, ...] = ()
    known_by: str | None = None
    boundary: str = "<="
    timezone: str | None = None
    columns: list[str] | None = None
    as_of: datetime | None = None
    split: SplitAsked | None = None

    def builder(self, store: FeatureStore) -> DatasetBuilder:
        """The dataset, described to a store."""
        builder = store.dataset(
            self.spine,
            self.event_time,
            known_by=self.known_by,
            boundary=self.boundary,
            timezone=self.timezone,
            columns=self.columns,
        )
        for each in self.joins:
            if each.within is not None:
                builder = builder.join_label(
                    each.group, on=each.on, features=each.features, within=each.within, prefix=each.prefix
                )
            else:
                builder = builder.join(
                    each.group,
                    on=each.on,
                    features=each.features,
                    max_age=each.max_age,
                    prefix=each.prefix,
                    recent=each.recent,
                    include_deleted=each.include_deleted,
                    event_range=each.event_range,
                )
        if self.as_of is not None:
            builder = builder.as_of(self.as_of)
        if self.split is not None:
            asked = self.split
            builder = builder.split(asked.fractions, by=asked.by, cuts=asked.cuts, seed=asked.seed, column=asked.column)
        return builder


# -- from options ------------------------------------------------------------------------------------------------------


def read_join(text: str, *, label: bool) -> JoinAsked:
    """A join in one text; see the module.

    Raises:
        InvalidInput: naming the part, what is wrong with it and what would be right.
    """
    option = "--label" if label else "--join"
    group, _, rest = text.partition(":")
    pairs: dict[str, Any] = {}
    for part in filter(None, (each.strip() for each in rest.split(","))):
        name, equals, value = part.partition("=")
        if name in pairs:
            raise InvalidInput(f"{option} {text!r} gives {name!r} twice", subject=option, hint="give each part once")
        pairs[name.strip()] = value.strip() if equals else True
    if isinstance(pairs.get("on"), str):
        pairs["on"] = _on(pairs["on"])
    if isinstance(pairs.get("features"), str):
        pairs["features"] = pairs["features"].split("+")
    if isinstance(pairs.get("recent"), str) and pairs["recent"].isdigit():
        pairs["recent"] = int(pairs["recent"])
    if pairs.get("include_deleted") in ("true", "false"):
        pairs["include_deleted"] = pairs["include_deleted"] == "true"
    if "from" in pairs or "to" in pairs:
        pairs["event_range"] = [pairs.pop("from", None), pairs.pop("to", None)]
    return _join({"group": group.strip(), **pairs}, f"{option} {text!r}", label=label)


def _on(text: str) -> str | list[str] | dict[str, str]:
    parts = text.split("+")
    if any(":" in part for part in parts):
        return {own: theirs or own for own, _, theirs in (part.partition(":") for part in parts)}
    return parts[0] if len(parts) == 1 else parts


def read_split(texts: str, *, by: str | None, seed: int) -> SplitAsked:
    """A split in one text: ``train=0.8,test=0.2``, or by time ``train=2013-10-01T00:00:00Z,test``.

    Raises:
        InvalidInput: a part that is neither.
    """
    fractions: dict[str, float] = {}
    cuts: dict[str, datetime | None] = {}
    for part in texts.split(","):
        name, equals, value = (each.strip() for each in part.partition("="))
        if not name:
            raise InvalidInput(f"--split {texts!r} has a part without a name", subject="--split", hint=_SPLIT_HINT)
        try:
            fractions[name] = float(value)
        except ValueError:
            cuts[name] = read_moment(value, "--split") if equals else None
    if fractions and cuts:
        raise InvalidInput(f"--split {texts!r} mixes shares and moments", subject="--split", hint=_SPLIT_HINT)
    chosen = None if by is None else by.split(",") if "," in by else by
    return SplitAsked(fractions or None, chosen, cuts or None, seed)


_SPLIT_HINT = "train=0.8,test=0.2 or, by time, train=2013-10-01T00:00:00Z,test"

# -- from a file -------------------------------------------------------------------------------------------------------


def read_definition(path: str) -> Definition:
    """A definition file; its spine is looked for beside it.

    Raises:
        NotFound: no such file.
        InvalidInput: not TOML or JSON, or an unknown or ill-typed entry, naming it.
    """
    place = Path(path)
    try:
        text = place.read_text(encoding="utf-8")
        document = json.loads(text) if place.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise NotFound(f"file {path!r} does not exist", subject="--file", hint="check the path") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise InvalidInput(
            f"file {path!r} is no definition: {error}", subject="--file", hint="write TOML or JSON"
        ) from None
    if not isinstance(document, dict):
        raise InvalidInput(f"file {path!r} is no definition", subject="--file", hint="write an object with spine, …")
    take = _Taker(document, path)
    spine, sql = take("spine", str), take("sql", str)
    if (spine is None) == (sql is None):
        raise InvalidInput(f"{path} needs either spine or sql", subject="spine", hint='e.g. spine = "flights.parquet"')
    where = sql if spine is None else spine if "://" in spine else str(place.parent / spine)
    definition = Definition(
        spine=str(where),
        event_time=take.need("event_time", str),
        joins=(
            *(_join(each, f"{path} [[join]]", label=False) for each in take("join", list) or []),
            *(_join(each, f"{path} [[label]]", label=True) for each in take("label", list) or []),
        ),
        known_by=take("known_by", str),
        boundary=take("boundary", str) or "<=",
        timezone=take("timezone", str),
        columns=take("columns", list),
        as_of=_moment(take("as_of", str | datetime), "as_of"),
        split=_split(take("split", dict), f"{path} [split]"),
    )
    take.finish()
    return definition


class _Taker:
    """Takes entries out of a document, each with its type, and refuses what is left."""

    def __init__(self, document: Mapping[str, Any], where: str) -> None:
        self._left = dict(document)
        self._where = where
        self._known: list[str] = []

    def __call__(self, name: str, kind: Any) -> Any:  # noqa: ANN401
        self._known.append(name)
        value = self._left.pop(name, None)
        if value is not None and not isinstance(value, kind):
            wanted = getattr(kind, "__name__", str(kind))
            raise InvalidInput(
                f"{self._where}: {name} = {value!r} is not {_WORDS.get(wanted, wanted)}",
                subject=name,
                hint=f"give {_WORDS.get(wanted, wanted)}",
            )
        return value

    def need(self, name: str, kind: Any) -> Any:  # noqa: ANN401
        value = self(name, kind)
        if value is None:
            raise InvalidInput(f"{self._where} has no {name}", subject=name, hint=f"give {name}")
        return value

    def finish(self) -> None:
        for name in self._left:
            near = get_close_matches(name, self._known, n=1)
            raise InvalidInput(
                f"{self._where}: {name!r} is unknown",
                subject=name,
                hint=f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self._known)}",
            )


_WORDS = {"str": "text", "list": "a list", "dict": "a table", "int": "a whole number", "bool": "true or false"}


def _join(document: object, where: str, *, label: bool) -> JoinAsked:
    if not isinstance(document, Mapping):
        raise InvalidInput(f"{where} is not a table", subject="join", hint='e.g. group = "weather"')
    take = _Taker(document, where)
    asked = JoinAsked(
        group=take.need("group", str),
        on=take("on", str | list | dict),
        features=take("features", list),
        prefix=take("prefix", str),
        within=_span(take.need("within", str), "within") if label else None,
        **({} if label else _only_joins(take)),
    )
    take.finish()
    if not asked.group:
        raise InvalidInput(f"{where} names no group", subject="group", hint="e.g. weather:on=origin")
    return asked


def _only_joins(take: _Taker) -> dict[str, Any]:
    ends = take("event_range", list)
    if ends is not None and len(ends) != 2:
        raise InvalidInput(f"event_range {ends!r} is not a pair", subject="event_range", hint="give [start, end]")
    return {
        "max_age": _span(take("max_age", str), "max_age"),
        "recent": take("recent", int),
        "include_deleted": bool(take("include_deleted", bool)),
        "event_range": None if ends is None else (ends[0], ends[1]),
    }


def _split(document: Any, where: str) -> SplitAsked | None:  # noqa: ANN401
    if document is None:
        return None
    take = _Taker(document, where)
    cuts = take("cuts", dict)
    asked = SplitAsked(
        fractions=take("fractions", dict),
        by=take("by", str | list),
        cuts=None if cuts is None else {name: _moment(moment or None, "cuts") for name, moment in cuts.items()},
        seed=take("seed", int) or 0,
        column=take("column", str) or "split",
    )
    take.finish()
    return asked


def _span(text: str | None, what: str) -> timedelta | None:
    return None if text is None else read_span(text, what)


def _moment(value: Any, what: str) -> datetime | None:  # noqa: ANN401
    if isinstance(value, datetime):
        return read_moment(value.isoformat(), what)
    return None if value is None else read_moment(value, what)
