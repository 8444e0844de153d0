"""Reading the checks of a load from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from foundation.checks import Suite

__all__ = ["read_gate"]


def read_gate(path: str) -> Suite:
    """A suite of expectations in Great Expectations' JSON.

    Raises:
        NotFound: no such file.
        InvalidInput: not such JSON.
    """
    from foundation.checks import Suite

    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise NotFound(f"file {path!r} does not exist", subject="--gate", hint="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"file {path!r} cannot be read: {error}", subject="--gate") from None
    return Suite.from_json(text)
