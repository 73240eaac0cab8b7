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
from runyard.model.job import JobSpec, Step, Workspace
from runyard.model.requirements import Requirements
from runyard.providers.local.provider import LocalProvider
from runyard.providers.port import AttemptRequest, ProviderConfig
from runyard.testing.memory_context import MemoryContext

SMALL = Requirements(cpu_millis=100, memory_bytes=64 << 20)


class DirectSandbox:
    """A started local provider in a temporary folder, gone afterwards."""

    def __init__(self, options: Mapping[str, object] | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="runyard-bench-")
        self._folder = Path(self._temporary.name)
        self._folder.chmod(0o711)  # slot ids pass through to their own folders
        config = ProviderConfig(
            pool="bench", installation="bench", data_directory=self._folder / "pool", options=options or {}
        )
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

    async def workspace_phase(self, workspace: Workspace, slot: int = 0) -> tuple[float, float]:
        """When a job's workspace was begun, and when its step began (epoch seconds)."""
        key = AttemptKey(secrets.token_hex(UID_LENGTH // 2), 1)
        step = Step(name="step-1", command=("true",))
        spec = JobSpec(steps=(step,), workspace=workspace)  # with the cpu that a job has by default
        context = _Context(self._folder, key)
        outcome = await self._provider.run_job(
            AttemptRequest(key=key, job_id="bench", spec=spec, slot=slot, epoch=1), context
        )
        await self._provider.destroy_resource(key.resource_name)
        if outcome.exit_code != 0:
            raise RuntimeError(f"the measured job did not succeed: {outcome.reason}")
        return context.phases["workspace"], context.phases["running"]


class _Context(MemoryContext):
    """What the provider records stays here; what the step prints is where the log's readers look."""

    def __init__(self, folder: Path, key: AttemptKey) -> None:
        super().__init__(folder)
        self._key = key

    @property
    def log_directory(self) -> Path:
        return attempt_directory(self._folder / "logs", self._key.uid, self._key.number)

    @property
    def artifact_directory(self) -> Path:
        return attempt_directory(self._folder / "artifacts", self._key.uid, self._key.number)
