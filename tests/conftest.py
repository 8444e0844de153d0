"""Options and real servers every part of the suite may use."""

from __future__ import annotations

import pytest
import servers
from hypothesis import HealthCheck, settings

# Machines that run the suite are shared and slow at times; that is no failure of an example.
settings.register_profile("tilth", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tilth")


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
