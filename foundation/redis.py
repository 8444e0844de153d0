"""The only importer of the Redis driver: one connection object for a single Redis or Valkey server and for a cluster.

Commands go out in batches: one write and one read per server, in the order given for each server. Everything sent
through here must be safe to repeat, because a batch whose connection broke is sent again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from foundation.errors import (
    AccessDenied,
    Conflict,
    InvalidInput,
    LimitExceeded,
    NotSupported,
    PlatformError,
    Unavailable,
)
from foundation.settings import shown_url

try:
    import redis as driver
    import redis.asyncio as async_driver
    from redis.asyncio.cluster import ClusterNode as AsyncNode
    from redis.backoff import NoBackoff
    from redis.cluster import ClusterNode
    from redis.crc import key_slot
    from redis.exceptions import (
        AskError,
        AuthenticationError,
        ClusterDownError,
        MovedError,
        NoPermissionError,
        NoScriptError,
        OutOfMemoryError,
        ReadOnlyError,
        RedisClusterException,
        RedisError,
        ResponseError,
        SlotNotCoveredError,
        TryAgainError,
    )
    from redis.retry import Retry
except ModuleNotFoundError as missing:  # pragma: no cover - the extra is installed where tests run
    raise NotSupported(
        f"the Redis driver is not installed: {missing}", subject="online store", hint="pip install 'tilth[redis]'"
    ) from missing

__all__ = ["Argument", "Command", "Connection", "Script", "connect"]

Argument = bytes | str | int
Command = tuple[Argument, ...]
Reply = Any
"""What a server answered: bytes, int, None or a list of these; an exception where error replies stand among them."""
_Client = Any
_Pool = Any
_Link = Any
_T = TypeVar("_T")

TIMEOUT: Final = 5.0
"""Seconds until a silent server counts as not answering."""
_PAUSES: Final = (0.0, 0.1, 0.4)
"""Seconds between attempts after a broken connection: long enough for a restart, short enough for a caller."""
_ELSEWHERE = (MovedError, TryAgainError, ClusterDownError, ReadOnlyError)
"""Cluster replies that mean: look at the topology again, then repeat."""
_REPEATED = (*_ELSEWHERE, SlotNotCoveredError, driver.ConnectionError, OSError)
_PIECE: Final = 1 << 15
"""Bytes written at a time: the server works on the first while the next are made."""


@dataclass(frozen=True)
class Script:
    """A Lua script, called by its digest."""

    source: str

    @cached_property
    def digest(self) -> str:
        """What the server knows it by."""
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()


class Connection:
    """A single server. Safe to use from several threads.

    Attributes:
        url: where it is, without the password.
        cluster: whether keys live on several servers, and one command may only name keys of one hash slot.
    """

    cluster = False

    def __init__(self, url: str, client: _Client, options: dict[str, Any]) -> None:
        self.url = url
        self._client = client
        self._options = options
        self._wire = _Wire(getattr(client, "connection_pool", None))
        self._concurrent: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Client] = weakref.WeakKeyDictionary()

    def ask(self, *command: Argument) -> Reply:
        """Send one command and return its reply; errors as for ``exchange``."""
        return self.exchange((command,))[0]

    def exchange(self, commands: Iterable[Command]) -> list[Reply]:
        """Send commands together and return their replies in order.

        The first argument after the command's name is its key; the key of ``EVAL`` and ``EVALSHA`` is the third.

        Raises:
            Unavailable: no answer in time, or the connection broke again and again; some commands may have run.
            LimitExceeded: the server is out of memory.
            AccessDenied: the credentials are wrong or not enough.
            Conflict: any other refusal of the server, in its own words.
        """
        replies = self._replies(commands)
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._translated(reply) from reply
        return replies

    def run(self, script: Script, calls: Iterable[tuple[Sequence[Argument], Sequence[Argument]]]) -> list[Reply]:
        """Run a script once per (keys, arguments), together; errors as for ``exchange``.

        A server that does not know the script (it was restarted, or has just become master) is sent its text. Calls
        that touch the same key must not stand in one batch: what is sent again would overtake what is not.
        """
        commands = _Kept(("EVALSHA", script.digest, len(keys), *keys, *rest) for keys, rest in calls)
        replies = self._replies(commands)
        unknown = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            again = self._replies([("EVAL", script.source, *commands.seen[place][2:]) for place in unknown])
            for place, reply in zip(unknown, again, strict=True):
                replies[place] = reply
        for reply in replies:
            if isinstance(reply, Exception):
                raise self._translated(reply) from reply
        return replies

    async def values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Await the values of string keys, in order, from the running event loop; errors as for ``exchange``."""
        loop = asyncio.get_running_loop()
        client = self._concurrent.get(loop)
        if client is None:
            client = self._concurrent[loop] = self._open_concurrent()
        try:
            async with asyncio.timeout(self._options["socket_timeout"]):
                for pause in _PAUSES:
                    try:
                        return await self._fetch(client, keys)
                    except (driver.ConnectionError, ConnectionError):
                        await asyncio.sleep(pause)
                return await self._fetch(client, keys)
        except (RedisError, OSError, TimeoutError) as error:
            raise self._translated(error) from error

    async def aclose(self) -> None:
        """Close what ``values`` opened in the running event loop."""
        client = self._concurrent.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def close(self) -> None:
        """Close every connection; event loops that have ended took theirs with them."""
        for loop, client in list(self._concurrent.items()):
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(client.aclose(), loop)
            elif not loop.is_closed():
                loop.run_until_complete(client.aclose())
        self._concurrent.clear()
        for wire in self._idle_wires():
            wire.forget()
        if self._client is not None:
            self._client.close()

    def facts(self) -> list[dict[str, str]]:
        """The ``INFO`` fields of every server."""
        return [_fields(self.ask("INFO"))]

    def _idle_wires(self) -> Iterable[_Wire]:
        return [self._wire]

    def _replies(self, commands: Iterable[Command]) -> list[Reply]:
        return _patiently(partial(self._wire.talk, _Kept(commands)), self._translated)

    def _open_concurrent(self) -> _Client:
        pool = self._client.connection_pool
        kind = _async_class(pool.connection_class)
        return async_driver.Redis.from_pool(
            async_driver.ConnectionPool(connection_class=kind, **_async_options(pool.connection_kwargs))
        )

    async def _fetch(self, client: _Client, keys: Sequence[bytes]) -> list[bytes | None]:
        replies: list[bytes | None] = await client.execute_command("MGET", *keys)
        return replies

    def _translated(self, error: Exception) -> PlatformError:
        where = f"redis at {self.url}"
        if isinstance(error, AuthenticationError | NoPermissionError) or "NOAUTH" in str(error):
            return AccessDenied(
                f"{where} refuses access: {error}", subject=where, hint="give user and password in the url"
            )
        if isinstance(error, OutOfMemoryError):
            return LimitExceeded(
                f"{where} is out of memory: {error}", subject=where, hint="raise maxmemory or drop groups"
            )
        if isinstance(error, ResponseError) and not isinstance(error, _ELSEWHERE) and "MISCONF" not in str(error):
            return Conflict(f"{where} refuses: {error}", subject=where)
        reason = str(error) or type(error).__name__
        return Unavailable(f"{where} does not answer: {reason}", subject=where, hint="start it, or correct its url")


