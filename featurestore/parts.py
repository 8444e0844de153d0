"""The opened parts of a feature store, put together once: stores, log, appliers, loader, and the cache of groups."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TypeVar

from featurestore.administration import Groups
from featurestore.apply import Appliers
from featurestore.groups import FeatureGroup
from featurestore.loading.loads import Loader
from featurestore.loading.quarantine import Quarantine
from featurestore.offline import Snapshot
from featurestore.offline.delta import DeltaStore
from featurestore.online import OnlineStore
from featurestore.online.deferred import DeferredStore
from featurestore.online.embedded import DATABASES as STORE_DATABASES
from featurestore.online.embedded import EmbeddedStore
from featurestore.records import Stored
from featurestore.values import ValueCodec
from featurestore.verify import Verifier
from featurestore.writes import Append, Receipt, Stale
from featurestore.writes.embedded import DATABASES as LOG_DATABASES
from featurestore.writes.embedded import EmbeddedLog
from featurestore.writes.pending import PendingLoads
from foundation.clock import micros_of_delta
from foundation.errors import InvalidInput, NotSupported, Unavailable
from foundation.files import Files
from foundation.lmdb import Environment, Usage
from foundation.workspace import Workspace

__all__ = ["Parts", "View"]

_BACKENDS = {"redis": "featurestore.online.redis", "rediss": "featurestore.online.redis"}
_TRIES = 40
_PAUSE = 0.025
_DOUBT = 1.0

Result = TypeVar("Result")


@dataclass(frozen=True)
class View:
    """A group as read at one catalogue generation."""

    group: FeatureGroup
    codec: ValueCodec
    generation: int


class Parts:
    """Everything a FeatureStore works with. One per opened store; threads share it.

    Args:
        workspace: opened workspace; its settings choose the online backend.
    """

    def __init__(self, workspace: Workspace) -> None:
        settings = workspace.settings
        databases = tuple(dict.fromkeys((*STORE_DATABASES, *LOG_DATABASES)))
        self.workspace = workspace
        self.threads = settings.threads or os.cpu_count() or 1
        self.clock = workspace.clock
        self.catalog = workspace.catalog
        self.groups = Groups(workspace.catalog, clock=workspace.clock, actor=workspace.actor)
        self._environment = Environment.share(workspace.root / "log", databases=databases, map_size=settings.map_size)
        self.online = self._open_online(settings.online)
        self._embedded = self.online if isinstance(self.online, EmbeddedStore) else None
        self.log = EmbeddedLog(self._environment, self.clock, store=self._embedded)
        self.offline = DeltaStore(workspace.files, clock=workspace.clock)
        self.pending = PendingLoads(self._environment)
        self.quarantine = Quarantine(workspace.files)
        locks = workspace.root / "locks"
        self.appliers = Appliers(self.log, self.online, self.offline, locks)
        self.loader = Loader(
            self.log,
            self.online,
            self.offline,
            self.pending,
            self.quarantine,
            clock=self.clock,
            locks=locks,
            future_bound=settings.future_bound,
            threads=self.threads,
            settled=self.appliers.settle_load,
        )
        self.future_bound = micros_of_delta(settings.future_bound)
        self._views: dict[str, View] = {}
        self._unflushed: dict[int, int] = {}
        self._doubted: dict[int, float] = {}
        self.catalog.on_change = self.log.mirror

    def _open_online(self, url: str) -> OnlineStore:
        if url.startswith("embedded:"):
            return EmbeddedStore(self._environment)
        scheme = url.partition(":")[0].partition("+")[0]
        if scheme not in _BACKENDS:
            raise InvalidInput(
                f"online URL {url!r} has an unknown scheme",
                subject="setting online",
                hint="use embedded:, redis://host:port/0 or redis+cluster://host:port",
            )
        return DeferredStore(lambda: import_module(_BACKENDS[scheme]).RedisStore(url, self.workspace.id))

    # -- groups -----------------------------------------------------------------------------------------------------

    def view(self, name: str) -> View:
        """The group as it stands, from the cache while the catalogue has not moved.

        Raises:
            NotFound: no such group; a close name is suggested.
        """
        view = self._views.get(name)
        if view is not None and view.generation >= self.log.generation:
            return view
        generation = self.catalog.generation()
        group = self.groups.get(name)
        if view is not None and view.group == group:
            view = View(view.group, view.codec, generation)
        else:
            self._ensure_table(group)
            view = View(group, ValueCodec(group), generation)
        self._views[name] = view
        return view

    def glance(self, name: str, key: object) -> tuple[View, Stored | None]:
        """The group and what is held online for a key; on LMDB one transaction tells both.

        Raises:
            NotFound: no such group.
            InvalidInput: the key does not fit.
            NotSupported: the group has no online store.
        """
        view = self._views.get(name)
        if self._embedded is not None and view is not None and view.group.online:
            generation, held = self._embedded.glance(view.group, view.codec.key(key))
            if view.generation >= generation:
                return view, held
        view = self.online_view(name)
        held = self.online.get_many(view.group, (view.codec.key(key),))[0]
        if held is None:
            self.doubt(view)
        return view, held

    def doubt(self, view: View) -> None:
        """A record is missing: make sure that the online store has not lost its memory; asked once a second at most.

        Raises:
            Unavailable: it has.
        """
        now = time.monotonic()
        if now - self._doubted.get(view.group.number, 0.0) > _DOUBT:
            self.appliers.check_online(view.group)
            self._doubted[view.group.number] = now

    def online_view(self, name: str) -> View:
        """The group, refused when it is not kept online."""
        view = self.view(name)
        if not view.group.online:
            raise NotSupported(
                f"group {name!r} has no online store",
                subject=f"feature group {name!r}",
                hint="create the group with online=True, or read its history",
            )
        return view

    def offline_view(self, name: str) -> View:
        """The group, refused when it is not kept offline."""
        view = self.view(name)
        if not view.group.offline:
            raise NotSupported(
                f"group {name!r} has no offline store, so no history",
                subject=f"feature group {name!r}",
                hint="create the group with offline=True",
            )
        return view

    def _ensure_table(self, group: FeatureGroup) -> None:
        """Make or widen the offline table where whoever changed the catalogue was cut off before."""
        if group.offline:
            if not self.workspace.files.exists(f"{self.offline.folder(group)}/_delta_log"):
                self.offline.create(group)
            if group.version > 1:
                self.offline.evolve(group)

    def forget(self, name: str) -> None:
        """Drop a group from the cache."""
        self._views.pop(name, None)

    def current(self, name: str, act: Callable[[View], Result]) -> Result:
        """Do something that fails with ``Stale`` when the group moved meanwhile, reading it again and retrying."""
        for attempt in range(_TRIES):
            try:
                return act(self.view(name))
            except Stale:
                time.sleep(_PAUSE if attempt else 0)
        # A catalogue writer died between announcing a change and making it: any change sets the mirror right.
        self.catalog.create("workspace", "generation", {}, actor=self.workspace.actor, note="mirror set right")
        self.catalog.delete("workspace", "generation", actor=self.workspace.actor, note="mirror set right")
        return act(self.view(name))

    # -- what datasets need of a store (``building.Groups``) ---------------------------------------------------------

    @property
    def files(self) -> Files:
        """Where saved datasets are kept."""
        return self.workspace.files

    def group(self, name: str) -> FeatureGroup:
        """A group as it stands."""
        return self.view(name).group

    def snapshot(self, name: str, version: int | None = None) -> Snapshot:
        """A group's offline table: a given version, or the latest with everything acknowledged flushed into it.

        Raises:
            NotFound: no such group or version.
            NotSupported: the group is not kept offline.
        """
        view = self.offline_view(name)
        if version is None:
            self.settle(view, online=False)
        return self.offline.snapshot(view.group, version)

    def commit_of(self, name: str, run: str) -> int | None:
        """Version of a group's offline table whose commit added a file."""
        for entry in self.offline.history(self.group(name)):
            if any(added.path == run for added in entry.added):
                return entry.version
        return None

    def now(self) -> int:
        """The present instant."""
        return self.clock.now()

    # -- writes -----------------------------------------------------------------------------------------------------

    def append(self, batch: Append, *, wait: str) -> Receipt:
        """Log a batch; with ``wait="online"`` it is readable online when this returns.

        A write the log has taken is never answered with an error: when the online store is away, the receipt says so
        and the row follows with the next write or flush.
        """
        receipt = self.log.append(batch)
        if wait == "online":
            try:
                self.appliers.catch_up(batch.group, receipt.position)
            except Unavailable:
                receipt = replace(receipt, readable=False)
        number = batch.group.number
        self._unflushed[number] = self._unflushed.get(number, 0) + receipt.count
        if self._unflushed[number] >= self.workspace.settings.flush_rows:
            self.settle(self.view(batch.group.name), online=receipt.readable)
        return receipt

    def settle(self, view: View, *, online: bool = True) -> int:
        """Bring the stores of a group up to everything acknowledged so far; return rows committed offline.

        Args:
            view: the group.
            online: False to leave the online store alone, which may be away.
        """
        self._unflushed[view.group.number] = 0
        if online:
            self.loader.recover(view.group, view.codec)
        return self.appliers.flush(view.group, view.codec, online=online)

    def verifier(self, view: View) -> Verifier:
        """The checker of a group."""
        return Verifier(
            self.log,
            self.online,
            self.offline,
            view.codec,
            settle=lambda online: self.settle(view, online=online),
            now=self.clock.now,
        )

    def usage(self) -> Usage:
        """How full the embedded environment is."""
        return self._environment.usage()

    def close(self) -> None:
        """Release connections, the log and the workspace."""
        self.online.close()
        self._environment.release()
        self.workspace.close()
