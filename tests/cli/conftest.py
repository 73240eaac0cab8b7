"""The command line, in this process or as one of its own, against the real API."""

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from runyard.cli import run_command
from runyard.sdk import Client
from tests.sdk.served import TOKEN, Served


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served"))
    yield served
    served.close()


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url, TOKEN) as client:
        yield client


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def runyard(monkeypatch, capfd, request):
    """Calls a command in this process. With the `served` fixture it talks to that service."""
    monkeypatch.setenv("NO_COLOR", "1")
    if "served" in request.fixturenames:
        for name, value in request.getfixturevalue("served").environ.items():
            monkeypatch.setenv(name, value)

    def call(*arguments: str) -> Said:
        capfd.readouterr()
        code = run_command(list(arguments))
        return Said(code, *capfd.readouterr())

    return call


@pytest.fixture
def start(served):
    """Starts `runyard …` as a process of its own; what still runs at the end is killed."""
    started = []

    def begin(*arguments: str, **options) -> subprocess.Popen:
        environ = {**os.environ, **served.environ, **options.pop("env", {})}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        command = [sys.executable, "-m", "runyard", *arguments]
        process = subprocess.Popen(command, env=environ, **{**pipes, **options})
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
