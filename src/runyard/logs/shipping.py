"""Ships what was written here into the object store: piece by piece while it grows, then as few large ones.

What was shipped is known from the store's own listing, so a crash at any point loses nothing and doubles nothing: a
piece's name says its offsets, and its bytes never change. The files here go last: once the attempt is settled, all of
it lies there, was read back and compared, and said to be complete.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import structlog

from runyard.logs import pieces
from runyard.logs.objects import FROM_AFAR, ObjectLogStore
from runyard.logs.pieces import StoredLog
from runyard.logs.port import CHUNK_BYTES_MAX, Hole, StreamInfo
from runyard.model.attempt import AttemptKey
from runyard.model.errors import StoreUnavailable

LOOK_EVERY_S = 1.0
PIECE_BYTES_MAX = 4 << 20
SETTLED_ASK_MAX_S = 3.0
UNKNOWN_ASK_S = 60.0
REPLACE_AFTER_S = 5.0
"""A reader may go by a listing that is this old: only then are small pieces removed that a large one replaces."""

RETRY_MAX_S = 30.0
AT_A_TIME = 8
JOINED_AT_A_TIME = 2
CLEAN_EVERY_S = 3600.0

IsSettled = Callable[[AttemptKey], Awaitable[bool | None]]
"""Whether an attempt is settled; None where the ledger knows no such attempt."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Standing:
    """How far one attempt has come here. `positions` is None until the store was asked."""

    positions: dict[tuple[str, str], int] | None = None
    cuts: dict[tuple[str, str], Hole] = field(default_factory=dict)
    asked_at: float = -SETTLED_ASK_MAX_S
    ask_after_s: float = 0.0
    completed_at: float | None = None


