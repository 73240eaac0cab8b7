"""Reads logs out of an object store: listings and blocks are kept for a moment, one call for all who ask at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from runyard.logs import pieces
from runyard.logs.pieces import Piece, StoredLog
from runyard.model.attempt import AttemptKey
from runyard.object_store import ObjectMissing, ObjectStore

LISTING_FRESH_S = 0.5
COMPLETE_FRESH_S = 60.0
LISTINGS_MAX = 256
BLOCK_BYTES = 1 << 20
BLOCKS_MAX = 32


class PieceReader:
    """Raises StoreUnavailable. A log that is not there is empty."""

    def __init__(self, objects: ObjectStore, *, fresh_s: float = LISTING_FRESH_S) -> None:
        self._objects = objects
        self._fresh_s = fresh_s
        self._listings: OrderedDict[AttemptKey, tuple[float, StoredLog]] = OrderedDict()
        self._looks: dict[AttemptKey, asyncio.Task[StoredLog]] = {}
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    async def look(self, key: AttemptKey) -> StoredLog:
        """What is there; half a second old at most while more may come."""
        now = asyncio.get_running_loop().time()
        if (kept := self._listings.get(key)) is not None:
            at, stored = kept
            if now - at < (COMPLETE_FRESH_S if stored.is_complete else self._fresh_s):
                return stored
        look = self._looks.get(key)
        if look is None:
            look = self._looks[key] = asyncio.create_task(self._list(key))
            look.add_done_callback(lambda _: self._looks.pop(key, None))
        return await asyncio.shield(look)

    def forget(self, key: AttemptKey) -> None:
        """It changed: the next look lists it anew."""
        self._listings.pop(key, None)

    def forget_blocks(self, key: AttemptKey) -> None:
        """The next read is of the store itself."""
        folder = f"{pieces.folder(key)}/"
        for kept in [kept for kept in self._blocks if kept[0].startswith(folder)]:
            del self._blocks[kept]

    def forget_job(self, uid: str) -> None:
        for key in [key for key in self._listings if key.uid == uid]:
            self.forget(key)

    async def read(self, key: AttemptKey, step: str, stream: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes, ending before the next hole; a piece that a larger one replaced is looked up again."""
        for _ in range(2):
            stored = (await self.look(key)).streams.get((step, stream))
            piece = stored.piece_at(offset) if stored is not None else None
            if stored is None or piece is None:
                return b""
            end = min(piece.end, offset + limit)
            if stored.cut is not None and offset < stored.cut.begin:
                end = min(end, stored.cut.begin)
            try:
                return await self._read_piece(piece, offset, end)
            except ObjectMissing:
                self.forget(key)
        return b""

    async def _list(self, key: AttemptKey) -> StoredLog:
        names = [each.path for each in await self._objects.list(pieces.folder(key))]
        stored = pieces.parse_listing(key, names)
        self._listings[key] = (asyncio.get_running_loop().time(), stored)
        self._listings.move_to_end(key)
        if len(self._listings) > LISTINGS_MAX:
            self._listings.popitem(last=False)
        return stored

    async def _read_piece(self, piece: Piece, offset: int, end: int) -> bytes:
        """From the block that holds `offset`; it may end before `end`."""
        number = (offset - piece.begin) // BLOCK_BYTES
        begin = number * BLOCK_BYTES
        block = self._blocks.get((piece.name, number))
        if block is None:
            until = min(begin + BLOCK_BYTES, piece.end - piece.begin)
            block = self._blocks[piece.name, number] = await self._objects.get_range(piece.name, begin, until)
            if len(self._blocks) > BLOCKS_MAX:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end((piece.name, number))
        within = offset - piece.begin - begin
        return block[within : within + end - offset]
