"""Logs as plain files, laid out as layout.py says: any process that sees the files can serve and follow any log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from pathlib import Path

from runyard.logs.layout import KEY_PATTERN, attempt_directory, rank, read_cut, stream_file
from runyard.logs.port import CHUNK_BYTES_MAX, Chunk, Gap, Hole, LogSink, Positions, StreamInfo
from runyard.logs.reading import read_bytes
from runyard.logs.sink import FileLogSink, read_gaps
from runyard.logs.watching import DirectoryWatches, Watch
from runyard.model.attempt import AttemptKey

TIMER_S = 0.5
COALESCE_S = 0.02
_STREAM_FILE = re.compile(rf"({KEY_PATTERN})\.(stdout|stderr)")


class FileLogStore:
    """Owns `root`. Readers hold no file open between two reads, so any number of followers costs no descriptors."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(
            mode=0o700, parents=True, exist_ok=True
        )  # there is something to watch from the first moment
        if root.stat().st_uid == os.geteuid():
            root.chmod(0o700)  # an older release's was open: the folders in it are named after jobs
        self._watches = DirectoryWatches(root)

    def close(self) -> None:
        self._watches.close()

    def sink(self, key: AttemptKey) -> LogSink:
        return FileLogSink(self.directory(key))

    def directory(self, key: AttemptKey) -> Path:
        directory = self._path(key)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def is_here(self, key: AttemptKey) -> bool:
        """Whether anything of this attempt's log lies here."""
        return self._path(key).is_dir()

    def attempts(self) -> list[AttemptKey]:
        """The attempts whose logs lie here."""
        return [
            AttemptKey(folder.name, int(number.name))
            for folder in self._root.iterdir()
            if folder.is_dir()
            for number in folder.iterdir()
            if number.name.isdecimal()
        ]

    def remove_empty_folders(self, *, older_than_s: float) -> None:
        """Those of jobs whose attempts are all gone from here. Not at once: the next attempt may be making its own."""
        for folder in self._root.iterdir():
            with contextlib.suppress(OSError):
                if folder.stat().st_mtime < time.time() - older_than_s:
                    folder.rmdir()

    @contextlib.contextmanager
    def arriving(self, key: AttemptKey) -> Iterator[LogSink]:
        """A sink for a log that is brought here: it is here once all of it is."""
        draft = self._root / key.uid / f".{key.number}.arriving"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700, parents=True)
        yield FileLogSink(draft)
        os.rename(draft, self._path(key))

    def watch(self, key: AttemptKey) -> Watch:
        """Wakes when something of this attempt's log is written here."""
        return self._watches.watch(self._path(key))

    async def streams(self, key: AttemptKey) -> list[StreamInfo]:
        directory = self._path(key)
        found = (self._inspect(directory, step, stream) for step, stream in _stream_names(directory))
        return [info for info in found if info is not None]

    async def read(self, key: AttemptKey, step: str, stream: str, offset: int, limit: int) -> bytes:
        return await self._read(self._path(key), step, stream, offset, min(limit, CHUNK_BYTES_MAX))

    async def follow(
        self, key: AttemptKey, positions: Positions, ended: asyncio.Event
    ) -> AsyncGenerator[Chunk | Gap, None]:
        follower = _Follower(self, self._path(key), positions)
        watch = self._watches.watch(self._path(key))
        end_watcher = asyncio.create_task(poke_when_set(ended, watch.poke))
        now = asyncio.get_running_loop().time
        gave_at = 0.0
        try:
            while True:
                watch.arm()
                is_last_look = ended.is_set()  # before looking: the look sees what was written until then
                async for item in follower.look():
                    gave_at = now()
                    yield item
                if is_last_look:
                    return
                if ended.is_set():
                    continue
                await watch.wait(TIMER_S)
                rest_s = gave_at + COALESCE_S - now()
                if rest_s > 0 and not ended.is_set():
                    await asyncio.sleep(rest_s)  # a chatty job makes some 50 chunks a second, not thousands
        finally:
            end_watcher.cancel()
            watch.close()

    async def delete(self, key: AttemptKey) -> None:
        await asyncio.to_thread(shutil.rmtree, self._path(key), ignore_errors=True)

    async def delete_job(self, uid: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self._root / uid, ignore_errors=True)

    async def size_bytes(self) -> int:
        return await asyncio.to_thread(disk_bytes, self._root)

    def _path(self, key: AttemptKey) -> Path:
        return attempt_directory(self._root, key.uid, key.number)

    def _inspect(self, directory: Path, step: str, stream: str) -> StreamInfo | None:
        file = stream_file(directory, step, stream)
        try:
            size = os.stat(file, follow_symlinks=False).st_size
        except FileNotFoundError:
            return None
        return StreamInfo(step=step, stream=stream, size=size, holes=_holes(file))

    async def _read(self, directory: Path, step: str, stream: str, offset: int, limit: int) -> bytes:
        """Never across a hole, also not across one that is being cut now: writers record a cut before they make it,
        so zeros that were read from a fresh hole are recognised by looking at the record afterwards."""
        file = stream_file(directory, step, stream)
        data = await read_bytes(file, offset, limit)
        for hole in _holes(file) if data else ():
            if hole.begin < offset + len(data) and offset < hole.end:
                data = data[: max(0, hole.begin - offset)]
        return data