class LogShipper:
    """`run` looks every second. `is_settled` asks the ledger about an attempt, so rarely while it is silent."""

    def __init__(
        self,
        store: ObjectLogStore,
        is_settled: IsSettled,
        *,
        look_every_s: float = LOOK_EVERY_S,
        replace_after_s: float = REPLACE_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._is_settled = is_settled
        self._look_every_s = look_every_s
        self._replace_after_s = replace_after_s
        self._clock = clock
        self._standings: dict[AttemptKey, _Standing] = {}
        self._tasks: dict[AttemptKey, asyncio.Task[None]] = {}
        self._at_a_time = asyncio.Semaphore(AT_A_TIME)
        self._joining = asyncio.Semaphore(JOINED_AT_A_TIME)
        self._is_down = False

    async def run(self) -> None:
        pause_s, cleaned_at = self._look_every_s, self._clock()
        try:
            while True:
                await self._begin()
                pause_s = min(pause_s * 2, RETRY_MAX_S) if self._is_down else self._look_every_s
                await asyncio.sleep(pause_s)
                if self._clock() - cleaned_at > CLEAN_EVERY_S:
                    cleaned_at = self._clock()
                    await asyncio.to_thread(
                        self._store.local.remove_empty_folders, older_than_s=CLEAN_EVERY_S
                    )
        finally:
            for task in self._tasks.values():
                task.cancel()

    async def look(self) -> bool:
        """Ships all that is new here. False where the store could not be reached; nothing is lost by that."""
        await self._begin()
        await asyncio.gather(*self._tasks.values())
        return not self._is_down

    async def _begin(self) -> None:
        """A task for each log here that has none: a large one holds up no other."""
        keys = await asyncio.to_thread(self._store.local.attempts)
        for gone in self._standings.keys() - set(keys):
            del self._standings[gone]
        for key in keys:
            if key not in self._tasks:
                task = self._tasks[key] = asyncio.create_task(self._ship_or_say(key))
                task.add_done_callback(functools.partial(self._forget_task, key))

    def _forget_task(self, key: AttemptKey, _: asyncio.Task[None]) -> None:
        self._tasks.pop(key, None)

    async def _ship_or_say(self, key: AttemptKey) -> None:
        try:
            await self._ship(key)
        except StoreUnavailable as error:
            if not self._is_down:
                log.error("object_store_unavailable", error=error.message, cure=error.cure)
            self._is_down = True
        except Exception:  # one log that cannot be read must not hold up the others
            log.exception("log_not_shipped", attempt=key.resource_name)
        else:
            if self._is_down:
                log.info("object_store_reached_again", store=self._store.objects.name)
            self._is_down = False

    async def _ship(self, key: AttemptKey) -> None:
        async with self._store.locks.hold(key):
            if not self._store.local.is_here(key):
                return  # deleted while we waited
            standing = self._standings.setdefault(key, _Standing())
            if standing.completed_at is not None:
                await self._let_go(key, standing)
                return
            if standing.positions is None and not await self._is_known(key, standing):
                return
            async with self._at_a_time:
                is_new = await self._ship_new(key, standing)
            if not is_new:
                await self._finish(key, standing)

    async def _is_known(self, key: AttemptKey, standing: _Standing) -> bool:
        """Asked before anything is sent: a job that was deleted elsewhere must not come back. What no ledger knows is
        left alone, for this may be the wrong one."""
        if self._clock() - standing.asked_at < standing.ask_after_s:
            return False
        if await self._is_settled(key) is not None:
            return True
        standing.asked_at, standing.ask_after_s = self._clock(), UNKNOWN_ASK_S
        return False

    # -- while it grows -------------------------------------------------------------------------------------------

    async def _ship_new(self, key: AttemptKey, standing: _Standing) -> bool:
        """Whether there was anything new."""
        if standing.positions is None:
            stored = await self._list(key)
            standing.positions = {name: stream.size for name, stream in stored.streams.items()}
            standing.cuts = {name: stream.cut for name, stream in stored.streams.items() if stream.cut}
        infos = await self._store.local.streams(key)
        is_new = [await self._ship_stream(key, info, standing.positions, standing.cuts) for info in infos]
        if any(is_new):
            standing.ask_after_s = 0.0
        return any(is_new)

    async def _ship_stream(
        self,
        key: AttemptKey,
        info: StreamInfo,
        positions: dict[tuple[str, str], int],
        cuts: dict[tuple[str, str], Hole],
    ) -> bool:
        name, is_new = (info.step, info.stream), False
        if info.cut is not None and cuts.get(name) != info.cut:
            cut = pieces.piece(key, *name, info.cut.begin, info.cut.end, is_cut=True)
            await self._store.objects.put(cut.name, b"")
            cuts[name] = info.cut
        while (begin := positions.get(name, 0)) < info.size:
            data = await self._read(key, info, begin, min(info.size, begin + PIECE_BYTES_MAX))
            if data:
                piece = pieces.piece(key, *name, begin, begin + len(data))
                await self._store.objects.put(piece.name, data)
                positions[name], is_new = piece.end, True
                continue
            hole = await self._hole_at(key, info, begin)
            if hole is None:
                break  # it shrank: somebody took back what was printed
            positions[name], is_new = hole.end, True
        return is_new

    async def _read(self, key: AttemptKey, info: StreamInfo, begin: int, end: int) -> bytes:
        """From here, up to the next hole."""
        parts, at = [], begin
        while at < end and (data := await self._store.local.read(key, info.step, info.stream, at, end - at)):
            parts.append(data)
            at += len(data)
        return b"".join(parts)

    async def _hole_at(self, key: AttemptKey, info: StreamInfo, offset: int) -> Hole | None:
        """Looked up again: a cut may have been made just now."""
        infos = await self._store.local.streams(key)
        now = next((each for each in infos if (each.step, each.stream) == (info.step, info.stream)), info)
        return now.hole_at(offset)

    # -- the end --------------------------------------------------------------------------------------------------

    async def _finish(self, key: AttemptKey, standing: _Standing) -> None:
        """All that is here was shipped. If no more can come, makes few pieces of many and says that it is complete."""
        if self._clock() - standing.asked_at < standing.ask_after_s:
            return
        is_settled = await self._is_settled(key)
        standing.asked_at = self._clock()
        standing.ask_after_s = min(max(self._look_every_s, standing.ask_after_s * 2), SETTLED_ASK_MAX_S)
        if is_settled is None:
            await self._remove_deleted(key)
            return
        if not is_settled:
            await self._give_up_part(key)
            return
        if await self._ship_new(key, standing):
            return  # written between the last look and the settle
        async with self._joining:
            infos = await self._store.local.streams(key)
            await self._join_pieces(key, infos, await self._list(key))
            await self._compare(key, infos)
        await self._store.objects.put(pieces.complete_name(key), b"")
        standing.completed_at = self._clock()
        self._store.reader.forget(key)

    async def _give_up_part(self, key: AttemptKey) -> None:
        """Where another service went on with an attempt that this one had, what is here is a part, and all of it is
        there: readers here must not take it for the whole."""
        if not (self._store.local.directory(key) / FROM_AFAR).exists():
            return
        infos = await self._store.local.streams(key)
        if _goes_further(await self._list(key), infos):
            await self._compare(key, infos)
            await self._store.local.delete(key)
            log.info("log_continued_elsewhere", attempt=key.resource_name)

    async def _join_pieces(self, key: AttemptKey, infos: Iterable[StreamInfo], stored: StoredLog) -> None:
        for info in infos:
            there = stored.streams.get((info.step, info.stream))
            lying = {(each.begin, each.end) for each in there.pieces} if there else set()
            for begin, end in pieces.kept_ranges(info):
                if (begin, end) not in lying:
                    piece = pieces.piece(key, info.step, info.stream, begin, end)
                    await self._store.objects.put(piece.name, self._chunks(key, info, begin, end))

    async def _chunks(self, key: AttemptKey, info: StreamInfo, begin: int, end: int) -> AsyncIterator[bytes]:
        while begin < end and (data := await self._read(key, info, begin, min(end, begin + PIECE_BYTES_MAX))):
            yield data
            begin += len(data)
        if begin < end:
            raise OSError(
                f"the log {info.step}.{info.stream} of {key.resource_name} shrank while it was sent"
            )

    async def _compare(self, key: AttemptKey, infos: Iterable[StreamInfo]) -> None:
        """Reads back all that was shipped. Raises StoreUnavailable where it is not what lies here; it is sent again."""
        self._store.reader.forget(key)
        self._store.reader.forget_blocks(key)
        for info in infos:
            for begin, end in pieces.kept_ranges(info):
                while begin < end:
                    here = await self._read(key, info, begin, min(end, begin + CHUNK_BYTES_MAX))
                    there = await self._store.reader.read(key, info.step, info.stream, begin, len(here))
                    if not there or not here.startswith(there):
                        self._standings.pop(key, None)
                        await self._delete_piece(key, info, begin)
                        raise StoreUnavailable(
                            f"object store {self._store.objects.name}: other bytes came back than were sent, at"
                            f" {begin} of {info.step}.{info.stream} of {key.resource_name}",
                            cure="they are sent again; if it goes on, the store loses what it is given",
                        )
                    begin += len(there)

    async def _delete_piece(self, key: AttemptKey, info: StreamInfo, offset: int) -> None:
        stored = (await self._list(key)).streams.get((info.step, info.stream))
        piece = stored.piece_at(offset) if stored else None
        if piece is not None:
            await self._store.objects.delete([piece.name])

    async def _let_go(self, key: AttemptKey, standing: _Standing) -> None:
        """It is complete there. What large pieces replace goes, and then the files here."""
        if standing.completed_at is None or self._clock() - standing.completed_at < self._replace_after_s:
            return
        if await self._is_settled(key) is None:
            await self._remove_deleted(key)
            return
        infos, stored = await self._store.local.streams(key), await self._list(key)
        needless = []
        for info in infos:
            there = stored.streams.get((info.step, info.stream))
            if there is not None:
                needless += [each.name for each in pieces.superfluous(there, pieces.kept_ranges(info))]
        await self._store.objects.delete(needless)
        await self._store.local.delete(key)
        self._store.reader.forget(key)

    async def _remove_deleted(self, key: AttemptKey) -> None:
        """The ledger knew it and does not any more: its job was deleted, by another service than this."""
        await self._store.objects.delete(
            [each.path for each in await self._store.objects.list(pieces.folder(key))]
        )
        await self._store.local.delete(key)
        self._store.reader.forget(key)

    async def _list(self, key: AttemptKey) -> StoredLog:
        self._store.reader.forget(key)
        return await self._store.reader.look(key)


def _goes_further(stored: StoredLog, infos: Iterable[StreamInfo]) -> bool:
    """Whether more lies there than here: another service went on with the attempt."""
    here = {(info.step, info.stream): info.size for info in infos}
    return any(stream.size > here.get(name, 0) for name, stream in stored.streams.items())
