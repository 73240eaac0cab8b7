"""The PostgreSQL of the tests: one cluster for each pytest process, started by the first test that wants it, ended with
the process."""

from __future__ import annotations

import atexit
from functools import cache
from pathlib import Path

import pytest

from runyard.testing.postgres_server import NO_SERVER, PostgresServer, find_binaries


def need_binaries() -> Path:
    binaries = find_binaries()
    if binaries is None:
        pytest.skip(NO_SERVER)
    return binaries


@cache
def _shared_server() -> PostgresServer:
    server = PostgresServer(need_binaries())
    atexit.register(server.remove)
    server.start()
    server.make_template()
    return server


def shared_server() -> PostgresServer:
    """This process's cluster; skips the test where there are no binaries."""
    need_binaries()
    return _shared_server()
