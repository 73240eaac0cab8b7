"""What every log store promises: of files, of objects where the log is written, and of objects read elsewhere."""

from __future__ import annotations

import asyncio

import pytest

from runyard.logs.port import Chunk, Gap
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Conflict, Invalid
from runyard.object_store import open_object_store
from tests.logs.world import KEY, LogWorld, file_world, is_set, memory_store, object_world

STORES = [
    "file",
    "objects, here",
    "objects, elsewhere",
    "folder, elsewhere",
    pytest.param("s3, here", marks=pytest.mark.service),
    pytest.param("s3, elsewhere", marks=pytest.mark.service),
]


@pytest.fixture(params=STORES)
async def world(request, tmp_path):
    kind, _, where = request.param.partition(", ")
    if kind == "file":
        async with file_world(tmp_path) as made:
            yield made
        return
    match kind:
        case "s3":
            objects = request.getfixturevalue("bucket")
        case "folder":
            objects = open_object_store(f"file://{tmp_path}/objects", {}, field="logs.url")
        case _:
            objects = memory_store()
    async with object_world(tmp_path, objects, elsewhere=where == "elsewhere") as made:
        yield made


async def test_streams_are_named_in_the_order_of_the_steps(world: LogWorld):
    for step, stream in [("001", "stderr"), ("000", "stderr"), ("000", "stdout"), ("setup", "stderr")]:
        world.write(b"x", step, stream)
    (world.writer.directory(KEY) / "something-else").write_text("x")
    await world.shown()

    assert [(info.step, info.stream, info.size) for info in await world.reader.streams(KEY)] == [
        ("setup", "stderr", 1), ("000", "stdout", 1), ("000", "stderr", 1), ("001", "stderr", 1),
    ]  # fmt: skip


async def test_a_missing_log_is_empty(world: LogWorld):
    assert await world.reader.streams(KEY) == []
    assert await world.reader.read(KEY, "000", "stdout", 0, 10) == b""
    assert await world.collect(is_set()) == []
    await world.reader.delete(KEY)


async def test_reading_never_goes_across_a_cut(world: LogWorld):
    world.write(b"0123456789")
    world.cut(3, 7)
    await world.shown()
    for _ in range(2):
        assert await world.reader.read(KEY, "000", "stdout", 0, 100) == b"012"
        assert await world.reader.read(KEY, "000", "stdout", 3, 100) == b""
        assert await world.reader.read(KEY, "000", "stdout", 5, 100) == b""
        assert await world.reader.read(KEY, "000", "stdout", 7, 2) == b"78"
        [info] = await world.reader.streams(KEY)
        assert (info.cut.begin, info.cut.end, info.size, info.kept_bytes(0, 10)) == (3, 7, 10, 6)
        await world.end()


async def test_a_cut_of_what_was_shown_already_is_kept(world: LogWorld):
    world.write(b"0123456789")
    await world.shown()
    assert await world.reader.read(KEY, "000", "stdout", 0, 100) == b"0123456789"
    world.cut(2, 5)
    world.write(b"abc")
    world.cut(2, 8)
    await world.shown()

    assert await world.reader.read(KEY, "000", "stdout", 0, 100) == b"01"
    assert await world.reader.read(KEY, "000", "stdout", 8, 100) in (b"89abc", b"89")
    await world.end()
    assert await world.collect(is_set()) == [
        Chunk(step="000", stream="stdout", offset=0, data=b"01"),
        Gap(step="000", stream="stdout", offset=2, to=8, is_cut=True),
        Chunk(step="000", stream="stdout", offset=8, data=b"89abc"),
    ]


async def test_a_follower_misses_nothing_that_was_written_before_the_end(world: LogWorld):
    ended = asyncio.Event()
    following = asyncio.create_task(world.collect(ended))
    for number in range(200):
        world.write(b"%d\n" % number, stream=("stdout", "stderr")[number % 2])
        if number % 20 == 0:
            await asyncio.sleep(0)
    ended.set()
    await world.end()
    items = await asyncio.wait_for(following, 20)

    for parity, stream in enumerate(("stdout", "stderr")):
        assert joined(items, stream) == b"".join(b"%d\n" % number for number in range(parity, 200, 2))


async def test_a_follower_goes_on_while_the_log_moves_from_place_to_place(world: LogWorld):
    ended = asyncio.Event()
    following = asyncio.create_task(world.collect(ended))
    world.write(b"one ")
    await world.shown()
    world.write(b"two ")
    await world.end()
    ended.set()

    assert joined(await asyncio.wait_for(following, 20)) == b"one two "