class _Cluster(Connection):
    cluster = True

    def __init__(self, url: str, client: _Client, options: dict[str, Any]) -> None:
        super().__init__(url, client, options)
        self._wires: dict[str, _Wire] = {}

    def facts(self) -> list[dict[str, str]]:
        """The ``INFO`` fields of every server, replicas that answer included."""
        found = []
        for node in self._client.get_nodes():
            try:
                found.append(_fields(_patiently(partial(self._wire_to(node).talk, [("INFO",)]), self._translated)[0]))
            except Unavailable:
                if node.server_type != "replica":  # a cluster serves without one of its replicas
                    raise
        return found

    def _idle_wires(self) -> Iterable[_Wire]:
        return self._wires.values()

    def _replies(self, commands: Iterable[Command]) -> list[Reply]:
        todo = _Kept(commands)
        replies: list[Reply] = []
        left = self._round(enumerate(todo), replies)
        deadline = time.monotonic() + self._options["socket_timeout"]
        pause = 0.02
        while left:
            if time.monotonic() > deadline:
                raise self._translated(replies[left[0]]) from replies[left[0]]
            time.sleep(pause)
            pause = min(2 * pause, 0.3)
            self._look_again()
            left = self._round(((place, todo.seen[place]) for place in left), replies)
        return replies

    def _look_again(self) -> None:
        try:
            self._client.nodes_manager.initialize()
        except (RedisError, OSError):
            return  # nobody answers yet; the deadline of the caller decides

    def _round(self, commands: Iterable[tuple[int, Command]], replies: list[Reply]) -> list[int]:
        """Send commands, numbered by their place, to the servers that own their keys; return the places to repeat."""
        asked = self._talk(commands, replies)
        again = []
        for place, command in asked.items():
            reply = replies[place]
            if not isinstance(reply, Exception):
                continue
            if isinstance(reply, driver.TimeoutError | AuthenticationError):
                self._look_again()
                raise self._translated(reply) from reply
            if isinstance(reply, AskError) and not isinstance(reply, MovedError):
                replies[place] = self._follow(command)
            elif isinstance(reply, _REPEATED):
                again.append(place)
        return again

    def _talk(self, commands: Iterable[tuple[int, Command]], replies: list[Reply]) -> dict[int, Command]:
        """Write to all servers before reading from any, so that they work at the same time; return what was asked."""
        asked: dict[int, Command] = {}
        talks: dict[str, _Talk] = {}
        places: dict[str, list[int]] = {}
        try:
            for place, command in commands:
                replies.extend([None] * (place + 1 - len(replies)))
                asked[place] = command
                try:
                    node = self._client.get_node_from_key(_key_of(command))
                except SlotNotCoveredError as error:
                    replies[place] = error
                    continue
                if node.name not in talks:
                    talks[node.name] = _Talk(self._wire_to(node))
                    places[node.name] = []
                talks[node.name].send(command)
                places[node.name].append(place)
            for name, talk in talks.items():
                for place, reply in zip(places[name], talk.replies(), strict=True):
                    replies[place] = reply
        finally:
            for talk in talks.values():
                talk.end()
        return asked

    def _wire_to(self, node: ClusterNode) -> _Wire:
        pool = self._client.get_redis_connection(node).connection_pool
        wire = self._wires.get(node.name)
        if wire is None or wire.pool is not pool:
            if wire is not None:
                wire.forget()
            wire = self._wires[node.name] = _Wire(pool)
        return wire

    def _follow(self, command: Command) -> Reply:
        """A slot is on the move: let the driver ask where this key is by now."""
        try:
            return self._client.execute_command(*command)
        except (RedisError, OSError) as error:
            return error

    def _open_concurrent(self) -> _Client:
        nodes = [AsyncNode(node.host, node.port) for node in self._client.get_nodes()]
        return async_driver.RedisCluster(startup_nodes=nodes, **_async_options(self._options))

    async def _fetch(self, client: _Client, keys: Sequence[bytes]) -> list[bytes | None]:
        slots: dict[int, list[int]] = {}
        for place, key in enumerate(keys):
            slots.setdefault(key_slot(key), []).append(place)
        async with client.pipeline(transaction=False) as pipeline:
            for places in slots.values():
                pipeline.execute_command("MGET", *[keys[place] for place in places])
            replies = await pipeline.execute()
        found: list[bytes | None] = [None] * len(keys)
        for places, values in zip(slots.values(), replies, strict=True):
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found


