"""A file of the workspace by URL: verified, bounded, and never from where a pool lets nobody fetch."""

import hashlib

import pytest

from runyard.host.disk_watch import DiskLimits
from runyard.host.plan import FetchRules, PlanFile
from tests.host.repositories.places import FETCH_ID
from tests.host.repositories.servers import web_server
from tests.host.world import open_world, sh

pytestmark = pytest.mark.service
CONTENT = b"#!/bin/sh\necho tool\n" + bytes(100_000)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    with web_server(tmp_path / "served") as server:
        server.files["/tool"] = CONTENT
        yield server


def by_url(url, *, content=CONTENT, protocols=("http",), is_private=True, path="bin/tool", **rules) -> dict:
    file = PlanFile(path=path, url=url, sha256=hashlib.sha256(content).hexdigest())
    fetch = FetchRules(protocols=protocols, allow_private_addresses=is_private, user_id=FETCH_ID, **rules)
    return {"files": (file,), "fetch": fetch}


async def test_a_file_comes_by_its_url_with_its_folders_as_the_jobs_own(tmp_path, server):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("stat -c '%U %a %s' bin/tool bin"), **by_url(f"{server.url}/tool"))
        assert ran.text.splitlines()[0] == f"runyard 755 {len(CONTENT)}", ran.message
        assert any(record["what"] == "progress" for record in ran.records)


async def test_a_redirect_is_followed_to_where_the_pool_allows(tmp_path, server):
    server.redirects["/old"] = "/tool"
    server.redirects["/away"] = "http://169.254.169.254/latest/meta-data"
    server.redirects["/file"] = "file:///etc/passwd"
    server.redirects["/round"] = "/round"
    async with open_world(tmp_path) as world:
        good = await world.run(sh("ls bin"), **by_url(f"{server.url}/old"))
        assert good.text == "tool\n", good.message
        for path, word in (("away", "metadata"), ("file", "protocol"), ("round", "5 times")):
            ran = await world.run(sh("true"), **by_url(f"{server.url}/{path}"))
            assert (ran.code, word in ran.message) == ("workspace", True), ran.message


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"content": b"other"}, "sha256"), ({"is_private": False}, "allow_private_addresses"),
        ({"protocols": ("https", "file")}, "git_protocols"), ({"path": "a"}, None),
    ],
)  # fmt: skip
async def test_what_may_not_be_or_is_not_what_was_asked_for_fails_in_clear_words(
    tmp_path, server, change, word
):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("ls"), **by_url(f"{server.url}/tool", **change))
        if word is None:
            assert ran.text == "a\n"
            return
        assert (ran.code, word in ran.message) == ("workspace", True), ran.message
        assert "bin/tool" in ran.message
        assert not list((ran.directory.path / "workspace").rglob("tool"))


async def test_a_missing_file_one_too_large_and_an_unreachable_host_say_so(tmp_path, server):
    async with open_world(tmp_path) as world:
        for url, word in ((f"{server.url}/none", "404"), ("http://localhost:9/x", "refused")):
            ran = await world.run(sh("true"), **by_url(url))
            assert (ran.code, word in ran.message) == ("workspace", True), ran.message
        ran = await world.run(sh("true"), disk=DiskLimits(bytes_max=50_000), **by_url(f"{server.url}/tool"))
        assert "more than 50000" in ran.message


@pytest.mark.parametrize("place", ["169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"])
async def test_the_metadata_address_is_closed_even_where_private_ones_are_allowed(tmp_path, place):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("true"), **by_url(f"http://{place}/latest/meta-data"))
        assert (ran.code, "metadata" in ran.message) == ("workspace", True), ran.message
