"""@operation marks the public verbs of a room; operations_of reads them back, so every door offers the same ones."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["REQUIRED", "Operation", "Parameter", "operation", "operations_of"]

_MARK = "__tilth_operation__"
_Function = TypeVar("_Function", bound=Callable[..., Any])

REQUIRED: Any = inspect.Parameter.empty
"""The default of a parameter that has none."""


@dataclass(frozen=True)
class Parameter:
    """One argument of an operation.

    Attributes:
        name: its name.
        annotation: its type; the annotation's text where the type is not importable at run time.
        default: its default, or ``REQUIRED``.
        kind: ``"positional"``, ``"keyword"``, ``"rest"`` (``*args``) or ``"options"`` (``**kwargs``).
    """

    name: str
    annotation: Any
    default: Any
    kind: str

    @property
    def is_required(self) -> bool:
        """Whether a call without it fails."""
        return self.default is REQUIRED and self.kind in ("positional", "keyword")


@dataclass(frozen=True)
class Operation:
    """One public verb.

    Attributes:
        name: the method's name.
        parameters: arguments in order, without ``self``.
        result: the type of what it returns.
        doc: the whole docstring, without indentation.
        call: the bound method, or the plain function where a class was asked.
    """

    name: str
    parameters: tuple[Parameter, ...]
    result: Any
    doc: str
    call: Callable[..., Any]

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0]

    @property
    def positional(self) -> tuple[Parameter, ...]:
        """The parameters that may be given by place."""
        return tuple(parameter for parameter in self.parameters if parameter.kind == "positional")


def operation(function: _Function) -> _Function:
    """Mark a method as an operation; it stays the plain method it was.

    Raises:
        TypeError: it has no docstring or its name starts with ``_``; both are a programmer's slip, seen on import.
    """
    if not inspect.getdoc(function):
        raise TypeError(f"operation {function.__qualname__} has no docstring")
    if function.__name__.startswith("_"):
        raise TypeError(f"operation {function.__qualname__} must not start with '_': it is public")
    setattr(function, _MARK, True)
    return function


def operations_of(room: object) -> list[Operation]:
    """The operations of a room's class, or of one of its objects, as written; inherited ones last."""
    owner = room if isinstance(room, type) else type(room)
    names = dict.fromkeys(name for base in owner.__mro__ for name in vars(base))
    found = []
    for name in names:
        function = inspect.unwrap(inspect.getattr_static(owner, name), stop=_is_marked)
        if _is_marked(function):
            found.append(_read(name, function, getattr(room, name)))
    return found


def _is_marked(member: object) -> bool:
    return inspect.isfunction(member) and getattr(member, _MARK, False)


_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "positional",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
    inspect.Parameter.VAR_POSITIONAL: "rest",
    inspect.Parameter.VAR_KEYWORD: "options",
}


def _read(name: str, function: Callable[..., Any], call: Callable[..., Any]) -> Operation:
    signature = inspect.signature(function)
    try:
        types = typing.get_type_hints(function, include_extras=True)
    except NameError:
        types = dict(function.__annotations__)
    parameters = tuple(
        Parameter(each.name, types.get(each.name, Any), each.default, _KINDS[each.kind])
        for each in list(signature.parameters.values())[1:]
    )
    return Operation(name, parameters, types.get("return", Any), inspect.getdoc(function) or "", call)
