"""@operation marks the public verbs of a room; operations_of reads them back, so every door offers the same ones."""

from __future__ import annotations

import errno
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from foundation.errors import AccessDenied, InvalidInput, LimitExceeded, NotFound, PlatformError

__all__ = ["REQUIRED", "Operation", "Parameter", "checked", "operation", "operations_of"]

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


def checked(function: _Function) -> _Function:
    """Answer a call whose arguments make no sense with a typed error instead of whatever Python tripped over.

    Costs nothing while calls succeed: arguments are held against their annotations only after something failed. An
    error that no argument explains is a defect and is raised as it is.

    Raises:
        InvalidInput: an argument of another type than annotated, text that is not Unicode, a number too large, or a
            path the operating system refuses.
        AccessDenied: a path that may not be read or written.
        LimitExceeded: the disk is full.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the function takes and gives
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError, AttributeError, OverflowError, KeyError, OSError) as error:
            explained = _explain(function, args, kwargs, error)
            if explained is None:
                raise
            raise explained from error

    return typing.cast("_Function", call)


def operation(function: _Function) -> _Function:
    """Mark a method as an operation, ``checked``.

    Raises:
        TypeError: it has no docstring or its name starts with ``_``; both are a programmer's slip, seen on import.
    """
    if not inspect.getdoc(function):
        raise TypeError(f"operation {function.__qualname__} has no docstring")
    if function.__name__.startswith("_"):
        raise TypeError(f"operation {function.__qualname__} must not start with '_': it is public")
    made = checked(function)
    setattr(made, _MARK, True)
    return made


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


def _explain(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception
) -> PlatformError | None:
    """The typed error behind a failed call, None where the arguments are not to blame."""
    if isinstance(error, OSError):
        return _of_the_system(error)
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return None
    hints = _hints(function)
    for name, value in bound.arguments.items():
        if name in hints and not _fits(value, hints[name]):
            return InvalidInput(
                f"{name} = {_shown(value)} ({type(value).__name__}) is not what {function.__name__} takes",
                subject=name,
                hint=f"give {_said(hints[name])}",
            )
    if isinstance(error, UnicodeError):
        return InvalidInput(f"text that is not valid Unicode: {error}", subject=function.__name__)
    if isinstance(error, ValueError) and "null byte" in str(error):
        return InvalidInput("a path holds a null byte", subject=function.__name__, hint="name another path")
    if isinstance(error, OverflowError):
        return InvalidInput(f"a number is out of range: {error}", subject=function.__name__)
    return None


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Annotations that can be read at run time; those of names imported for type checkers only are left out."""
    found = {}
    for name, text in inspect.get_annotations(function).items():
        try:
            found[name] = eval(text, function.__globals__) if isinstance(text, str) else text
        except (NameError, TypeError, AttributeError, SyntaxError):
            continue
    return found


def _of_the_system(error: OSError) -> PlatformError:
    subject = str(error.filename or "")
    said = f"{subject}: {error.strerror or error}" if subject else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return LimitExceeded(f"the disk is full: {said}", subject=subject, hint="free space and try again")
    if isinstance(error, FileNotFoundError):
        return NotFound(said, subject=subject, hint="check the path")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDenied(said, subject=subject, hint="check the owner and mode, or name another place")
    return InvalidInput(said, subject=subject, hint="name another path")


def _fits(value: object, hint: Any) -> bool:  # noqa: ANN401 - a type hint is anything
    """Whether a value could be meant by a hint; unknown kinds of hint fit everything."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple and isinstance(value, tuple):
        if parts[1:] == (...,):
            return all(_fits(each, parts[0]) for each in value)
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if isinstance(origin, type):
        return isinstance(value, origin) and _filled(value, parts)
    if _is_open(hint):
        return True
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))


def _is_open(hint: Any) -> bool:  # noqa: ANN401
    return not isinstance(hint, type) or getattr(hint, "_is_protocol", False)


def _filled(value: object, parts: tuple[Any, ...]) -> bool:
    if isinstance(value, Mapping) and len(parts) == 2:
        return all(_fits(key, parts[0]) and _fits(cell, parts[1]) for key, cell in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str) and len(parts) == 1:
        return all(_fits(each, parts[0]) for each in value)
    return True


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _said(hint: Any) -> str:  # noqa: ANN401
    """A hint as a reader would write it."""
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return re.sub(r"\b(typing|collections\.abc|datetime|pathlib)\.", "", str(hint))