def joined(items, stream: str = "stdout") -> bytes:
    """The stream's bytes; each must begin where the one before ended."""
    data = b""
    for item in items:
        if item.stream == stream:
            assert isinstance(item, Chunk), item
            assert item.offset == len(data)
            data += item.data
    return data


async def test_a_follower_starts_where_it_was(world: LogWorld):
    world.write(b"0123456789")
    await world.end()

    assert await world.collect(is_set(), {("000", "stdout"): 4}) == [
        Chunk(step="000", stream="stdout", offset=4, data=b"456789")
    ]


async def test_a_follower_is_told_a_cut_that_grows(world: LogWorld):
    world.write(b"0123456789")
    world.cut(2, 5)
    await world.shown()
    following = world.reader.follow(KEY, {}, is_set())
    items = [await anext(following), await anext(following)]
    world.cut(2, 8)
    await world.end()
    items += [item async for item in following]

    assert items[:2] == [
        Chunk(step="000", stream="stdout", offset=0, data=b"01"),
        Gap(step="000", stream="stdout", offset=2, to=5, is_cut=True),
    ]
    assert joined_from(items[2:], 5) in (b"89", b"56789")  # what was read ahead of the new cut may be given


def joined_from(items, at: int) -> bytes:
    data = b""
    for item in items:
        assert item.offset == at
        at = item.to if isinstance(item, Gap) else at + len(item.data)
        data += b"" if isinstance(item, Gap) else item.data
    return data


async def test_a_long_log_is_read_whole(world: LogWorld):
    line = bytes(range(256)) * 4096  # 1 MiB
    for _ in range(5):
        world.write(line)
    await world.shown()
    world.write(b"end")
    await world.end()
    data, at = [], 0
    while chunk := await world.reader.read(KEY, "000", "stdout", at, 1 << 30):
        data.append(chunk)
        at += len(chunk)

    assert b"".join(data) == line * 5 + b"end"
    assert await world.reader.read(KEY, "000", "stdout", (3 << 20) - 2, 4) in (
        line[-2:] + line[:2],
        line[-2:],
    )


async def test_a_sink_stores_each_byte_once_by_its_offset(world: LogWorld):
    sink = world.reader.sink(KEY)
    await sink.append("000", "stdout", 0, b"hello ")
    await sink.append("000", "stdout", 0, b"hello ")
    await sink.append("000", "stdout", 3, b"lo world")

    assert await world.reader.read(KEY, "000", "stdout", 0, 100) == b"hello world"


async def test_a_sink_refuses_to_take_back_what_was_printed(world: LogWorld):
    sink = world.reader.sink(KEY)
    await sink.append("000", "stdout", 0, b"hello")
    with pytest.raises(Conflict):
        await sink.append("000", "stdout", 3, b"XX more")

    assert await world.reader.read(KEY, "000", "stdout", 0, 100) == b"hello"


async def test_a_sink_marks_what_never_came(world: LogWorld):
    sink = world.reader.sink(KEY)
    await sink.append("000", "stdout", 0, b"ab")
    await sink.append("000", "stdout", 5, b"fg")
    await world.end()

    assert await world.collect(is_set()) == [
        Chunk(step="000", stream="stdout", offset=0, data=b"ab"),
        Gap(step="000", stream="stdout", offset=2, to=5, is_cut=False),
        Chunk(step="000", stream="stdout", offset=5, data=b"fg"),
    ]


@pytest.mark.parametrize(
    ("step", "stream", "offset"), [("../x", "stdout", 0), ("000", "other", 0), ("000", "stdout", -1)]
)
async def test_a_sink_takes_nothing_that_is_no_stream(world: LogWorld, step, stream, offset):
    with pytest.raises(Invalid):
        await world.reader.sink(KEY).append(step, stream, offset, b"x")


async def test_logs_are_deleted_by_attempt_and_by_job(world: LogWorld):
    second = AttemptKey(KEY.uid, 2)
    world.write(b"x" * 5000)
    world.write(b"x", key=second)
    await world.end()
    await world.end(second)
    assert await world.reader.size_bytes() >= 5000
    await world.reader.delete(KEY)
    assert [len(await world.reader.streams(key)) for key in (KEY, second)] == [0, 1]
    await world.reader.delete_job(KEY.uid)

    assert await world.reader.size_bytes() == 0
    assert await world.reader.streams(second) == []
