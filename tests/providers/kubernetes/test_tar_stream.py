"""An archive that comes in pieces of any size gives its files; one that breaks off gives none of it as whole."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.model.errors import Unreachable
from runyard.providers.kubernetes.tar_stream import TarStream

FILES = {
    "report.txt": b"all is well\n",
    "empty": b"",
    "deep/" + "x" * 120 + "/" + "ü" * 60: b"long name",
    "block": bytes(512),
    "large": bytes(range(256)) * 100,
}


def archive(format: int, files: dict[str, bytes] = FILES) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=format) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
            link = tarfile.TarInfo(name + ".link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
    return held.getvalue()


async def pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


async def read(content: bytes, size: int) -> dict[str, bytes]:
    return {
        file.name: b"".join([chunk async for chunk in file.chunks])
        async for file in TarStream(pieces(content, size)).files()
    }


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("size", [1, 7, 512, 1000, 1 << 20])
async def test_its_files_come_out_whole_and_links_are_passed_over(form: int, size: int) -> None:
    assert await read(archive(form), size) == FILES


async def test_a_file_that_nobody_read_is_passed_over() -> None:
    names = [file.name async for file in TarStream(pieces(archive(tarfile.PAX_FORMAT), 100)).files()]
    assert names == list(FILES)


@pytest.mark.parametrize("cut", range(0, len(archive(tarfile.PAX_FORMAT, {"one": b"1" * 600})) - 9216, 97))
async def test_an_archive_that_breaks_off_is_told(cut: int) -> None:
    with pytest.raises(Unreachable):
        await read(archive(tarfile.PAX_FORMAT, {"one": b"1" * 600})[:cut], 200)


@given(st.binary(min_size=512, max_size=2048))
async def test_a_strangers_bytes_are_an_archive_or_told_as_none(content: bytes) -> None:
    try:
        await read(content, 300)
    except Unreachable:
        return
    assert content[:512] == bytes(512)
