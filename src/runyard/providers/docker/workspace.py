"""What is put into an attempt's workspace, as a tar: the job's inline files, or what a local pool's own code fetched.

A repository, and files from an address, are fetched on the service's host by an embedded local provider: in its
sandbox, under its rules, from its mirrors. Its attempt has no step of the job's, only one that packs the workspace.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import tarfile
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runyard.host import attempt_directory as folders
from runyard.logs.layout import SETUP, STREAMS, stream_file
from runyard.model.errors import Conflict, RunyardError
from runyard.model.job import FileSource, JobSpec, Step
from runyard.model.outcome import Outcome, OutcomeKind, ReasonCode
from runyard.model.requirements import Requirements
from runyard.providers.docker.verdict import unseen
from runyard.providers.local import LocalProvider
from runyard.providers.port import AttemptRequest, LogSink, ProviderConfig, Records, RunContext

_PACKED = "workspace.tar"
_CHUNK_BYTES = 1 << 20
_BLOCK = 512
_MEMORY_BYTES = 2 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A tar that ends with its two empty blocks and no more, so that what follows it is read as what it is."""

    size: int = 0
    data: bytes = b""
    file: Path | None = None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        if self.data:
            yield self.data
        if self.file is not None:
            with await asyncio.to_thread(self.file.open, "rb") as file:
                left = self.size
                while left and (chunk := await asyncio.to_thread(file.read, min(left, _CHUNK_BYTES))):
                    left -= len(chunk)
                    yield chunk


class Workspaces:
    """Owns the embedded provider, which is started when the first job needs it."""

    def __init__(self, config: ProviderConfig, options: Mapping[str, object]) -> None:
        self._config = dataclasses.replace(
            config, data_directory=config.data_directory / "workspaces", options=options
        )
        self._local: LocalProvider | None = None
        self._starting = asyncio.Lock()

    async def close(self) -> None:
        if self._local is not None:
            await self._local.close()

    async def prepare(self, request: AttemptRequest, context: RunContext) -> Packed | Outcome:
        """Or how the attempt ended before it could begin. Raises Unreachable."""
        workspace = request.spec.workspace
        if workspace.git is None and all(file.url is None for file in workspace.files):
            data = pack_files(workspace.files) if workspace.files else b""
            return Packed(size=len(data), data=data)
        try:
            local = await self._started()
        except RunyardError as error:
            words = f"workspace: it cannot be fetched on the service's host: {error}"
            return unseen(OutcomeKind.FAILED, ReasonCode.WORKSPACE, words)
        return await self._fetch(local, request, context)

    async def destroy(self, name: str) -> None:
        if self._local is not None or (self._config.data_directory / "attempts" / name).exists():
            await (await self._started()).destroy_resource(name)

    async def _started(self) -> LocalProvider:
        async with self._starting:
            if self._local is None:
                local = LocalProvider(self._config)
                await local.start()
                self._local = local
            return self._local

    async def _fetch(
        self, local: LocalProvider, request: AttemptRequest, context: RunContext
    ) -> Packed | Outcome:
        directory = self._config.data_directory / "attempts" / request.key.resource_name
        quiet = _FetchContext(context, directory / "told")
        outcome = await local.run_job(_packing(request), quiet)
        await _copy_log(quiet.log_directory, context)
        if outcome.kind is not OutcomeKind.SUCCEEDED:
            reason = outcome.reason
            code = reason.code if reason is not None else ReasonCode.WORKSPACE
            if code in (ReasonCode.EXIT, ReasonCode.SIGNAL, ReasonCode.MEMORY):
                code = ReasonCode.WORKSPACE
            words = reason.message if reason is not None else "the workspace could not be made"
            return unseen(outcome.kind, code, words)
        file = directory / folders.TMP / _PACKED
        return Packed(size=(await asyncio.to_thread(file.stat)).st_size, file=file)


class _FetchContext:
    """The attempt's context for what fetches its workspace: its log is a folder of ours, its phases are few."""

    def __init__(self, context: RunContext, folder: Path) -> None:
        self._context = context
        self._folder = folder

    def may_create(self, within_s: float) -> bool:
        return self._context.may_create(within_s)

    @property
    def log_bytes_max(self) -> int:
        return self._context.log_bytes_max

    @property
    def log(self) -> LogSink:
        return self._context.log

    @property
    def records(self) -> Records:
        return self._context.records

    async def store_artifact(self, path: str, chunks: AsyncIterable[bytes]) -> None:
        raise NotImplementedError("nothing is collected from what fetches a workspace")

    async def record_progress(
        self,
        text: str | None,
        *,
        fraction: float | None = None,
        done_bytes: int | None = None,
        total_bytes: int | None = None,
    ) -> None:
        await self._context.record_progress(
            text, fraction=fraction, done_bytes=done_bytes, total_bytes=total_bytes
        )

    @property
    def log_directory(self) -> Path:
        return self._folder / "log"

    @property
    def artifact_directory(self) -> Path:
        return self._folder / "artifacts"

    async def record_phase(self, name: str, at: float) -> None:
        if name == "workspace":
            await self._context.record_phase(name, at)

    async def record_cache_use(self, cache: str, result: str, total: int) -> None:
        await self._context.record_cache_use(cache, result, total)

    async def record_outputs(self, outputs: Mapping[str, str]) -> None:
        pass

    async def record_placement(self, facts: Mapping[str, str]) -> None:
        pass


def _packing(request: AttemptRequest) -> AttemptRequest:
    """The same attempt with one step that packs what was fetched. No record padding after the tar's end (`-b 1`)."""
    step = Step(name="pack", command=("tar", "-b", "1", "-cf", f"/tmp/{_PACKED}", "-C", "/workspace", "."))
    spec = JobSpec(
        steps=(step,),
        queue=request.spec.queue,
        tenant=request.spec.tenant,
        workspace=request.spec.workspace,
        limits=request.spec.limits,
        requirements=Requirements(
            memory_bytes=_MEMORY_BYTES, disk_bytes=request.spec.requirements.disk_bytes
        ),
    )
    return dataclasses.replace(request, spec=spec, secrets=())


async def _copy_log(folder: Path, context: RunContext) -> None:
    """What was said while it was fetched, as one stream: the other of `setup` is for our own words."""
    said = b""
    for stream in STREAMS:
        file = stream_file(folder, SETUP, stream)
        if await asyncio.to_thread(file.exists):
            said += await asyncio.to_thread(file.read_bytes)
    if said:
        with contextlib.suppress(Conflict):
            await context.log.append(SETUP, "stdout", 0, said)


def pack_files(files: tuple[FileSource, ...]) -> bytes:
    """The job's own files, whoever unpacks it being their owner."""
    pieces: list[bytes] = []
    for file in files:
        data = base64.b64decode(file.content_base64)
        entry = tarfile.TarInfo(file.path)
        entry.size, entry.mode = len(data), 0o644
        pieces += [entry.tobuf(tarfile.GNU_FORMAT), data, b"\0" * (-len(data) % _BLOCK)]
    return b"".join((*pieces, b"\0" * (2 * _BLOCK)))