def connect(url: str, *, timeout: float = TIMEOUT) -> Connection:
    """Connect to a server, or to the cluster it belongs to.

    Args:
        url: ``redis://[user:password@]host:port[/database]``, ``rediss://`` for TLS, ``unix://path``, or
            ``redis+cluster://host:port,host:port`` (``rediss+cluster://``) with any servers of a cluster. One server
            of a cluster given by a plain url is recognised. ``valkey`` may stand for ``redis``.
        timeout: seconds until a silent server counts as not answering.

    Raises:
        InvalidInput: an url of another form.
        Unavailable: nobody answers there.
        AccessDenied: the credentials are refused.
        Conflict: a server is set to evict keys when memory is short, or is a replica.
    """
    scheme = urlsplit(url).scheme.replace("valkey", "redis")
    options = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if scheme in ("redis+cluster", "rediss+cluster"):
        connection = _open_cluster(url, _cluster_nodes(url), {**options, **_credentials(url, scheme)})
    elif scheme in ("redis", "rediss", "unix"):
        connection = _open_single(scheme + url[url.index(":") :], options)
    else:
        raise InvalidInput(
            f"url {shown_url(url)!r} has no known form",
            subject="online store url",
            hint="use redis://host:port, rediss://, unix://path or redis+cluster://host:port,host:port",
        )
    try:
        for facts in connection.facts():
            _check(connection, facts)
    except BaseException:
        connection.close()
        raise
    return connection


