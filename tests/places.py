"""A place with groups kept offline, rows written exactly as a test wants them: what datasets need of a store."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from featurestore.groups import define_group
from featurestore.offline import Change, offline_schema
from featurestore.offline.delta import DeltaStore
from foundation.catalog import open_catalog
from foundation.clock import Clock
from foundation.errors import NotFound
from foundation.files import Files
from foundation.files.local import LocalFiles
from foundation.schema import Schema

START = datetime(2024, 1, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    """Hours after the start."""
    return START + timedelta(hours=hours)


class Place:
    """Implements ``featurestore.datasets.building.Groups``; its clock stands still until a test moves it."""

    threads = 2

    def __init__(self, root: Path, moment: datetime | None = None, files: Files | None = None) -> None:
        self.moment = moment or at(10_000)
        ticks = itertools.count()
        self.clock = Clock(lambda: _micros(self.moment) + next(ticks))
        self.files = files or LocalFiles(root / "files")
        self.catalog = open_catalog(f"sqlite://{root}/catalog.db", clock=self.clock)
        self.offline = DeltaStore(self.files, clock=self.clock)
        self.groups = {}
        self._sequence = itertools.count(1)

    def create(self, name, record_id, columns, event_time="at", **options):
        """Make a group from (name, type text) pairs."""
        number = len(self.groups) + 1
        group = define_group(
            name, record_id=record_id, event_time=event_time, schema=Schema.of(columns), number=number, **options
        )
        group = group if group.folder else _with_folder(group, name)
        self.offline.create(group)
        self.groups[name] = group
        return group

    def evolve(self, name, columns):
        """Add features."""
        self.groups[name] = self.groups[name].with_features(Schema.of(columns), now=0)
        self.offline.evolve(self.groups[name])

    def write(self, name, rows):
        """Commit one run. A row maps columns to values; ``write`` (its event time without), ``known``, ``expires``,
        ``deleted``, ``hard``, ``replaces`` and ``sequence`` say the rest. Moments are datetimes."""
        group = self.groups[name]
        schema = offline_schema(group)
        lines = []
        for row in rows:
            event, sequence = row[group.event_time], row.get("sequence") or next(self._sequence)
            hard = row.get("hard", False)
            line = {each: row.get(each) for each in group.names}
            line |= {"api_invocation_time": row.get("write", event), "write_time": row.get("write", event)}
            line |= {"is_deleted": row.get("deleted", False) or hard, "tilth_hard": hard}
            line |= {"tilth_rank": sequence if row.get("replaces") else -sequence, "tilth_offline_only": False}
            line |= {"tilth_known_at": row.get("known"), "tilth_expires_at": row.get("expires")}
            lines.append(line)
        table = pa.table({f.name: pa.array([line[f.name] for line in lines], f.type) for f in schema}, schema=schema)
        run = self.offline.write_run(group, table, "log")
        return self.offline.commit(group, Change([run]), expected=0)

    def group(self, name):
        if name not in self.groups:
            raise NotFound.of("feature group", name, self.groups)
        return self.groups[name]

    def snapshot(self, name, version=None):
        return self.offline.snapshot(self.group(name), version)

    def commit_of(self, name, run):
        entries = self.offline.history(self.group(name))
        return next((entry.version for entry in entries if any(add.path == run for add in entry.added)), None)

    def now(self):
        return self.clock.now()

    def close(self):
        self.catalog.close()


def _micros(moment):
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _with_folder(group, name):
    return dataclasses.replace(group, folder=f"{name}-{group.number}")
