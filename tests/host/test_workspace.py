"""A workspace from git, fetched without the host's files and from nowhere it should not be."""

import functools
import http.server
import subprocess
import threading

import pytest

from runyard.host import git_source
from runyard.host.git_source import SourceRefused
from runyard.host.plan import PlanGit
from runyard.model.outcome import OutcomeKind
from tests.host.world import open_world, sh


def plan_git(url, root, **fields) -> PlanGit:
    return PlanGit(**{"url": url, "protocols": ("file", "http"), "file_roots": (str(root),), **fields})


@pytest.fixture
def repository(tmp_path):
    """Two commits on main, a tag on the first, a branch `next`. Yields (folder, [commit, commit])."""
    folder = tmp_path / "repository"

    def git(*words):
        argv = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=b@c", *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    commits = []
    for number in ("1", "2"):
        (folder / "file").write_text(f"{number}\n")
        git("add", ".")
        git("commit", "-qm", number)
        commits.append(git("rev-parse", "HEAD"))
        if number == "1":
            git("tag", "v1")
    git("branch", "next", commits[0])
    git("update-server-info")
    return folder, commits


@pytest.mark.service
@pytest.mark.parametrize(
    ("ref", "content"), [(None, "2"), ("main", "2"), ("next", "1"), ("v1", "1"), ("refs/heads/next", "1")]
)
async def test_a_branch_a_tag_or_the_head_is_checked_out(tmp_path, repository, ref, content):
    folder, _ = repository
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("cat file; git status --short; stat -c %U file .git"),
            git=plan_git(f"file://{folder}", tmp_path, ref=ref),
        )
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED, ran.message
        assert ran.text == f"{content}\nrunyard\nrunyard\n"


@pytest.mark.service
async def test_a_commit_is_checked_out_with_a_depth(tmp_path, repository):
    folder, commits = repository
    async with open_world(tmp_path) as world:
        git = plan_git(str(folder), tmp_path, ref=commits[0], depth=1)
        ran = await world.run(sh("cat file; git rev-parse HEAD; git remote get-url origin"), git=git)
        assert ran.text == f"1\n{commits[0]}\n{folder}\n"
        assert b"checked out " + commits[0].encode() in ran.log("setup")


@pytest.mark.service
async def test_tags_come_only_when_asked_for(tmp_path, repository):
    folder, _ = repository
    async with open_world(tmp_path) as world:
        without = await world.run(sh("git tag"), git=plan_git(f"file://{folder}", tmp_path))
        tags = await world.run(
            sh("git tag"), git=plan_git(f"file://{folder}", tmp_path, fetch_tags=True, depth=1)
        )
        assert (without.text, tags.text) == ("", "v1\n")


@pytest.mark.service
async def test_a_missing_ref_fails_the_job_with_gits_own_words(tmp_path, repository):
    folder, _ = repository
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("echo no"), git=plan_git(f"file://{folder}", tmp_path, ref="absent"))
        assert (ran.outcome.kind, ran.code, ran.outcome.was_seen) == (OutcomeKind.FAILED, "workspace", False)
        assert "absent" in ran.message
        assert b"absent" in ran.log("setup", "stderr")


@pytest.mark.service
async def test_a_repository_outside_the_pools_folders_is_refused(tmp_path, repository):
    folder, _ = repository
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed/link").symlink_to(folder)
    async with open_world(tmp_path) as world:
        for url in (
            f"file://{folder}",
            f"file://{tmp_path}/allowed/link",
            f"file://{tmp_path}/allowed/../repository",
        ):
            ran = await world.run(sh("true"), git=plan_git(url, tmp_path / "allowed"))
            assert ran.code == "workspace"
            assert "git_file_roots" in ran.message


@pytest.mark.service
async def test_http_works_where_private_addresses_are_allowed_and_is_refused_where_not(tmp_path, repository):
    folder, _ = repository
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://localhost:{server.server_address[1]}/.git"
        async with open_world(tmp_path) as world:
            good = await world.run(sh("cat file"), git=plan_git(url, "/", allow_private_addresses=True))
            bad = await world.run(sh("cat file"), git=plan_git(url, "/"))
        server.shutdown()
        assert good.text == "2\n" or good.message
        assert good.outcome.kind is OutcomeKind.SUCCEEDED, good.message
        assert bad.code == "workspace"
        assert "not a public address" in bad.message