def _open_single(url: str, options: dict[str, Any]) -> Connection:
    try:
        client = driver.Redis.from_url(url, **options)
    except ValueError as error:
        raise InvalidInput(f"url {shown_url(url)!r}: {error}", subject="online store url") from error
    given = client.connection_pool.connection_kwargs
    connection = Connection(shown_url(url), client, {**options, "socket_timeout": given["socket_timeout"]})
    try:
        if connection.facts()[0].get("cluster_enabled") != "1":
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    known = ("username", "password", "socket_timeout", "socket_connect_timeout")
    kept = {name: given[name] for name in known if given.get(name) is not None}
    secure = {"ssl": True} if url.startswith("rediss:") else {}
    node = _node(given.get("host", "localhost"), given.get("port", 6379))
    return _open_cluster(url, [node], {**options, **kept, **secure})


def _open_cluster(url: str, nodes: list[ClusterNode], options: dict[str, Any]) -> Connection:
    connection = _Cluster(shown_url(url), None, options)
    try:
        connection._client = driver.RedisCluster(startup_nodes=nodes, **options)
    except (RedisError, RedisClusterException, OSError) as error:
        raise connection._translated(error) from error
    return connection


def _cluster_nodes(url: str) -> list[ClusterNode]:
    hosts = urlsplit(url).netloc.rpartition("@")[2].split(",")
    try:
        return [_node(host.rpartition(":")[0], int(host.rpartition(":")[2])) for host in hosts]
    except ValueError as error:
        raise InvalidInput(
            f"url {shown_url(url)!r} has a server without a port",
            subject="online store url",
            hint="use redis+cluster://host:port,host:port",
        ) from error


def _node(host: str, port: int) -> ClusterNode:
    return ClusterNode(host, port)  # type: ignore[no-untyped-call]


def _credentials(url: str, scheme: str) -> dict[str, Any]:
    given, _, _ = urlsplit(url).netloc.rpartition("@")
    user, _, password = given.partition(":")
    named = {"username": unquote(user) or None, "password": unquote(password) or None}
    secure = {"ssl": True} if scheme.startswith("rediss") else {}
    return {name: value for name, value in named.items() if value} | secure


def _check(connection: Connection, facts: dict[str, str]) -> None:
    where = f"redis at {connection.url}"
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise Conflict(
            f"{where} has maxmemory-policy {policy!r}: it would silently drop records when memory is short",
            subject="maxmemory-policy",
            hint="set it with: CONFIG SET maxmemory-policy noeviction (and in the server's configuration file)",
        )
    if not connection.cluster and facts.get("role") == "slave":
        raise Conflict(f"{where} is a replica", subject=where, hint="give the url of its master")


def _fields(text: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def _key_of(command: Command) -> Argument:
    return command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]


class _Kept(Iterable[Command]):
    """Commands that may be made while they are sent, kept so that they can be sent again."""

    def __init__(self, commands: Iterable[Command]) -> None:
        self.seen: list[Command] = []
        self._rest = iter(commands)

    def __iter__(self) -> Iterator[Command]:
        yield from self.seen
        for command in self._rest:
            self.seen.append(command)
            yield command


