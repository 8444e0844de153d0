"""File formats: how each is opened, what it tells before reading, and how it is read a batch at a time."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from foundation.engines.memory import BATCH_BYTES, polars_to_arrow, records_to_arrow
from foundation.errors import InvalidInput

__all__ = ["EXTENSIONS", "Opened", "extension_of", "open_file"]

_CSV_BLOCK = 8 << 20
"""Bytes of CSV parsed at a time; no row may be longer."""
_JSON_BLOCK = 16 << 20
"""Bytes of JSON lines decoded at a time."""
_NUMBER = re.compile(r"Row #(\d+): (.*)", re.DOTALL)


@dataclass(frozen=True)
class Opened:
    """One file, its head read.

    Attributes:
        schema: its columns; for JSON lines those of the first block.
        rows: row count where the file says so.
        text: every value is text to be parsed.
        read: its tables of at most so many rows, from the first row.
    """

    schema: pa.Schema
    rows: int | None
    text: bool
    read: Callable[[int], Iterator[pa.Table]]


def extension_of(path: Path) -> str:
    """The lower-case extension that decides the format: ``csv`` for ``a.CSV`` and ``a.csv.gz``."""
    parts = path.name.lower().split(".")
    return parts[-2] if parts[-1] == "gz" and len(parts) > 2 else parts[-1]


def open_file(path: Path) -> Opened:
    """Open a file by its extension.

    Raises:
        InvalidInput: an unknown extension, or a file that is not what its extension says.
    """
    opener = EXTENSIONS.get(extension_of(path))
    if opener is None:
        raise InvalidInput(
            f"{path} has no known format", subject=f"file {str(path)!r}", hint=f"known: {', '.join(sorted(EXTENSIONS))}"
        )
    with _naming(path):
        return opener(path)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises into an InvalidInput that names the file."""
    try:
        yield
    except InvalidInput:
        raise
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, UnicodeError, EOFError, ValueError) as error:
        told = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InvalidInput(
            f"{path} cannot be read: {told}",
            subject=f"file {str(path)!r}",
            hint="the file is damaged or not what its extension says; write it again",
        ) from error


def _guarded(path: Path, read: Callable[[int], Iterator[pa.Table]]) -> Callable[[int], Iterator[pa.Table]]:
    def batches(rows: int) -> Iterator[pa.Table]:
        with _naming(path):
            yield from read(rows)

    return batches


# -- CSV ------------------------------------------------------------------------------------------------------------


def _csv(path: Path) -> Opened:
    comma = "\t" if extension_of(path) == "tsv" else ","
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as handle:
        names = next(csv.reader(handle, delimiter=comma), None)
    if not names or not all(name.strip() for name in names):
        raise InvalidInput(
            f"{path} has no header" if not names else f"{path}: the header has an empty column name",
            subject=f"file {str(path)!r}",
            hint="the first line must name every column",
        )
    schema = pa.schema([pa.field(name, pa.string()) for name in names])

    def read(rows: int) -> Iterator[pa.Table]:
        del rows
        try:
            reader = pacsv.open_csv(
                pa.input_stream(str(path), compression="detect"),
                read_options=pacsv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK),
                parse_options=pacsv.ParseOptions(
                    delimiter=comma, newlines_in_values=True, invalid_row_handler=lambda row: "error"
                ),
                convert_options=pacsv.ConvertOptions(
                    default_column_type=pa.string(), strings_can_be_null=True, null_values=[""]
                ),
            )
            for batch in reader:
                yield pa.Table.from_batches([batch]).rename_columns(names)
        except pa.ArrowInvalid as error:
            raise _csv_error(path, str(error)) from error

    return Opened(schema, None, True, _guarded(path, read))


def _csv_error(path: Path, told: str) -> InvalidInput:
    if match := _NUMBER.search(told):
        return InvalidInput(
            f"{path}, line {match[1]}: {match[2][:200]}",
            subject=f"file {str(path)!r}",
            hint="every line must have one value per column of the header; quote values that hold the delimiter",
        )
    return InvalidInput(f"{path} cannot be read: {told[:200]}", subject=f"file {str(path)!r}", hint="give CSV in UTF-8")


