"""The sandbox started directly: the local provider by itself, with no service, ledger or HTTP around it."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from runyard.host.sandbox_bench import SandboxBench
from runyard.logs.files import FileLogStore
from runyard.logs.layout import attempt_directory
from runyard.logs.port import Chunk
from runyard.model.attempt import UID_LENGTH, AttemptKey
from runyard.model.job import JobSpec, Step
from runyard.model.requirements import Requirements
from runyard.providers.local.provider import LocalProvider
from runyard.providers.port import AttemptRequest, ProviderConfig

SMALL = Requirements(cpu_millis=100, memory_bytes=64 << 20)


class DirectSandbox:
    """A started local provider in a temporary folder, gone afterwards."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="runyard-bench-")
        self._folder = Path(self._temporary.name)
        self._folder.chmod(0o711)  # slot ids pass through to their own folders
        config = ProviderConfig(pool="bench", installation="bench", data_directory=self._folder / "pool")
        self._provider = LocalProvider(config)
        self._logs = FileLogStore(self._folder / "logs")
        self.bench: SandboxBench

    async def __aenter__(self) -> DirectSandbox:
        await self._provider.start()
        self.bench = self._provider.bench()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bench.close()
        self._logs.close()
        await self._provider.close()
        self._temporary.cleanup()

    @property
    def folder(self) -> Path:
        """Scratch space on the disk of the attempts."""
        return self._folder

    async def run(self, spec: JobSpec) -> Mapping[str, float]:
        """Runs one attempt to its end. Returns when each phase began, epoch seconds."""
        key = AttemptKey(secrets.token_hex(UID_LENGTH // 2), 1)
        request = AttemptRequest(key=key, job_id="bench", spec=spec, slot=0, epoch=1)
        context = _Context(self._folder, key)
        await self._provider.run_job(request, context)
        await self._provider.destroy_resource(key.resource_name)
        return context.phases

    async def first_byte_s(self) -> float:
        """From the request to the first byte that the command prints, read from the log as a follower reads it."""
        key = AttemptKey(secrets.token_hex(UID_LENGTH // 2), 1)
        spec = JobSpec(steps=(Step(name="step-1", command=("echo", "x")),), requirements=SMALL)
        request = AttemptRequest(key=key, job_id="bench", spec=spec, slot=0, epoch=1)
        context = _Context(self._folder, key)
        began = time.perf_counter()
        running = asyncio.create_task(self._provider.run_job(request, context))
        elapsed = None
        async for item in self._logs.follow(key, {}, asyncio.Event()):
            if isinstance(item, Chunk):
                elapsed = time.perf_counter() - began
                break
        await running
        await self._provider.destroy_resource(key.resource_name)
        assert elapsed is not None
        return elapsed


class _Context:
    """A RunContext that keeps the phases and nothing else."""

    def __init__(self, folder: Path, key: AttemptKey) -> None:
        self.log_directory = attempt_directory(folder / "logs", key.uid, key.number)
        self.artifact_directory = attempt_directory(folder / "artifacts", key.uid, key.number)
        self.log_bytes_max = 1 << 20
        self.phases: dict[str, float] = {}

    def may_create(self, within_s: float) -> bool:
        return True

    async def record_phase(self, name: str, at: float) -> None:
        self.phases.setdefault(name, at)

    async def record_outputs(self, outputs: Mapping[str, str]) -> None:
        return None
