"""The place itself: one process that makes, runs and forgets attempts, asked over a socket. It outlives every service.

    python -m runyard.testing.far.server SOCKET

One JSON line for each call, one for each answer. A create collides by name: what is there is never started again. It
remembers how often each name was started, and each call with who made it and when (CLOCK_BOOTTIME).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LINE_BYTES_MAX = 1 << 20
PIECE_BYTES = 32 << 10


@dataclass(slots=True)
class _Place:
    created_at: float
    outputs: Path | None = None
    started_at: float | None = None
    process: asyncio.subprocess.Process | None = None
    is_stopped: bool = False
    result: dict[str, Any] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self, result: dict[str, Any]) -> None:
        if self.result is None:
            self.result = result
            self.ended.set()

    def kill(self, how: signal.Signals) -> None:
        if self.process is not None and self.result is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, how)


class Places:
    """`faults` are misdeeds of the next creates, in a test's hand: `refuse`, or `lose_reply`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._faults: deque[str] = deque()
        self._places: dict[str, _Place] = {}
        self._starts: Counter[str] = Counter()
        self._calls: list[tuple[str, str, int, float]] = []
        self._watching: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One caller, for as long as it asks."""
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while line := await reader.readline():
                answer = await self._answer(json.loads(line))
                if answer.pop("is_lost", False):
                    break
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, call: dict[str, Any]) -> dict[str, Any]:
        verb, name = call["verb"], call.get("name", "")
        if verb in ("create", "stop", "destroy"):
            self._calls.append((verb, name, call["caller"], time.clock_gettime(time.CLOCK_BOOTTIME)))
        match verb:
            case "create":
                return await self._create_unless_refused(name, call)
            case "look":
                place = self._places.get(name)
                return {"is_there": place is not None, "started_at": place and place.started_at}
            case "wait":
                return await self._wait(name)
            case "read":
                return {"printed": self._read(name, call["offset"])}
            case "stop":
                return self._stop(name, call["grace_s"])
            case "destroy":
                return self._destroy(name)
            case "list":
                return {"places": [self._row(name) for name in self._places]}
            case "kill":
                return self._kill(name)
            case "fault":
                self._faults.append(call["fault"])
                return {}
            case "history":
                return {"starts": self._starts, "calls": self._calls}
            case _:
                return {"error": f"no verb {verb!r}"}

    async def _create_unless_refused(self, name: str, call: dict[str, Any]) -> dict[str, Any]:
        fault = self._faults.popleft() if self._faults else ""
        if fault == "refuse":
            return {"refused": "no place to be had"}
        return {**await self._create(name, call), "is_lost": fault == "lose_reply"}

    async def _create(self, name: str, call: dict[str, Any]) -> dict[str, Any]:
        """`ends_s`: after how many seconds it is ended, by the word for why."""
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = _Place(created_at=time.time(), outputs=self._folder / name)
            await self._start(name, place, call["command"])
            for why, after_s in call["ends_s"].items():
                asyncio.get_running_loop().call_later(after_s, _time_out, place, why)
        return {"started_at": place.started_at}

    async def _start(self, name: str, place: _Place, command: list[str]) -> None:
        assert place.outputs is not None
        place.outputs.mkdir()
        place.started_at = time.time()
        self._starts[name] += 1
        with self._printed(name).open("wb") as printed:
            place.process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=printed,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, "RUNYARD_OUTPUTS": str(place.outputs)},
            )
        watching = asyncio.create_task(_watch(place, place.process))
        self._watching.add(watching)
        watching.add_done_callback(self._watching.discard)

    async def _wait(self, name: str) -> dict[str, Any]:
        place = self._places.get(name)
        if place is None:
            return {"missing": True}
        await place.ended.wait()
        assert place.result is not None
        outputs = place.outputs.iterdir() if place.outputs is not None and place.outputs.exists() else ()
        return {**place.result, "outputs": {file.name: file.read_text() for file in outputs}}

    def _printed(self, name: str) -> Path:
        return self._folder / f"{name}.stdout"

    def _read(self, name: str, offset: int) -> str:
        """A piece of what it printed, in base64; empty at the end."""
        try:
            with self._printed(name).open("rb") as printed:
                printed.seek(offset)
                return base64.b64encode(printed.read(PIECE_BYTES)).decode()
        except FileNotFoundError:
            return ""

    def _stop(self, name: str, grace_s: float) -> dict[str, Any]:
        place = self._places.setdefault(name, _Place(created_at=time.time()))
        place.is_stopped = True
        if place.process is None:
            place.end({"canceled": True, "was_started": False})
        place.kill(signal.SIGTERM)
        asyncio.get_running_loop().call_later(grace_s, place.kill, signal.SIGKILL)
        return {}

    def _destroy(self, name: str) -> dict[str, Any]:
        place = self._places.pop(name, None)
        if place is not None:
            place.kill(signal.SIGKILL)
            place.end({"missing": True})
            if place.outputs is not None:
                shutil.rmtree(place.outputs, ignore_errors=True)
        return {}

    def _kill(self, name: str) -> dict[str, Any]:
        """As a machine dies: its attempt never ends."""
        place = self._places[name]
        place.kill(signal.SIGKILL)
        place.end({"missing": True})
        return {}

    def _row(self, name: str) -> dict[str, Any]:
        place = self._places[name]
        return {"name": name, "created_at": place.created_at, "is_running": place.result is None}

    def end_all(self) -> None:
        for place in self._places.values():
            place.kill(signal.SIGKILL)


async def _watch(place: _Place, process: asyncio.subprocess.Process) -> None:
    status = await process.wait()
    place.end({"canceled": True} if place.is_stopped else {"exit": status})


def _time_out(place: _Place, why: str) -> None:
    place.kill(signal.SIGKILL)
    place.end({"timed_out": why})


async def _main(path: str) -> None:
    folder = Path(path).with_suffix(".outputs")
    folder.mkdir()
    places = Places(folder)
    server = await asyncio.start_unix_server(places.serve, path, limit=LINE_BYTES_MAX)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    places.end_all()
    server.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