# -- JSON -----------------------------------------------------------------------------------------------------------

_decoder = msgspec.json.Decoder(dict[str, object])
_rows = msgspec.json.Decoder(list[dict[str, object]])
_lines = msgspec.json.Decoder()


def _json(path: Path) -> Opened:
    first = next(_json_tables(path), pa.table({}))
    return Opened(first.schema, None, False, _guarded(path, lambda rows: _json_tables(path)))


def _json_tables(path: Path) -> Iterator[pa.Table]:
    """Blocks of whole lines; a file that starts with ``[`` is one array of objects, decoded whole."""
    with pa.input_stream(str(path), compression="detect") as stream:
        line, data = 1, stream.read(_JSON_BLOCK)
        if data.lstrip()[:1] == b"[":
            yield _array(path, data + stream.read())
            return
        while data:
            block = stream.read(_JSON_BLOCK)
            cut = data.rfind(b"\n") + 1 if block else len(data)
            if cut:
                yield _records(path, data[:cut], line)
                line += data.count(b"\n", 0, cut)
            data = data[cut:] + block


def _array(path: Path, data: bytes) -> pa.Table:
    try:
        records = _rows.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidInput(
            f"{path}: {error}", subject=f"file {str(path)!r}", hint="give an array of objects"
        ) from error
    return records_to_arrow(records)


def _records(path: Path, data: bytes, line: int) -> pa.Table:
    try:
        records = _lines.decode_lines(data)
    except (msgspec.DecodeError, RecursionError):
        records = None
    if records is None or set(map(type, records)) - {dict}:
        _name_line(path, data, line)
    assert records is not None
    return records_to_arrow(records)


def _name_line(path: Path, data: bytes, line: int) -> None:
    for place, text in enumerate(data.split(b"\n"), line):
        if not text.strip():
            continue
        try:
            _decoder.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise InvalidInput(
                f"{path}, line {place}: {error}",
                subject=f"file {str(path)!r}",
                hint="every line must be one JSON object",
            ) from error


# -- Parquet, Arrow IPC ---------------------------------------------------------------------------------------------


def _parquet(path: Path) -> Opened:
    metadata = pq.read_metadata(path)
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    schema = polars_to_arrow(pl.scan_parquet(path, glob=False).head(0).collect()).schema

    def read(rows: int) -> Iterator[pa.Table]:
        scanned = pl.scan_parquet(path, glob=False)
        start = length = held = 0
        for place, group in enumerate(groups):
            length, held = length + group.num_rows, held + group.total_byte_size
            ahead = groups[place + 1] if place + 1 < len(groups) else None
            if ahead is None or length + ahead.num_rows > rows or held + ahead.total_byte_size > BATCH_BYTES:
                yield polars_to_arrow(scanned.slice(start, length).collect())
                start, length, held = start + length, 0, 0

    return Opened(schema, metadata.num_rows, False, _guarded(path, read))


def _ipc(path: Path) -> Opened:
    with pa.memory_map(str(path)) as mapped:
        stream = mapped.read(6) != b"ARROW1"
        mapped.seek(0)
        schema = pa.ipc.open_stream(mapped).schema if stream else pa.ipc.open_file(mapped).schema

    def read(rows: int) -> Iterator[pa.Table]:
        del rows
        with pa.memory_map(str(path)) as mapped:
            if stream:
                for batch in pa.ipc.open_stream(mapped):
                    yield pa.Table.from_batches([batch])
                return
            reader = pa.ipc.open_file(mapped)
            for place in range(reader.num_record_batches):
                yield pa.Table.from_batches([reader.get_batch(place)])

    return Opened(schema, None, False, _guarded(path, read))


EXTENSIONS: dict[str, Callable[[Path], Opened]] = {
    "csv": _csv,
    "tsv": _csv,
    "jsonl": _json,
    "ndjson": _json,
    "json": _json,
    "parquet": _parquet,
    "pq": _parquet,
    "arrow": _ipc,
    "feather": _ipc,
    "ipc": _ipc,
}
"""Extensions read, each with its opener."""
