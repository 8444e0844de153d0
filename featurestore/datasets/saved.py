"""Saved datasets: kept under a name and version with all that computes them again, and proved equal when it does.

A dataset ``flights@v3`` lives in ``datasets/flights/v3/`` of the workspace's files:

``spine.parquet``       the spine columns that were read, in order
``definition.json``     joins, options, group definitions, pinned table versions, resolved instants, fingerprints
``data.parquet``        the result; with a split ``data/<part>.parquet`` for each part, and ``parts.parquet`` saying the
                        part of each row
``certificate.json``    the leak certificate; ``certificate.txt`` is the same in words

The folder is written aside, fsynced and renamed; the catalogue entry comes last, so a dataset is there whole or not at
all. Version numbers count up per name and are never used again. ``<name>@v<N>`` is the id; the content hash says what
is in it.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from featurestore.datasets.building import Build, Groups, check_same_group
from featurestore.datasets.certificate import LeakCertificate
from featurestore.datasets.fingerprint import ContentHash, Fingerprint
from featurestore.datasets.folder import FORMAT, DatasetFolder, Written, read_bytes, schema_of
from featurestore.datasets.joins import Join
from featurestore.datasets.output import disk_errors
from featurestore.datasets.spine import Spine, parquet_rows
from featurestore.datasets.splits import Split
from featurestore.groups import FeatureGroup
from foundation.catalog import Entry
from foundation.errors import Conflict, InvalidInput, NotFound
from foundation.files import Files
from foundation.names import check_name
from foundation.operations import checked
from foundation.progress import Progress

__all__ = ["Recreated", "SavedDataset", "SavedDatasets"]

KIND = "saved dataset"
_WRITING = "dataset in the making"
_ROOT = "datasets"
_ASIDE = f"{_ROOT}/.aside"
_GIVEN_UP = 24 * 3600 * 1_000_000
"""A save that has not ended after this many microseconds is taken for dead."""


@dataclass(frozen=True)
class SavedDataset:
    """A dataset that was kept.

    Attributes:
        id: ``<name>@v<N>``.
        name, version: its parts.
        description: free text.
        rows: row count.
        content_hash: hash of its content; see ``fingerprint``.
        created_at: instant (microseconds, UTC).
        path: its folder, relative to the workspace's files.
        parts: rows of each part of the split, empty without one.
        table_versions: group to pinned table version.
        files: the files it is in.
    """

    id: str
    name: str
    version: int
    description: str
    rows: int
    content_hash: str
    created_at: int
    path: str
    parts: Mapping[str, int]
    table_versions: Mapping[str, int]
    files: Files = field(repr=False, compare=False)

    @cached_property
    def certificate(self) -> LeakCertificate:
        """The leak certificate, read from its file."""
        return LeakCertificate.from_dict(json.loads(read_bytes(self.files, f"{self.path}/certificate.json")))

    @cached_property
    def definition(self) -> dict[str, Any]:
        """The definition, read from its file: plain JSON."""
        found: dict[str, Any] = json.loads(read_bytes(self.files, f"{self.path}/definition.json"))
        return found

    @property
    def fingerprint(self) -> Fingerprint:
        """Content hash and that of every column."""
        return Fingerprint.from_document(self.definition["fingerprint"])


@dataclass(frozen=True)
class Recreated:
    """A saved dataset computed again and found equal.

    Attributes:
        saved: the dataset.
        table: the rows just computed; None when they were not kept.
        content_hash: hash of the rows just computed, equal to the saved one.
    """

    saved: SavedDataset
    table: pa.Table | None
    content_hash: str


class SavedDatasets:
    """Saves, lists, loads, recreates and deletes datasets.

    Args:
        groups: the store.
    """

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._files = groups.files
        self._catalog = groups.catalog

    # -- saving --------------------------------------------------------------------------------------------------------

    @checked
    def save(
        self,
        build: Build,
        name: str,
        description: str = "",
        *,
        slice_rows: int,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> SavedDataset:
        """Compute and keep; see ``DatasetBuilder.save``."""
        check_name("dataset", name)
        self.sweep()
        token = uuid.uuid4().hex
        pins = [[snapshot.group.number, snapshot.group.name, snapshot.version] for snapshot in build.snapshots]
        # Until the entry is there, this one holds the pinned versions against a vacuum.
        making = {"dataset": name, "pins": pins, "started_at": self._groups.now()}
        self._catalog.create(_WRITING, token, making)
        aside = f"{_ASIDE}/{token}"
        try:
            with disk_errors(f"dataset {name!r}"):
                writing = DatasetFolder(self._files, aside, build)
                evidence = build.evidence(cells=True)
                try:
                    for part in build.parts(slice_rows, evidence=evidence, progress=progress, cancel=cancel):
                        writing.add(*part)
                    certificate = build.certificate(evidence)
                    certificate.require()
                    written = writing.close(certificate)
                except BaseException:
                    writing.abort()
                    raise
                return self._publish(written, aside, name, description, pins)
        finally:
            if self._is_local:
                self._files.delete(aside)
            self._catalog.delete(_WRITING, token)

    def _publish(
        self, written: Written, aside: str, name: str, description: str, pins: list[list[Any]]
    ) -> SavedDataset:
        number = self._catalog.next_number(f"{KIND} {name}")
        path = aside
        if self._is_local:
            path = f"{_ROOT}/{name}/v{number}"
            self._files.filesystem.create_dir(f"{_ROOT}/{name}", recursive=True)
            self._files.filesystem.move(aside, path)
            self._files.sync([f"{path}/definition.json"])
        entry = self._catalog.create(
            KIND,
            f"{name}@v{number}",
            {
                "dataset": name,
                "version": number,
                "description": description,
                "rows": written.fingerprint.rows,
                "content_hash": written.fingerprint.content_hash,
                "path": path,
                "parts": written.parts,
                "pins": pins,
            },
        )
        return self._of(entry)

    @property
    def _is_local(self) -> bool:
        """Folders can be renamed; elsewhere nothing but the catalogue's entry makes a dataset visible."""
        return self._files.url.startswith("file:")

    # -- questions -----------------------------------------------------------------------------------------------------

    @checked
    def get(self, id: str) -> SavedDataset:
        """One dataset by id, or the latest version of a name.

        Raises:
            NotFound: no such dataset; a close one is suggested.
        """
        if "@" not in id:
            versions = self.list(id)
            if versions:
                return versions[-1]
        return self._of(self._catalog.get(KIND, id))

    @checked
    def list(self, name: str | None = None) -> list[SavedDataset]:
        """All datasets, or the versions of one name; by name, oldest version first."""
        filters = None if name is None else {"dataset": name}
        found = [self._of(entry) for entry in self._entries(KIND, filters)]
        return sorted(found, key=lambda saved: (saved.name, saved.version))

    @checked
    def load(self, id: str, part: str | None = None) -> pa.Table:
        """The kept rows, in spine order.

        Args:
            id: as for ``get``.
            part: one part of the split only.

        Raises:
            NotFound: no such dataset or part.
            InvalidInput: a file that is damaged.
        """
        saved = self.get(id)
        schema = schema_of(saved.definition["schema"])
        if part is not None:
            if part not in saved.parts:
                raise NotFound.of(f"part of {saved.id!r}:", part, saved.parts)
            return self._table(f"{saved.path}/data/{part}.parquet", schema)
        if not saved.parts:
            return self._table(f"{saved.path}/data.parquet", schema)
        tables = [self._table(f"{saved.path}/data/{name}.parquet", schema) for name in saved.parts]
        codes = self._table(f"{saved.path}/parts.parquet", None).column("part").to_numpy()
        place = np.empty(len(codes), np.int64)
        place[np.argsort(codes, kind="stable")] = np.arange(len(codes))
        return pa.concat_tables(tables).take(pa.array(place))

    @checked
    def pinned_versions(self, group: FeatureGroup | str) -> set[int]:
        """Versions of a group's offline table that saved datasets (and saves under way) need: vacuum must keep them."""
        number = (self._groups.group(group) if isinstance(group, str) else group).number
        now = self._groups.now()
        held = [entry.document for entry in self._entries(KIND)]
        held += [entry.document for entry in self._entries(_WRITING) if now - entry.document["started_at"] < _GIVEN_UP]
        return {pin[2] for document in held for pin in document["pins"] if pin[0] == number}

    # -- proof ---------------------------------------------------------------------------------------------------------

    @checked
    def recreate(
        self,
        id: str,
        *,
        keep: bool = True,
        slice_rows: int = 4_000_000,
        progress: Progress | None = None,
        cancel: threading.Event | None = None,
    ) -> Recreated:
        """Compute a dataset again from its spine, definitions and pinned versions, and compare the content hash.

        The kept result is not opened. Later records, compaction, schema versions and passing time change nothing.

        Args:
            id: as for ``get``.
            keep: return the rows; False to only compare, in bounded memory.
            slice_rows: spine rows joined at a time.
            progress: told about rows as they are joined.
            cancel: set it to stop.

        Raises:
            Conflict: the result differs (the first differing column is named), the spine file was changed, or a group
                is another one by now.
            NotFound: no such dataset, or a pinned version is gone.
        """
        saved = self.get(id)
        definition = saved.definition
        build = self._build_of(saved, definition)
        spine_hash, result_hash = ContentHash(build.spine.schema), ContentHash(build.schema)
        kept: list[pa.Table] = []
        for piece, part in build.parts(slice_rows, progress=progress, cancel=cancel):
            spine_hash.update(piece)
            result_hash.update(part)
            if keep:
                kept.append(part)
        spine, result = spine_hash.fingerprint(), result_hash.fingerprint()
        if spine != Fingerprint.from_document(definition["spine"]):
            raise Conflict(
                f"the spine kept with {saved.id!r} is not the one it was built from",
                subject=f"dataset {saved.id!r}",
                hint=f"restore {saved.path}/spine.parquet",
            )
        if result != saved.fingerprint:
            column = result.differing_column(saved.fingerprint)
            raise Conflict(
                f"{saved.id!r} computed again differs, first in column {column!r}",
                subject=f"dataset {saved.id!r}",
                hint=f"content hash {result.content_hash}, saved {saved.content_hash}; "
                f"it was built by version {definition['engine']}",
            )
        return Recreated(saved, pa.concat_tables(kept) if keep else None, result.content_hash)

    def _build_of(self, saved: SavedDataset, definition: Mapping[str, Any]) -> Build:
        if definition["format"] != FORMAT:
            raise Conflict(
                f"{saved.id!r} has format {definition['format']}, this build reads {FORMAT}",
                subject=f"dataset {saved.id!r}",
                hint="recreate it with the version that saved it",
            )
        joins = tuple(Join.from_document(each) for each in definition["joins"])
        snapshots = []
        for join, group, pinned in zip(joins, definition["groups"], definition["table_versions"], strict=True):
            check_same_group(join, self._groups.group(join.group))
            snapshot = self._groups.snapshot(join.group, pinned)
            snapshots.append(dataclasses.replace(snapshot, group=FeatureGroup.from_document(group)))
        path = f"{saved.path}/spine.parquet"
        schema, rows, read = parquet_rows(
            lambda: self._files.filesystem.open_input_file(path), path, schema_of(definition["spine_schema"])
        )
        zone, carried = definition["zone"], tuple(definition["carried"])
        return Build(
            spine=Spine(schema, rows, definition["event_time"], zone, carried, read),
            joins=joins,
            snapshots=tuple(snapshots),
            inclusive=definition["inclusive"],
            as_of=definition["as_of"],
            matured_by=definition["matured_by"],
            known_by=definition["known_by"],
            split=None if definition["split"] is None else Split.from_document(definition["split"]),
            built_at=definition["built_at"],
            threads=self._groups.threads,
        )

    # -- removal -------------------------------------------------------------------------------------------------------

    @checked
    def delete(self, id: str) -> None:
        """Remove one version: the entry first, then its files. Its pinned table versions are free again.

        Raises:
            NotFound: no such id (a name alone is not one).
        """
        saved = self._of(self._catalog.get(KIND, id))
        self._catalog.delete(KIND, id)
        self._files.delete(saved.path)

    @checked
    def sweep(self) -> Sequence[str]:
        """Remove what saves that died a day ago or more left behind; return the folders removed."""
        now = self._groups.now()
        # In this order a save that ends meanwhile is seen by its mark or by its entry.
        aside = self._folders(_ASIDE)
        published = [path for name in self._folders(_ROOT) if name != _ASIDE for path in self._folders(name)]
        alive = set()
        for entry in self._entries(_WRITING):
            if now - entry.document["started_at"] < _GIVEN_UP:
                alive.add(entry.name)
            else:
                self._catalog.delete(_WRITING, entry.name)
        kept = {entry.document["path"] for entry in self._entries(KIND)}
        gone = [path for path in aside if path.rpartition("/")[2] not in alive and path not in kept]
        if not alive:
            gone += [path for path in published if path not in kept]
        for path in gone:
            self._files.delete(path)
        return gone

    # -- inside --------------------------------------------------------------------------------------------------------

    def _folders(self, path: str) -> Sequence[str]:
        found = self._files.filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        return [info.path for info in found if info.type == pafs.FileType.Directory]

    def _entries(self, kind: str, filters: Mapping[str, object] | None = None) -> Iterator[Entry]:
        token: str | None = None
        while True:
            page = self._catalog.find(kind, filters=filters, limit=1000, token=token)
            yield from page.entries
            token = page.next_token
            if token is None:
                return

    def _of(self, entry: Entry) -> SavedDataset:
        document = entry.document
        return SavedDataset(
            id=entry.name,
            name=document["dataset"],
            version=document["version"],
            description=document["description"],
            rows=document["rows"],
            content_hash=document["content_hash"],
            created_at=entry.created_at,
            path=document["path"],
            parts=document["parts"],
            table_versions={name: table_version for _, name, table_version in document["pins"]},
            files=self._files,
        )

    def _table(self, path: str, schema: pa.Schema | None) -> pa.Table:
        try:
            with self._files.filesystem.open_input_file(path) as file:
                table = pq.ParquetFile(file).read()
        except (pa.ArrowException, OSError) as error:
            raise InvalidInput(
                f"{path} cannot be read: {error}", subject=f"file {path!r}", hint="recreate the dataset"
            ) from error
        return table if schema is None else table.cast(schema)
