"""Footers of run files, and Delta's statistics from them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.groups import FeatureGroup
from featurestore.offline import SYSTEM_FIELDS
from featurestore.offline.runs import sort_columns
from foundation.errors import NotFound, PlatformError
from foundation.files import Files

__all__ = ["read_footer", "stats_of"]

_TEXT_LIMIT = 256
"""Longer text is left out of Delta's statistics."""


def read_footer(files: Files, path: str) -> pq.FileMetaData:
    """The Parquet footer of a file below the root.

    Raises:
        NotFound: no such file.
        PlatformError: it is not a whole Parquet file.
    """
    try:
        with files.filesystem.open_input_file(path) as file:
            return pq.read_metadata(file)
    except FileNotFoundError as error:
        raise NotFound(f"file {path} is gone", subject=f"file {path}") from error
    except pa.ArrowInvalid as error:
        raise PlatformError(f"file {path} is damaged: {error}", subject=f"file {path}") from error


def stats_of(footer: pq.FileMetaData, group: FeatureGroup) -> dict[str, Any]:
    """Delta's ``minValues``, ``maxValues`` and ``nullCount`` of the key, event time and system columns."""
    wanted = {*sort_columns(group), *(field.name for field in SYSTEM_FIELDS)}
    lows: dict[str, Any] = {}
    highs: dict[str, Any] = {}
    nulls: dict[str, int] = dict.fromkeys(sorted(wanted), 0)
    vague: set[str] = set()
    for part in range(footer.num_row_groups):
        row_group = footer.row_group(part)
        for place in range(row_group.num_columns):
            column = row_group.column(place)
            name, stats = column.path_in_schema, column.statistics
            if name not in wanted:
                continue
            if stats is None or not stats.has_null_count:
                nulls.pop(name, None)
                vague.add(name)
                continue
            if name in nulls:
                nulls[name] += stats.null_count
            if stats.has_min_max:
                lows[name] = min(lows.get(name, stats.min), stats.min)
                highs[name] = max(highs.get(name, stats.max), stats.max)
            elif stats.null_count < row_group.num_rows:
                vague.add(name)
    told = {name for name in lows if name not in vague and _is_telling(lows[name]) and _is_telling(highs[name])}
    return {
        "minValues": {name: _plain(lows[name]) for name in sorted(told)},
        "maxValues": {name: _plain(highs[name]) for name in sorted(told)},
        "nullCount": nulls,
    }


def _is_telling(value: object) -> bool:
    return not isinstance(value, bool) and (not isinstance(value, str) or len(value) <= _TEXT_LIMIT)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return value.isoformat() if isinstance(value, date) else value