class _Wire:
    """The links to one server that are not in use. The driver's pool asks the system about each link it lends."""

    def __init__(self, pool: _Pool) -> None:
        self.pool = pool
        self._idle: list[_Link] = []
        self._pid = os.getpid()

    def talk(self, commands: Iterable[Command]) -> list[Reply]:
        """Send commands, then read; error replies stand among the replies."""
        talk = _Talk(self)
        try:
            for command in commands:
                talk.send(command)
            replies = talk.replies()
        finally:
            talk.end()
        if talk.broken is not None:
            raise talk.broken
        return replies

    def take(self) -> _Link:
        if self._pid != os.getpid():  # a fork must not write into its parent's sockets
            self._idle, self._pid = [], os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            link = self.pool.make_connection()
            link.connect()
            return link

    def give(self, link: _Link) -> None:
        self._idle.append(link)

    def forget(self) -> None:
        """Drop every idle link: where one broke, the others did."""
        idle, self._idle = self._idle, []
        for link in idle:
            link.disconnect()


class _Talk:
    """One exchange over one link; remembers what broke instead of raising it."""

    def __init__(self, wire: _Wire) -> None:
        self.broken: Exception | None = None
        self._wire = wire
        self._count = 0
        self._size = 0
        self._pieces: list[bytes] = []
        self._link: _Link = None
        try:
            self._link = wire.take()
        except (RedisError, OSError) as error:
            self._break(error)

    def send(self, command: Command) -> None:
        """Send a command, soon."""
        self._count += 1
        if self.broken is None:
            for piece in self._link.pack_command(*command):
                self._pieces.append(piece)
                self._size += len(piece)
            if self._size > _PIECE:
                self._flush()

    def replies(self) -> list[Reply]:
        """Read a reply for every command; what broke stands in for all of them when the link broke."""
        self._flush()
        if self.broken is None:
            try:
                replies = [_reply(self._link) for _ in range(self._count)]
            except (RedisError, OSError) as error:
                self._break(error)
            else:
                self._wire.give(self._link)
                self._link = None
                return replies
        return [self.broken] * self._count

    def end(self) -> None:
        """Close the link unless it was given back: after an interruption half a reply may be on its way."""
        if self._link is not None:
            self._link.disconnect()
            self._link = None

    def _flush(self) -> None:
        if self.broken is None and self._pieces:
            try:
                self._link.send_packed_command([b"".join(self._pieces)])
            except (RedisError, OSError) as error:
                self._break(error)
            self._pieces, self._size = [], 0

    def _break(self, error: Exception) -> None:
        self.broken = error
        self.end()
        self._wire.forget()


def _reply(link: _Link) -> Reply:
    try:
        return link.read_response()
    except ResponseError as error:
        return error


def _patiently(talk: Callable[[], _T], translated: Callable[[Exception], PlatformError]) -> _T:
    """Talk, again after a broken link; a silent server is not asked twice."""
    for pause in _PAUSES:
        try:
            return talk()
        except AuthenticationError as error:
            raise translated(error) from error
        except (driver.ConnectionError, ConnectionError):
            time.sleep(pause)
        except (RedisError, OSError) as error:
            raise translated(error) from error
    try:
        return talk()
    except (RedisError, OSError) as error:
        raise translated(error) from error


def _async_class(kind: type) -> type:
    if issubclass(kind, driver.UnixDomainSocketConnection):
        return async_driver.UnixDomainSocketConnection
    return async_driver.SSLConnection if issubclass(kind, driver.SSLConnection) else async_driver.Connection


def _async_options(options: dict[str, Any]) -> dict[str, Any]:
    """What the sync and the asyncio driver both understand of how to connect."""
    known = ("host", "port", "path", "db", "username", "password", "socket_timeout", "socket_connect_timeout", "ssl")
    kept = {name: value for name, value in options.items() if name in known or name.startswith("ssl_")}
    return {**{name: value for name, value in kept.items() if value is not None}, "protocol": 2}
