"""A tar archive as it comes in pieces: its files, one after the other, each to be read before the next.

It comes from a container whose contents are a stranger's: sizes and names are taken for what they are, nothing is
unpacked here, and whatever is no regular file is passed over.
"""

from __future__ import annotations

import tarfile
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from runyard.model.errors import Unreachable

BLOCK = tarfile.BLOCKSIZE
EXTENSION_BYTES_MAX = 64 * 1024
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)


@dataclass(frozen=True, slots=True)
class TarFile:
    """`chunks` ends after `size` bytes, or raises Unreachable where the archive breaks off."""

    name: str
    size: int
    chunks: AsyncGenerator[bytes, None]


class TarStream:
    """Iterate `files` to the end: only an archive with its end mark is whole. Raises Unreachable for one that breaks
    off or is none."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._buffer = b""
        self._left = 0  # of the file that is being read, padding not counted
        self._padding = 0

    async def files(self) -> AsyncIterator[TarFile]:
        overrides: dict[str, str] = {}
        while True:
            header = await self._next_header()
            if header is None:
                return
            if header.type in _PAX:
                overrides |= _parse_pax(await self._small(header.size))
            elif header.type == tarfile.GNUTYPE_LONGNAME:
                overrides["path"] = (
                    (await self._small(header.size)).rstrip(b"\0").decode(errors="surrogateescape")
                )
            else:
                size = int(overrides.get("size", header.size))
                self._expect(size if header.isreg() else 0)
                if header.isreg():
                    yield TarFile(overrides.get("path", header.name), size, self._content())
                overrides = {}
                await self._skip_rest()

    # -- inside ---------------------------------------------------------------------------------------------------
    async def _next_header(self) -> tarfile.TarInfo | None:
        block = await self._take(BLOCK)
        if block == bytes(BLOCK):
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise Unreachable(f"what came is no tar archive: {error}") from None

    def _expect(self, size: int) -> None:
        if size < 0:
            raise Unreachable("what came is no tar archive: a file of negative size")
        self._left, self._padding = size, -size % BLOCK

    async def _content(self) -> AsyncGenerator[bytes, None]:
        while self._left:
            chunk = self._buffer[: self._left] or await self._more()
            chunk = chunk[: self._left]
            self._buffer = self._buffer[len(chunk) :]
            self._left -= len(chunk)
            yield chunk

    async def _skip_rest(self) -> None:
        async for _ in self._content():
            pass
        await self._take(self._padding)
        self._padding = 0

    async def _small(self, size: int) -> bytes:
        if size > EXTENSION_BYTES_MAX:
            raise Unreachable("what came is no tar archive of ours: an extended header is too long")
        content = await self._take(size)
        await self._take(-size % BLOCK)
        return content

    async def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    async def _more(self) -> bytes:
        """Reads on; returns the buffer, which has something in it."""
        chunk = await anext(self._source, None)
        if chunk is None:
            raise Unreachable("the archive breaks off")
        self._buffer += chunk
        return self._buffer


def _parse_pax(content: bytes) -> dict[str, str]:
    """Records of `LENGTH KEY=VALUE\\n`, of which only a path and a size matter."""
    found: dict[str, str] = {}
    at = 0
    while at < len(content):
        space = content.find(b" ", at, at + 12)
        length = content[at:space]
        if space < 0 or not length.isdigit() or int(length) < 5:
            raise Unreachable("what came is no tar archive: an extended header is torn")
        key, _, value = content[space + 1 : at + int(length) - 1].partition(b"=")
        if key in (b"path", b"size"):
            found[key.decode()] = value.decode(errors="surrogateescape")
        at += int(length)
    if not found.get("size", "0").isdecimal():
        raise Unreachable("what came is no tar archive: a size is no number")
    return found