class _Follower:
    """How far one follower has come in each stream of one attempt."""

    def __init__(self, store: FileLogStore, directory: Path, positions: Positions) -> None:
        self._store = store
        self._directory = directory
        self._positions = dict(positions)
        self._shrunk: dict[tuple[str, str], int] = {}

    async def look(self) -> AsyncIterator[Chunk | Gap]:
        """All that is there beyond the positions; the streams of one step take turns."""
        names = dict.fromkeys((*_stream_names(self._directory), *sorted(self._positions)))
        for step in dict.fromkeys(step for step, _ in names):
            live = [stream for candidate, stream in names if candidate == step]
            while live:
                for stream in tuple(live):
                    item = await self._next(step, stream)
                    if item is None:
                        live.remove(stream)
                    else:
                        yield item

    async def _next(self, step: str, stream: str) -> Chunk | Gap | None:
        offset = self._positions.get((step, stream), 0)
        info = self._store._inspect(self._directory, step, stream)
        size = info.size if info else 0
        if size < offset:
            return self._report_shrunk(step, stream, offset, size)
        if info is None or size == offset:
            return None
        data = await self._store._read(self._directory, step, stream, offset, CHUNK_BYTES_MAX)
        if data:
            self._positions[step, stream] = offset + len(data)
            return Chunk(step=step, stream=stream, offset=offset, data=data)
        info = self._store._inspect(self._directory, step, stream)
        hole = info.hole_at(offset) if info else None
        if hole is None:
            return None
        self._positions[step, stream] = hole.end
        return Gap(step=step, stream=stream, offset=offset, to=hole.end, is_cut=hole.is_cut)

    def _report_shrunk(self, step: str, stream: str, offset: int, size: int) -> Gap | None:
        """Someone took back what was printed. Said once; the stream goes on where the follower was."""
        if self._shrunk.get((step, stream), offset) <= size:
            return None
        self._shrunk[step, stream] = size
        return Gap(step=step, stream=stream, offset=size, to=offset, is_cut=False)


def disk_bytes(root: Path) -> int:
    """What a tree takes on disk: blocks, so that holes are free; 0 where it does not exist."""
    total = 0
    for directory, _, names in os.walk(root):
        for name in names:
            try:
                total += os.stat(os.path.join(directory, name), follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


async def poke_when_set(event: asyncio.Event, poke: Callable[[], None]) -> None:
    await event.wait()
    poke()


def _stream_names(directory: Path) -> list[tuple[str, str]]:
    """(step, stream) of every stream file: setup, services, steps; stdout before stderr."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = [match.groups() for name in names if (match := _STREAM_FILE.fullmatch(name))]
    return sorted(
        ((step, stream) for step, stream in found),
        key=lambda name: (rank(name[0]), name[1] == "stderr"),
    )


def _holes(file: Path) -> tuple[Hole, ...]:
    holes = [Hole(begin, end, is_cut=False) for begin, end in read_gaps(file)]
    try:
        cut = read_cut(file)
    except ValueError:  # damaged: what is in the file is served as it is
        cut = None
    if cut is not None and cut[0] < cut[1]:
        holes.append(Hole(cut[0], cut[1], is_cut=True))
    return tuple(sorted(holes, key=lambda hole: hole.begin))
