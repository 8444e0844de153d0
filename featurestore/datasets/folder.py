"""The folder of a saved dataset: written slice by slice, made durable as a whole; what its definition says."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.datasets.building import Build
from featurestore.datasets.certificate import LeakCertificate
from featurestore.datasets.fingerprint import ContentHash, Fingerprint
from featurestore.datasets.output import ParquetSink
from foundation.clock import moment_of
from foundation.errors import NotFound
from foundation.files import Files

__all__ = ["FORMAT", "DatasetFolder", "Written", "read_bytes", "schema_of", "schema_text"]

FORMAT = 1
"""Of ``definition.json``."""


@dataclass(frozen=True)
class Written:
    """What was written: the result's fingerprint, and the rows of each part of the split (none without one)."""

    fingerprint: Fingerprint
    parts: dict[str, int]


class DatasetFolder:
    """The folder of one dataset, filled slice by slice."""

    def __init__(self, files: Files, folder: str, build: Build) -> None:
        self._files, self._folder, self._build = files, folder, build
        self._streams: dict[str, tuple[pa.NativeFile, ParquetSink]] = {}
        split = build.split
        files.filesystem.create_dir(folder if split is None else f"{folder}/data", recursive=True)
        spine = pa.schema([build.spine.schema.field(name) for name in build.needed])
        self._spine_schema = spine
        self._spine_hash, self._hash = ContentHash(spine), ContentHash(build.schema)
        self._open("spine.parquet", spine)
        if split is None:
            self._open("data.parquet", build.schema)
            return
        self._open("parts.parquet", pa.schema([pa.field("part", pa.int16())]))
        for name in split.names:
            self._open(f"data/{name}.parquet", build.schema)

    def _open(self, name: str, schema: pa.Schema) -> None:
        stream = self._files.filesystem.open_output_stream(f"{self._folder}/{name}")
        self._streams[name] = (stream, ParquetSink(stream, schema))

    def _put(self, name: str, table: pa.Table) -> None:
        self._streams[name][1].write(table)

    def add(self, piece: pa.Table, part: pa.Table) -> None:
        """Take the next slice and its result."""
        self._put("spine.parquet", piece)
        self._spine_hash.update(piece)
        self._hash.update(part)
        split = self._build.split
        if split is None:
            self._put("data.parquet", part)
            return
        codes = pc.index_in(part.column(split.column), pa.array(split.names))
        self._put("parts.parquet", pa.table({"part": codes.cast(pa.int16())}))
        for place, name in enumerate(split.names):
            self._put(f"data/{name}.parquet", part.filter(pc.equal(codes, place)))

    def close(self, certificate: LeakCertificate) -> Written:
        """Write the rest and make everything durable."""
        parts: dict[str, int] = {}
        for name, (stream, sink) in self._streams.items():
            sink.close()
            stream.close()
            if name.startswith("data/"):
                parts[name.removeprefix("data/").removesuffix(".parquet")] = sink.rows
        fingerprint = self._hash.fingerprint()
        definition = _definition(self._build, self._spine_schema, self._spine_hash.fingerprint(), fingerprint)
        texts = {
            "definition.json": json.dumps(definition, indent=2),
            "certificate.json": certificate.to_json(),
            "certificate.txt": f"{certificate}\n",
        }
        for name, text in texts.items():
            with self._files.filesystem.open_output_stream(f"{self._folder}/{name}") as stream:
                stream.write(text.encode())
        self._files.sync([f"{self._folder}/{name}" for name in (*self._streams, *texts)])
        return Written(fingerprint, parts)

    def abort(self) -> None:
        """Close what is open and delete the folder."""
        for stream, sink in self._streams.values():
            sink.abort()
            stream.close()
        self._files.delete(self._folder)


def _definition(build: Build, spine_schema: pa.Schema, spine: Fingerprint, result: Fingerprint) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "engine": _engine(),
        "built_at": build.built_at,
        "built": moment_of(build.built_at).isoformat(),
        "event_time": build.spine.event_time,
        "zone": build.spine.zone,
        "carried": list(build.spine.carried),
        "inclusive": build.inclusive,
        "as_of": build.as_of,
        "matured_by": build.matured_by,
        "known_by": build.known_by,
        "split": None if build.split is None else build.split.to_document(),
        "joins": [join.to_document() for join in build.joins],
        "groups": [snapshot.group.to_document() for snapshot in build.snapshots],
        "table_versions": [snapshot.version for snapshot in build.snapshots],
        "spine_schema": schema_text(spine_schema),
        "schema": schema_text(build.schema),
        "spine": spine.to_document(),
        "fingerprint": result.to_document(),
    }


def _engine() -> str:
    try:
        return version("tilth")
    except PackageNotFoundError:
        return "unpackaged"


def schema_text(schema: pa.Schema) -> str:
    """An Arrow schema as base64 of its IPC message: Parquet alone loses some types (seconds, dictionaries)."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def schema_of(text: str) -> pa.Schema:
    """Read what ``schema_text`` wrote."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def read_bytes(files: Files, path: str) -> bytes:
    """A file's bytes.

    Raises:
        NotFound: it is gone.
    """
    try:
        with files.filesystem.open_input_file(path) as file:
            data: bytes = file.read()
    except OSError as error:
        raise NotFound(f"file {path} is gone", subject=f"file {path!r}", hint="restore it from a copy") from error
    return data
