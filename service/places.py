"""Which workspace a command works in, and opening it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import NotFound
from foundation.settings import named_workspace

if TYPE_CHECKING:
    from featurestore import FeatureStore

__all__ = ["DEFAULT", "opened", "workspace_of"]

DEFAULT = "tilth-workspace"
"""The workspace where none is named."""


def workspace_of(given: Path | None) -> Path:
    """The workspace as given, else ``TILTH_WORKSPACE``, else this folder where it is one, else ``tilth-workspace``."""
    named = given or named_workspace()
    if named is not None:
        return named
    from foundation.workspace import WORKSPACE_NAME

    return Path() if Path(WORKSPACE_NAME).is_file() else Path(DEFAULT)


@contextmanager
def opened(given: Path | None, *, create: bool = False) -> Iterator[FeatureStore]:
    """Open the store of a workspace for one command.

    Args:
        given: the ``--workspace`` option.
        create: make the workspace when it is not there; without, a wrong path is an error and not a new folder.

    Raises:
        NotFound: there is no workspace.
    """
    from foundation.workspace import WORKSPACE_NAME

    path = workspace_of(given)
    if not create and not (path / WORKSPACE_NAME).is_file():
        raise NotFound(
            f"there is no workspace at {path}",
            subject=f"workspace {path}",
            hint="name one with --workspace or TILTH_WORKSPACE; `tilth group create` and `tilth demo` make one",
        )
    import featurestore

    with featurestore.open(path) as store:
        yield store
