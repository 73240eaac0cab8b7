"""The process that unpacks: whatever becomes of a layer, whoever waits for it is answered."""

import asyncio

from runyard.host.images.unpacker import Unpacker
from tests.host.images.layers import archive, digest_of, entry


async def test_a_request_that_nobody_foresaw_is_answered_and_the_next_one_is_served(tmp_path):
    data = archive(entry("f", "x"))
    (tmp_path / "blob").write_bytes(data)
    (tmp_path / "root").mkdir()
    unpacker = Unpacker(processes=1)
    try:
        async with asyncio.timeout(30):
            wrong = {"blob": "/\0", "root": "/", "lowers": [], "diff_id": "", "limits": {}}
            assert "ValueError" in str(await unpacker._ask(wrong, lambda count: None))
            facts = await unpacker.unpack(
                tmp_path / "blob", tmp_path / "root", diff_id=digest_of(data), lowers=[]
            )
    finally:
        await unpacker.close()
    assert facts.entries == 1
