"""What a legal name is."""

from __future__ import annotations

import re

from foundation.errors import InvalidInput

__all__ = ["RESERVED_COLUMNS", "RESERVED_PREFIX", "check_feature_name", "check_name"]

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?|[A-Za-z0-9][A-Za-z0-9_-]{0,62}[A-Za-z0-9_]")
RESERVED_COLUMNS = frozenset({"is_deleted", "write_time", "api_invocation_time"})
"""AWS's three appended columns; no feature may take their names."""
RESERVED_PREFIX = "tilth_"
"""Our own appended columns start with this."""
_LIMIT = 64


def check_name(kind: str, name: object) -> str:
    """Return ``name`` when it is 1 to 64 letters, digits, ``_`` or ``-``, starting with a letter or digit.

    Raises:
        InvalidInput: naming the kind, the value and the rule.
    """
    hint = "use 1 to 64 letters, digits, '_' or '-', starting with a letter or digit and not ending with '-'"
    if not isinstance(name, str):
        raise InvalidInput(f"{kind} name must be text, not {type(name).__name__}", subject=f"{kind} name", hint=hint)
    if len(name) > _LIMIT:
        shown = f"{name[:20]}…"
        raise InvalidInput(f"{kind} name {shown!r} has {len(name)} characters", subject=f"{kind} name", hint=hint)
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{kind} name {name!r} is not allowed", subject=f"{kind} name", hint=hint)
    return name


def check_feature_name(name: object) -> str:
    """Return ``name`` when it is a legal feature name: as ``check_name``, a leading ``_`` allowed, none reserved.

    Raises:
        InvalidInput: illegal, or one of the names the offline store appends itself.
    """
    check_name("feature", name[1:] if isinstance(name, str) and name.startswith("_") and len(name) > 1 else name)
    assert isinstance(name, str)
    if name.lower() in RESERVED_COLUMNS or name.lower().startswith(RESERVED_PREFIX):
        raise InvalidInput(
            f"feature name {name!r} is reserved",
            subject=f"column {name!r}",
            hint="rename the column: is_deleted, write_time, api_invocation_time and tilth_* belong to the store",
        )
    return name
