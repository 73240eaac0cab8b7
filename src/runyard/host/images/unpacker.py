"""The service's side of `unpack_process.py`: a few such processes, started on need, one layer in each at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runyard.host.images.layer_stream import LayerLimits, LayerRefused
from runyard.host.images.unpack import LayerFacts

_LINE_BYTES_MAX = 64 << 20  # of an answer: a layer may hide very many folders


class UnpackFailed(Exception):
    """It could not be unpacked now (the disk is full, the process was killed); the layer is not to blame."""


class Unpacker:
    """`processes` bounds how many layers are unpacked at once."""

    def __init__(self, *, processes: int | None = None, limits: LayerLimits | None = None) -> None:
        self._limits = limits or LayerLimits()
        self._gate = asyncio.Semaphore(processes or max(1, len(os.sched_getaffinity(0))))
        self._idle: list[asyncio.subprocess.Process] = []
        self._is_closed = False

    async def unpack(
        self,
        blob: Path,
        root: Path,
        *,
        diff_id: str,
        lowers: Sequence[tuple[Path, Sequence[str]]],
        report: Callable[[int], None] = lambda packed_bytes: None,
    ) -> LayerFacts:
        """Into the empty folder `root`; `lowers` are the layers beneath (root, opaque folders) from the top down.
        Raises LayerRefused, UnpackFailed; whatever is in `root` then is worth nothing."""
        request = {
            "blob": str(blob),
            "root": str(root),
            "lowers": [{"root": str(path), "opaque": list(opaque)} for path, opaque in lowers],
            "diff_id": diff_id,
            "limits": asdict(self._limits),
        }
        answer = await self._ask(request, report)
        if "refused" in answer:
            raise LayerRefused(answer["refused"])
        if "facts" not in answer:
            raise UnpackFailed(answer["error"])
        facts = answer["facts"]
        return LayerFacts(**{**facts, "opaque": tuple(facts["opaque"])})

    async def remove(self, path: Path) -> None:
        """A tree of an image, however deep. Missing is success. Raises UnpackFailed."""
        answer = await self._ask({"remove": str(path)}, lambda count: None)
        if "removed" not in answer:
            raise UnpackFailed(answer["error"])

    async def close(self) -> None:
        self._is_closed = True
        for process in self._idle:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._idle:
            await process.wait()
        self._idle.clear()

    async def _ask(self, request: dict[str, Any], report: Callable[[int], None]) -> dict[str, Any]:
        async with self._gate:
            process = self._idle.pop() if self._idle else await _start()
            try:
                answer = await _converse(process, request, report)
            except BaseException:
                await _kill(process)
                raise
            if process.returncode is not None or self._is_closed:
                await _kill(process)
            else:
                self._idle.append(process)
            return answer


async def _start() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        "runyard.host.images.unpack_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES_MAX,
        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        start_new_session=True,
    )


async def _converse(
    process: asyncio.subprocess.Process, request: dict[str, Any], report: Callable[[int], None]
) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        await process.stdin.drain()
    except ConnectionError:
        return {"error": "the process that unpacks layers was killed"}
    while line := await process.stdout.readline():
        answer: dict[str, Any] = json.loads(line)
        if "read" not in answer:
            return answer
        report(answer["read"])
    await process.wait()
    return {"error": "the process that unpacks layers was killed"}


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
