"""Reads a container's log into the attempt's (each step's bytes at their offsets) and its story (what step.sh says).

Reading again from the beginning changes nothing, so who adopts an attempt, or whose connection broke, reads again.
"""

from __future__ import annotations

import base64
import binascii
import contextlib

from runyard.logs.layout import SETUP, STREAMS, step_key
from runyard.model.errors import Conflict
from runyard.model.job import JobSpec
from runyard.providers.docker.client import DockerClient, Frame
from runyard.providers.docker.markers import Printed, Said, StreamSplitter, mend_line, split_time
from runyard.providers.docker.names import marker_word
from runyard.providers.docker.plan import OUTPUT_BYTES_MAX
from runyard.providers.docker.verdict import StepEnd, Story
from runyard.providers.port import RunContext

_HEAD_SHARE = 0.75


class AttemptLog:
    """What is kept of an attempt's log: its head as it comes, and of what is beyond the bound each stream's tail, which
    is stored when the step ends; the middle is a gap."""

    def __init__(self, context: RunContext, *, bytes_max: int | None = None) -> None:
        """`bytes_max`: of a part with a bound of its own."""
        bytes_max = context.log_bytes_max if bytes_max is None else bytes_max
        self._context = context
        self._head_left = int(bytes_max * _HEAD_SHARE)
        self.tail_max = int(bytes_max * (1 - _HEAD_SHARE) / len(STREAMS))
        self._offsets: dict[tuple[str, str], int] = {}
        self._stored: dict[tuple[str, str], int] = {}
        self._tails: dict[tuple[str, str], bytes] = {}
        self._closed: set[tuple[str, str]] = set()
        self._said = 0

    async def write(self, step: str, stream: str, data: bytes) -> None:
        key = step, stream
        offset = self._offsets.get(key, 0)
        self._offsets[key] = offset + len(data)
        if key in self._tails:
            self._tails[key] = (self._tails[key] + data)[-self.tail_max :]
            return
        head = data[: self._head_left]
        self._head_left -= len(head)
        if head:
            await self._store(key, offset, head)
        if len(head) < len(data):
            self._tails[key] = data[len(head) :][-self.tail_max :]

    async def write_cut(self, step: str, stream: str, data: bytes) -> None:
        """The end of a stream whose beginning is gone: beyond whatever of it may be stored, at the same place for
        whoever reads it again."""
        await self._append((step, stream), self._context.log_bytes_max, data[-self.tail_max :])

    async def end_step(self, step: str, stream: str) -> None:
        tail = self._tails.pop((step, stream), None)
        if tail:
            await self._append((step, stream), self._offsets[step, stream] - len(tail), tail)

    async def say(self, words: str) -> None:
        """A word of Runyard's own; the same at the same place for whoever adopts it."""
        data = f"runyard: {words}\n".encode(errors="replace")
        await self._append((SETUP, "stderr"), self._said, data)
        self._said += len(data)

    async def _store(self, key: tuple[str, str], offset: int, data: bytes) -> None:
        if key not in self._stored:
            self._stored[key] = await self._context.log.size(*key)
        known = max(0, self._stored[key] - offset)
        if known < len(data):  # from exactly where it stops: what is masked there does not look like this
            await self._append(key, offset + known, data[known:])

    async def _append(self, key: tuple[str, str], offset: int, data: bytes) -> None:
        """What stands there already stays: a second reading may know less (the daemon rotates), never better."""
        if key in self._closed:
            return
        try:
            await self._context.log.append(*key, offset, data)
        except Conflict:
            self._closed.add(key)


class ContainerReader:
    """One reading of one container's log, from its beginning. `words` are ours, for when all is read."""

    def __init__(
        self,
        spec: JobSpec,
        context: RunContext,
        *,
        attempt: str,
        story: Story,
        log: AttemptLog,
        outputs: dict[str, str],
        mends_lines: bool,
    ) -> None:
        self._spec = spec
        self._context = context
        self._story = story
        self._log = log
        self._outputs = outputs
        self._mends_lines = mends_lines
        self.words: list[str] = []
        self._splitters = {
            stream: StreamSplitter(marker_word(attempt), cut_bytes_max=log.tail_max) for stream in STREAMS
        }

    async def read(self, client: DockerClient, container: str) -> None:
        """Returns when the container has ended, or the connection has."""
        async with contextlib.aclosing(client.follow_log(container)) as pieces:
            async for frames in pieces:
                for stream, at, data in joined(frames, mends_lines=self._mends_lines):
                    for item in self._splitters[stream].feed(data, at):
                        await self._take(stream, item)
        for stream, splitter in self._splitters.items():
            for item in splitter.close():
                await self._take(stream, item)

    async def _take(self, stream: str, item: Printed | Said) -> None:
        match item:
            case Printed(step, data, is_cut=True):
                await self._log.write_cut(step_key(step), stream, data)
            case Printed(step, data):
                await self._log.write(step_key(step), stream, data)
            case Said(words, at):
                with contextlib.suppress(
                    ValueError, IndexError, binascii.Error
                ):  # the job may write markers too
                    await self._hear(stream, words, at)

    async def _hear(self, stream: str, words: tuple[str, ...], at: float) -> None:
        match words[0]:
            case "begin" if stream == "stdout":
                await self._begin(int(words[1]), at)
            case "end":
                index = int(words[1])
                if stream == "stdout":
                    end = StepEnd.parse(words[2:])
                    if index not in self._story.begun:  # the daemon rotated its beginning away
                        await self._begin(index, at - end.wall_s)
                    self._story.ended[index], self._story.ended_at[index] = end, at
                await self._log.end_step(step_key(index), stream)
            case "output":
                value = base64.b64decode(words[2], validate=True)
                self._take_output(words[1], value)
                if words[1] not in self._outputs:
                    self.words.append(f"outputs: {words[1]} is not UTF-8 and was left out")
            case "missing":
                self.words.append(f"outputs: {self._spec.outputs.get(words[1], words[1])} is not there")
            case "large":
                self.words.append(
                    f"outputs: {words[1]} is longer than {OUTPUT_BYTES_MAX} bytes and was left out"
                )
            case "misnamed":
                self.words.append("outputs: a file in $RUNYARD_OUTPUTS has no name for an output")
            case _:
                pass

    async def _begin(self, index: int, at: float) -> None:
        step = self._spec.steps[index]
        self._story.begun.setdefault(index, at)
        await self._context.record_phase("running", min(self._story.begun.values()))
        await self._context.record_phase(f"step:{step.name}", self._story.begun[index])

    def _take_output(self, name: str, value: bytes) -> None:
        with contextlib.suppress(UnicodeDecodeError):
            self._outputs[name] = value.decode()


def joined(frames: list[Frame], *, mends_lines: bool) -> list[tuple[str, float, bytes]]:
    """What follows on the same stream, as one piece: a frame is a line, and each piece is a write. Where a marker may
    begin, the time must be its own."""
    pieces: list[tuple[str, float, bytes]] = []
    for frame in frames:
        at, data = split_time(frame.data)
        data = mend_line(data) if mends_lines else data
        if pieces and pieces[-1][0] == frame.stream and b"\x1e" not in data and b"\x1e" not in pieces[-1][2]:
            pieces[-1] = (frame.stream, at, pieces[-1][2] + data)
        else:
            pieces.append((frame.stream, at, data))
    return pieces
