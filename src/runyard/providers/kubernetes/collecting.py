"""Artifacts and outputs come home: one tar out of the pod's last container, each file kept whole or not at all.

What cannot be kept is left out and said in the log. A stream that was cut is read again from its beginning, for as long
as the container holds; every file is stored anew then, in its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import structlog

from runyard.model.errors import Invalid, ProviderError, Unreachable
from runyard.providers.kubernetes.client import KubernetesClient
from runyard.providers.kubernetes.exec_stream import ExecStream, running_exec
from runyard.providers.kubernetes.layout import BIN, COLLECT, DONE, RESULT
from runyard.providers.kubernetes.tar_stream import TarFile, TarStream
from runyard.providers.port import RunContext

READ = ("python3", "-m", "runyard.providers.kubernetes.pod", "read")
RELEASE = (f"{BIN}/busybox", "touch", f"{RESULT}/{DONE}")
# What the tar holds (pod/collect.py): END is last.
ARTIFACTS, OUTPUTS, WORDS, END = "artifacts/", "outputs.json", "words.txt", "end"
DOCUMENT_BYTES_MAX = 64 * 64 * 1024 * 6 + 1024
"""Of the outputs: as many and as long as host/collect.py lets them be, each byte escaped at worst."""

TRIES = 5
RETRY_S = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Collected:
    """`words` are for the job's log: what was left out, and why."""

    outputs: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)


class CollectFailed(Exception):
    """Nothing more can be had: the container is gone, or said no."""


async def collect(client: KubernetesClient, context: RunContext, *, pod: str) -> Collected:
    """Raises CollectFailed; Unreachable where what came cannot be kept here now."""
    for attempt in range(TRIES):
        try:
            async with running_exec(client, pod, COLLECT, READ) as stream:
                return await _store_all(stream, context)
        except _NotKept as error:
            raise error.cause from None
        except ProviderError as error:
            log.warning("kubernetes_collect_cut", pod=pod, attempt=attempt + 1, error=error.message)
            last = error.message
        await asyncio.sleep(RETRY_S * attempt)
    raise CollectFailed(last)


async def release(client: KubernetesClient, *, pod: str) -> None:
    """Tells the container that all it has is kept. Safe to repeat. Raises a ProviderError."""
    async with running_exec(client, pod, COLLECT, RELEASE) as stream:
        await stream.read(4096)


async def _store_all(stream: ExecStream, context: RunContext) -> Collected:
    collected, is_whole = Collected(), False
    async with contextlib.aclosing(stream.chunks()) as chunks:
        async for file in TarStream(chunks).files():
            if file.name.startswith(ARTIFACTS):
                await _store(file, context, collected)
            elif file.name == OUTPUTS:
                collected.outputs.update(_parse_outputs(await _content(file)))
            elif file.name == WORDS:
                collected.words.extend((await _content(file)).decode(errors="replace").splitlines())
            is_whole = file.name == END
        async for _ in chunks:  # to the exit code: padding, and then the word that all went well
            pass
    if not is_whole:
        raise Unreachable("the archive lacks its last member")
    return collected


async def _store(file: TarFile, context: RunContext, collected: Collected) -> None:
    path = file.name.removeprefix(ARTIFACTS)
    cut: list[ProviderError] = []

    async def told() -> AsyncIterator[bytes]:
        """The chunks; what cuts them off is remembered, to be told from what the store has to say."""
        try:
            async for chunk in file.chunks:
                yield chunk
        except ProviderError as error:
            cut.append(error)
            raise

    try:
        await context.store_artifact(path, told())
    except Invalid as error:
        collected.words.append(f"artifacts: {path[:200]}: {error.message}")
    except Unreachable as error:
        if cut:
            raise cut[0] from None
        raise _NotKept(error) from None


async def _content(file: TarFile) -> bytes:
    if file.size > DOCUMENT_BYTES_MAX:
        raise CollectFailed(f"{file.name} has {file.size} bytes, which is above its bound")
    return b"".join([chunk async for chunk in file.chunks])


def _parse_outputs(content: bytes) -> dict[str, str]:
    try:
        found = json.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CollectFailed(f"{OUTPUTS} is no table of texts")
    return {str(name): str(value) for name, value in found.items()}


class _NotKept(Exception):
    """Our own side failed: the place is to be asked again later, not to be read again now."""

    def __init__(self, cause: Unreachable) -> None:
        super().__init__(cause.message)
        self.cause = cause
