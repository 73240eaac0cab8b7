"""Reads bytes of a file without holding up the event loop: from the page cache at once, from the disk in a thread."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


async def read_bytes(file: Path, offset: int, limit: int) -> bytes:
    """At most `limit` bytes from `offset`; empty where the file is missing, shorter, or no plain file's path."""
    try:
        fd = os.open(file, _FLAGS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO):
            return b""
        raise
    try:
        return await read_from(fd, offset, limit)
    finally:
        os.close(fd)


async def read_from(fd: int, offset: int, limit: int) -> bytes:
    """The same for an open file. The kernel says whether the read would wait for the disk (RWF_NOWAIT)."""
    buffer = bytearray(limit)
    try:
        count = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EOPNOTSUPP):
            raise
        # Shielded: the caller closes the descriptor, which must not happen under the thread's hands.
        read = asyncio.ensure_future(asyncio.to_thread(os.preadv, fd, [buffer], offset))
        try:
            count = await asyncio.shield(read)
        except asyncio.CancelledError:
            await asyncio.wait({read})
            raise
    del buffer[count:]
    return bytes(buffer)
