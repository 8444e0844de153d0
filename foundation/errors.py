"""The one error tree. Rooms raise these with data; doors translate them to HTTP, gRPC, AWS or an exit code."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "Conflict",
    "InUse",
    "InvalidInput",
    "LimitExceeded",
    "NotFound",
    "NotSupported",
    "PlatformError",
    "Unavailable",
]


class PlatformError(Exception):
    """Base of every error raised on purpose.

    Attributes:
        code: stable machine word for the class of error, e.g. ``"not_found"``.
        message: one sentence: what is wrong, naming the field and the value.
        subject: what it is about (``"feature group 'users'"``, ``"column 'age'"``), or ``""``.
        hint: what to do about it, or ``""``.
    """

    code = "error"

    def __init__(self, message: str, *, subject: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidInput(PlatformError):
    """The caller's value cannot be accepted; nothing was written."""

    code = "invalid_input"


class NotFound(PlatformError):
    """A named thing does not exist."""

    code = "not_found"

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str] = ()) -> NotFound:
        """Build the error for a missing ``kind`` called ``name``, suggesting a close name among ``known``."""
        near = get_close_matches(name, list(known), n=1)
        hint = f"did you mean {near[0]!r}?" if near else ""
        return cls(f"{kind} {name!r} does not exist", subject=f"{kind} {name!r}", hint=hint)


class AlreadyExists(PlatformError):
    """A thing of that name is there already."""

    code = "already_exists"


class Conflict(PlatformError):
    """The request disagrees with the present state (a stale version, a gap in a sequence, another backend)."""

    code = "conflict"


class InUse(PlatformError):
    """The thing is needed by something else and cannot be removed."""

    code = "in_use"


class LimitExceeded(PlatformError):
    """A size, count or space limit was reached."""

    code = "limit_exceeded"


class AccessDenied(PlatformError):
    """The caller may not do this."""

    code = "access_denied"


class NotSupported(PlatformError):
    """Well-formed, but not something this build or backend does."""

    code = "not_supported"


class Unavailable(PlatformError):
    """A part is not answering; the only error that means "try again"."""

    code = "unavailable"