@pytest.mark.service
async def test_an_unreachable_remote_says_so_and_hides_the_password(tmp_path):
    async with open_world(tmp_path) as world:
        git = plan_git("http://user:hunter2@localhost:9/x.git", "/", allow_private_addresses=True)
        ran = await world.run(sh("true"), git=git)
        assert ran.code == "workspace"
        assert "hunter2" not in ran.message + ran.log("setup", "stderr").decode()


@pytest.mark.service
async def test_a_fetch_that_hangs_ends_with_the_start_limit(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.git"
        async with open_world(tmp_path) as world:
            git = plan_git(url, "/", allow_private_addresses=True)
            ran = await world.run(sh("true"), git=git, start_limit_s=0.8)
            assert (ran.outcome.kind, ran.code) == (OutcomeKind.TIMED_OUT, "start_timeout")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.1.1", "172.20.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1",
     "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1"],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused_whatever_its_form(address):
    git = PlanGit(url="https://example.org/x")
    remote = git_source.parse_url(git.url)
    with pytest.raises(SourceRefused, match="not a public address"):
        git_source.pin_address(remote, git, lambda host, port: ["93.184.216.34", address])


def test_a_public_address_is_pinned_for_https_and_ssh():
    git = PlanGit(url="https://example.org/x")
    remote = git_source.parse_url(git.url)
    address = git_source.pin_address(remote, git, lambda host, port: ["93.184.216.34"])
    env = git_source.environment(remote, git, address)
    assert "example.org:443:93.184.216.34" in env.values()
    assert "HostName=93.184.216.34" in env["GIT_SSH_COMMAND"]


@pytest.mark.parametrize(
    ("url", "protocol", "host", "port"),
    [
        ("https://h.org/p.git", "https", "h.org", 443), ("ssh://git@h.org:2222/p", "ssh", "h.org", 2222),
        ("git@h.org:p/q.git", "ssh", "h.org", 22), ("h.org:p", "ssh", "h.org", 22),
        ("https://[2001:db8::1]:8443/p", "https", "2001:db8::1", 8443),
    ],
)  # fmt: skip
def test_urls_are_read_as_git_reads_them(url, protocol, host, port):
    remote = git_source.parse_url(url)
    assert (remote.protocol, remote.host, remote.port) == (protocol, host, port)


@pytest.mark.parametrize(
    "url",
    [
        "--upload-pack=evil",
        "ext::sh -c evil",
        "-oProxyCommand=evil:x",
        "https:///p",
        "https://h:port/p",
        "nothing",
    ],
)
def test_what_is_no_url_or_no_allowed_protocol_is_refused(url):
    with pytest.raises(SourceRefused):
        ask_for(url)


def ask_for(url):
    remote, git = git_source.parse_url(url), PlanGit(url=url)
    git_source.check_protocol(remote, git)
    git_source.pin_address(remote, git, lambda host, port: ["127.0.0.1"])


@pytest.mark.parametrize("ref", ["--upload-pack=x", "a b", "a:b", "a..b^", " "])
def test_a_ref_that_is_none_is_refused(ref):
    with pytest.raises(SourceRefused):
        git_source.check_ref(ref)


@pytest.mark.service
async def test_steps_write_into_a_layer_over_the_clone_which_stays_as_it_was_fetched(tmp_path, repository):
    folder, _ = repository
    async with open_world(tmp_path) as world:
        git = plan_git(str(folder), tmp_path)
        script = "rm file; echo new > other; mkdir d; echo x > d/e; git status --porcelain | sort"
        ran = await world.run(sh(script), git=git, artifacts=("other", "d/**", "file"))
        assert ran.text == " D file\n?? d/\n?? other\n"
        kept = ran.directory.path / "artifacts"
        assert {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()} == {"other", "d/e"}
        assert (ran.directory.path / "base" / "file").read_text() == "2\n"
        assert not (ran.directory.path / "base" / "other").exists()
