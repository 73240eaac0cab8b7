"""Submodules and large files come under the same rules as the repository that names them."""

import pytest

from runyard.host.repositories.lfs import read_pointers
from runyard.host.repositories.submodules import read_submodules, submodule_url
from runyard.host.setup import WorkspaceFailed
from tests.host.repositories.places import kept, make_upstream
from tests.host.repositories.servers import pointer, web_server
from tests.host.repositories.test_remotes import HTTPS, password
from tests.host.world import open_world, sh

LARGE = b"large\n" * 10_000


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    with web_server(tmp_path / "served") as server:
        yield server


def served(server, name):
    return make_upstream(server.root / name)


def with_submodule(server, name, url, inner, path="inner") -> str:
    """A repository whose submodule `path` is at `url`, at the commit of `inner`."""
    outer = served(server, name)
    outer.commit({"file": "outer\n"})
    modules = f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n'
    (outer.folder / ".gitmodules").write_text(modules)
    outer.git("add", ".gitmodules")
    outer.git("update-index", "--add", "--cacheinfo", f"160000,{inner},{path}")
    outer.git("commit", "-qm", "with a submodule")
    return f"{server.url}/{name}"


@pytest.mark.service
async def test_submodules_are_checked_out_with_their_own(tmp_path, server):
    innermost = served(server, "innermost").commit({"c": "innermost\n"})
    inner_url = with_submodule(server, "inner", "../innermost", innermost, "deep/most")
    inner = make_upstream_head(server, "inner")
    url = with_submodule(server, "outer", inner_url, inner)
    script = """
        cat file inner/file inner/deep/most/c; git status --short; git submodule status --recursive | cut -c1,43-
        echo x > inner/new; git status --short; git -C inner remote get-url origin
    """
    async with open_world(tmp_path) as world:
        for _ in range(2):
            ran = await world.run(sh(script), **kept(tmp_path, url, rules=HTTPS, submodules=True))
            lines = ran.text.splitlines()
            assert lines[:3] == ["outer", "outer", "innermost"], ran.message
            assert [line.split()[0] for line in lines[3:5]] == ["inner", "inner/deep/most"]
            assert lines[5:] == [" ? inner" if lines[5].startswith(" ?") else " M inner", inner_url]
        without = await world.run(sh("ls inner"), **kept(tmp_path, url, rules=HTTPS))
        assert without.text == ""


def make_upstream_head(server, name) -> str:
    return make_upstream(server.root / name).git("rev-parse", "HEAD")


@pytest.mark.service
@pytest.mark.parametrize(
    ("inner", "word"),
    [
        ("http://169.254.169.254/x", "metadata"), ("ext::sh -c touch% /tmp/x", "no URL"),
        ("file:///etc", "git_file_roots"), ("git://localhost/x", "git_protocols"), ("--upload-pack=x", "no URL"),
    ],
)  # fmt: skip
async def test_a_submodule_is_fetched_from_nowhere_that_a_job_may_not_fetch_from(
    tmp_path, server, inner, word
):
    url = with_submodule(server, "outer", inner, "1" * 40)
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("true"), **kept(tmp_path, url, rules=HTTPS, submodules=True))
        assert (ran.code, word in ran.message) == ("workspace", True), ran.message
        assert "submodule inner" in ran.message


@pytest.mark.service
async def test_a_submodule_does_not_lead_to_another_tenants_repository(tmp_path, server):
    """A has fetched its private one; B names it, and its commit, as a submodule of B's own."""
    (server.root / "private").mkdir()
    secret = served(server, "private/a").commit({"file": "secret\n"})
    url = with_submodule(server, "outer", f"{server.url}/private/a", secret)
    private = {"rules": HTTPS, "tenant": "a", "credentials": (password(tmp_path, server),)}
    async with open_world(tmp_path) as world:
        own = await world.run(sh("cat file"), **kept(tmp_path, f"{server.url}/private/a", **private))
        ran = await world.run(
            sh("cat inner/file"), **kept(tmp_path, url, rules=HTTPS, tenant="b", submodules=True)
        )
        assert (own.text, ran.code, ran.text) == ("secret\n", "workspace", "")


@pytest.mark.service
async def test_the_addresss_own_credentials_do_not_go_to_a_submodule_elsewhere(tmp_path, server):
    (server.root / "private").mkdir()
    inner = served(server, "private/inner").commit({"c": "inner\n"})
    with_submodule(
        server, "private/outer", f"{server.url.replace('localhost', '127.0.0.1')}/private/inner", inner
    )
    url = f"http://user:hunter2@{server.place}/private/outer"
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("true"), **kept(tmp_path, url, rules=HTTPS, submodules=True))
        assert (ran.code, "submodule inner" in ran.message) == ("workspace", True), ran.message


@pytest.mark.service
async def test_large_files_are_fetched_and_verified(tmp_path, server):
    text, oid = pointer(LARGE)
    server.large[oid] = LARGE
    upstream = served(server, "app.git")
    upstream.commit(
        {".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "a/x.bin": text, "b c.bin": text}
    )
    url = f"{server.url}/app.git"
    script = "wc -c < a/x.bin; wc -c < 'b c.bin'; git status --short; git lfs ls-files | wc -l"
    async with open_world(tmp_path) as world:
        for _ in range(2):
            ran = await world.run(sh(script), **kept(tmp_path, url, rules=HTTPS, lfs=True))
            assert ran.text.split() == ["60000", "60000", "2"], ran.message
        assert server.asked("/large/") == 1
        without = await world.run(sh("wc -c < a/x.bin"), **kept(tmp_path, url, rules=HTTPS))
        assert int(without.text) == len(text)


@pytest.mark.service
@pytest.mark.parametrize(
    ("content", "at", "word"),
    [
        (b"other", "", "sha256"),
        (LARGE, "http://169.254.169.254", "metadata"),
        (LARGE, "file:///etc", "git_protocols"),
    ],
)
async def test_large_files_come_from_nowhere_else_and_are_what_the_commit_names(
    tmp_path, server, content, at, word
):
    text, oid = pointer(LARGE)
    server.large[oid], server.large_at = content, at
    served(server, "app").commit({".gitattributes": "*.bin filter=lfs\n", "x.bin": text})
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("true"), **kept(tmp_path, f"{server.url}/app", rules=HTTPS, lfs=True))
        assert (ran.code, word in ran.message) == ("workspace", True), ran.message


def test_pointers_are_read_once_each_wherever_one_ends():
    one, two = pointer(b"a")[0].encode(), pointer(b"bb")[0].encode()
    assert sorted(file.size for file in read_pointers(one + b"no pointer\n" + one + two)) == [1, 2]


@pytest.mark.parametrize(
    ("parent", "url", "found"),
    [
        ("https://h.org/a/b.git", "../c", "https://h.org/a/c"), ("git@h.org:a/b", "../c.git", "git@h.org:a/c.git"),
        ("/srv/a/b", "./c", "/srv/a/b/c"), ("https://h.org/a", "../../../../x", "https://h.org/x"),
        ("https://h.org/a", "https://e.org/x", "https://e.org/x"),
    ],
)  # fmt: skip
def test_a_relative_submodule_counts_from_its_parent(parent, url, found):
    assert submodule_url(parent, url) == found


def test_a_submodule_that_gitmodules_does_not_name_is_an_error():
    with pytest.raises(WorkspaceFailed, match="says nothing of 'x'"):
        read_submodules(b"160000 " + b"1" * 40 + b" 0\tx\0", b"")
