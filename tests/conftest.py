"""Options and real servers every part of the suite may use."""

from __future__ import annotations

import pytest
import servers


def pytest_addoption(parser):
    parser.addoption(
        "--backend",
        action="append",
        choices=("embedded", "redis", "cluster"),
        help="run the online store's suite on this backend only; may be given several times",
    )


@pytest.fixture(scope="session")
def valkey():
    """One running Valkey server; take a namespace of your own."""
    with servers.required_parts(), servers.server() as one:
        yield one


@pytest.fixture(scope="session")
def valkey_cluster():
    """Three masters with a replica each; take a namespace of your own."""
    with servers.required_parts(), servers.cluster() as whole:
        yield whole
