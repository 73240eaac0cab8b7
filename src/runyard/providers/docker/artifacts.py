"""Collects artifacts from a container that has ended: of the workspace, as the daemon packs it, what the globs match.
Regular files only, no link followed; bounded as on a local pool. What is missing is said and fails nothing."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import tarfile
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

from runyard.model.errors import Invalid
from runyard.providers.docker.client import DockerClient, Missing
from runyard.providers.docker.plan import WORKSPACE
from runyard.providers.docker.reading import AttemptLog
from runyard.providers.port import RunContext

COLLECT_S = 300.0
ENTRIES_MAX = 200_000
PATH_BYTES_MAX = 64 * 1024
_BLOCK = 512
_GLOB = frozenset("*?[")


class _TooMuch(Exception):
    """A bound was reached; what was kept so far stays."""


async def collect(
    client: DockerClient, container: str, globs: Sequence[str], context: RunContext, log: AttemptLog
) -> None:
    """Raises Unreachable where the daemon, or the store, does not answer."""
    patterns = {glob: _parts(glob) for glob in globs}
    matched: set[str] = set()

    def wants(path: str) -> bool:
        found = {glob for glob, parts in patterns.items() if matches(parts, path.split("/"))}
        matched.update(found)
        return bool(found)

    try:
        async with asyncio.timeout(COLLECT_S):
            for top in _tops(patterns.values()):
                with contextlib.suppress(Missing):
                    await _keep_from(client, container, top, wants, context)
    except (_TooMuch, Invalid, tarfile.TarError) as error:
        await log.say(f"artifacts: {error}; the rest is left out")
    except TimeoutError:
        await log.say(f"artifacts: collecting took longer than {COLLECT_S:g} s; the rest is left out")
    for glob in globs:
        if glob not in matched:
            await log.say(f"artifacts: nothing matches {glob!r}")


def matches(pattern: Sequence[str], path: Sequence[str]) -> bool:
    """Whether a file's path is matched; a folder that is matched is taken whole."""
    if not pattern:
        return True
    if pattern[0] == "**":
        rest = pattern[1:]
        return not rest or any(matches(rest, path[index:]) for index in range(len(path)))
    return bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and matches(pattern[1:], path[1:])


def _parts(pattern: str) -> list[str]:
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    return [part for index, part in enumerate(parts) if part != "**" or parts[index - 1 : index] != ["**"]]


def _tops(patterns: Iterable[Sequence[str]]) -> list[str]:
    """What to ask for: names in the workspace, or all of it. No deeper: the daemon would follow a link on the way."""
    tops = list(dict.fromkeys(parts[0] if parts else "" for parts in patterns))
    return ["."] if any(not top or _GLOB & set(top) for top in tops) else tops


async def _keep_from(
    client: DockerClient, container: str, top: str, wants: Callable[[str], bool], context: RunContext
) -> None:
    async with contextlib.aclosing(client.get_archive(container, f"{WORKSPACE}/{top}")) as chunks:
        reader = TarReader(chunks)
        seen = 0
        async for entry in reader.entries():
            seen += 1
            if seen > ENTRIES_MAX:
                raise _TooMuch(f"more than {ENTRIES_MAX} files and folders were looked at")
            path = "/".join(part for part in entry.name.split("/") if part not in ("", "."))
            if entry.isreg() and path and wants(path):
                await context.store_artifact(path, reader.content())


class TarReader:
    """A tar as it streams in: `entries`, and while one is current its `content`; long names of GNU and PAX."""

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        self._chunks = chunks
        self._held = b""
        self._left = self._padding = 0

    async def entries(self) -> AsyncGenerator[tarfile.TarInfo, None]:
        """Raises tarfile.TarError."""
        name: str | None = None
        size: int | None = None
        while True:
            await self._skip()
            block = await self._take(_BLOCK)
            if len(block) < _BLOCK or not block.strip(b"\0"):
                return
            entry = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            if entry.type in (
                tarfile.XHDTYPE,
                tarfile.GNUTYPE_LONGNAME,
                tarfile.GNUTYPE_LONGLINK,
                tarfile.XGLTYPE,
            ):
                if entry.size > PATH_BYTES_MAX:
                    raise tarfile.ReadError("an entry's header is too long")
                header = await self._take(entry.size + -entry.size % _BLOCK)
                if entry.type == tarfile.GNUTYPE_LONGNAME:
                    name = header[: entry.size].rstrip(b"\0").decode("utf-8", "surrogateescape")
                elif entry.type == tarfile.XHDTYPE:
                    fields = _pax_fields(header[: entry.size])
                    name = fields.get("path", name)
                    size = int(fields["size"]) if "size" in fields else size
                continue
            entry.name, entry.size = name or entry.name, entry.size if size is None else size
            name = size = None
            has_data = entry.type in tarfile.REGULAR_TYPES
            self._left = entry.size if has_data else 0
            self._padding = -self._left % _BLOCK
            yield entry

    async def content(self) -> AsyncGenerator[bytes, None]:
        while self._left:
            if not self._held and not await self._more():
                raise tarfile.ReadError("the archive ends early")
            piece = self._held[: self._left]
            self._held = self._held[len(piece) :]
            self._left -= len(piece)
            yield piece

    async def _skip(self) -> None:
        async for _ in self.content():
            pass
        await self._take(self._padding)
        self._padding = 0

    async def _take(self, size: int) -> bytes:
        while len(self._held) < size and await self._more():
            pass
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    async def _more(self) -> bool:
        chunk = await anext(self._chunks, b"")
        self._held += chunk
        return bool(chunk)


def _pax_fields(data: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    while data:
        digits, _, _ = data.partition(b" ")
        if not digits.isdigit() or not 0 < int(digits) <= len(data):
            raise tarfile.ReadError("an entry's header is torn")
        record, data = data[len(digits) + 1 : int(digits) - 1], data[int(digits) :]
        key, _, value = record.partition(b"=")
        fields[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
    return fields
