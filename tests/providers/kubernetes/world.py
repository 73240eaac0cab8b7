"""The provider's world over the strict server: its kubelet does what step.sh and the collecting container would do."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import io
import json
import tarfile
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from runyard.model.attempt import AttemptKey
from runyard.model.job import JobSpec, Limits
from runyard.providers.kubernetes import create_provider
from runyard.providers.kubernetes.checks import SAYS, WRITES
from runyard.providers.kubernetes.collecting import READ, RELEASE
from runyard.providers.kubernetes.layout import COLLECT, DONE, PREPARE, step_index
from runyard.providers.kubernetes.provider import KubernetesProvider
from runyard.providers.port import AttemptRequest, Provider, ProviderConfig
from runyard.testing.conformance import FarProviderWorld, TinyCommand
from runyard.testing.tiny_commands import EXIT_CODE, OUTPUT, SAID
from tests.kubernetes.strict_server import (
    ExecCall,
    ExecResult,
    Exit,
    Kind,
    LoopClock,
    Pause,
    Program,
    Say,
    StrictServer,
)
from tests.kubernetes.strict_server.resources import PODS

INSTALLATION = "conformance"
UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
"""anyio, cancelled between a socket and the stream that it makes of it, leaves the socket to the collector."""


def end(word: str, code: int) -> Exit:
    """As step.sh leaves it."""
    return Exit(code, message=json.dumps({"end": word}, separators=(",", ":")))


STOPPED = end("stopped", 143)
CHECK = Program((Say(f"{SAYS}\n".encode()), end("exit", 0)))
"""Of an attempt that no test asked for: the job of a pool's check."""


def play(command: TinyCommand, limits: Limits, timeout_s: float | None) -> Program:
    """What step.sh makes of the suite's commands."""
    match command:
        case TinyCommand.SUCCEED | TinyCommand.GIVE_OUTPUT:
            return Program((Say(SAID), end("exit", 0)))
        case TinyCommand.FAIL:
            return Program((Say(SAID), end("exit", EXIT_CODE)))
        case TinyCommand.WAIT:
            word, after_s = ("run_timeout", limits.run_s)
            if timeout_s is not None and timeout_s < after_s:
                word, after_s = "step_timeout", timeout_s
            return Program((Say(SAID), Pause(after_s), end(word, 124)), on_term=STOPPED)
        case TinyCommand.STUBBORN:
            return Program((Say(SAID),))


def bundle(artifacts: Mapping[str, bytes], outputs: Mapping[str, str], words: str = "") -> bytes:
    """As pod/collect.py writes it."""
    held = io.BytesIO()
    members = {f"artifacts/{path}": content for path, content in artifacts.items()}
    members |= {"outputs.json": json.dumps(dict(outputs)).encode(), "words.txt": words.encode(), "end": b""}
    with tarfile.open(fileobj=held, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return held.getvalue()


class PodPrograms:
    """By attempt: what its steps do and what it leaves. Counts the starts of first steps."""

    def __init__(self, server: StrictServer) -> None:
        self._server = server
        self.steps: dict[str, list[Program]] = {}
        self.left: dict[str, bytes] = {}
        self._started: dict[str, set[str]] = defaultdict(set)
        server.kubelet.programs = self._program
        server.kubelet.exec_handler = self._exec

    def _program(self, pod: dict[str, Any], container: dict[str, Any]) -> Program:
        name, index = job_of(pod), step_index(container["name"])
        if container["name"] == PREPARE:
            return Program((Exit(0),))
        if index is None:
            return Program(on_term=STOPPED)
        if index == 0:
            self._started[name].add(pod["metadata"]["uid"])
        return self.steps[name][index] if name in self.steps else CHECK

    def count_starts(self, name: str) -> int:
        return len(self._started[name])

    def _exec(self, call: ExecCall) -> ExecResult:
        if call.command == READ:
            left = self.left.get(job_of(call.pod)) or bundle({"artifact": WRITES.encode()}, {})
            return ExecResult(stdout=left)
        assert call.command == RELEASE, call.command
        assert call.command[-1].endswith(DONE)
        self._server.kubelet.end_container(call.pod["metadata"]["name"], COLLECT, end("exit", 0))
        return ExecResult()


def job_of(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["labels"]["job-name"])


class StrictWorld(FarProviderWorld):
    patience_s = 0.5

    def __init__(self, folder: Path, server: StrictServer) -> None:
        super().__init__(folder)
        self.server = server
        self.programs = PodPrograms(server)
        self.options: dict[str, Any] = {"image": "runyard:test"}
        self.token = ""
        self._providers: list[KubernetesProvider] = []

    async def start_provider(self) -> KubernetesProvider:
        kubeconfig = self.server.write_kubeconfig(self.folder / "kubeconfig", self.token)
        config = ProviderConfig(
            pool="k",
            installation=INSTALLATION,
            data_directory=self.folder,
            options={"kubeconfig": str(kubeconfig), **self.options},
        )
        provider = create_provider(config)
        self._providers.append(provider)
        await provider.start()
        return provider

    def request(
        self,
        tiny: TinyCommand = TinyCommand.SUCCEED,
        *,
        number: int = 1,
        limits: Limits | None = None,
        step_s: float | None = None,
    ) -> AttemptRequest:
        made = super().request(tiny, number=number, limits=limits, step_s=step_s)
        made = with_outputs(made, tiny)
        self.script(made, [play(tiny, made.spec.limits, step_s)])
        outputs = {"name": OUTPUT} if tiny is TinyCommand.GIVE_OUTPUT else {}
        self.programs.left[made.key.resource_name] = bundle({}, outputs)
        return made

    def script(self, request: AttemptRequest, steps: list[Program]) -> None:
        self.programs.steps[request.key.resource_name] = steps

    async def kill_place(self, key: AttemptKey) -> None:
        (pod,) = [one for one in self.server.objects("pods") if job_of(one) == key.resource_name]
        metadata = pod["metadata"]
        self.server.cluster.delete(PODS, metadata["namespace"], metadata["name"], {"gracePeriodSeconds": 0})

    def count_starts(self, key: AttemptKey) -> int:
        return self.programs.count_starts(key.resource_name)

    @contextlib.asynccontextmanager
    async def cut_off(self, provider: Provider) -> AsyncIterator[None]:
        cut = self.server.faults.plan(".", Kind.RESET, times=None)
        self.server.watches.cut()
        try:
            yield
        finally:
            cut.times = cut.hits

    async def lose_next_start_reply(self, provider: Provider) -> None:
        self.server.faults.plan("POST .*/jobs", Kind.DROP_REPLY)

    async def refuse_next_start(self, provider: Provider) -> None:
        raise NotImplementedError("a cluster refuses for want of quota, which is another word")

    async def close(self) -> None:
        for provider in self._providers:
            await provider.close()
        gc.collect()  # while UNCLOSED holds


def with_outputs(request: AttemptRequest, tiny: TinyCommand) -> AttemptRequest:
    """What leaves outputs names something to be collected: only then a pod has a container for it."""
    if tiny is not TinyCommand.GIVE_OUTPUT:
        return request
    spec: JobSpec = dataclasses.replace(request.spec, artifacts=("nothing",))
    return dataclasses.replace(request, spec=spec)


@contextlib.asynccontextmanager
async def strict_world(folder: Path, **features: Any) -> AsyncIterator[StrictWorld]:
    async with StrictServer(LoopClock(), **features) as server:
        world = StrictWorld(folder, server)
        yield world
        await world.close()
        await asyncio.sleep(0)
