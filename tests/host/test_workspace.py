"""A workspace from git, fetched without the host's files and from nowhere it should not be."""

import base64
import functools
import http.server
import subprocess
import threading
import time

import pytest

from runyard.host import addresses, git_source, name_lookup
from runyard.host.git_source import SourceRefused
from runyard.host.plan import FetchRules, PlanGit
from runyard.model.outcome import OutcomeKind
from tests.host.world import living_with, open_world, sh


def plan_git(url, root, *, allow_private_addresses=False, **fields) -> dict:
    """The parts of a plan that say what is fetched and from where it may come."""
    rules = FetchRules(
        protocols=("file", "http"), file_roots=(str(root),), allow_private_addresses=allow_private_addresses
    )
    return {"git": PlanGit(url=url, **fields), "fetch": rules}


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
            **plan_git(f"file://{folder}", tmp_path, ref=ref),
        )
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED, ran.message
        assert ran.text == f"{content}\nrunyard\nrunyard\n"


@pytest.mark.service
async def test_a_commit_is_checked_out_with_a_depth(tmp_path, repository):
    folder, commits = repository
    async with open_world(tmp_path) as world:
        git = plan_git(str(folder), tmp_path, ref=commits[0], depth=1)
        ran = await world.run(sh("cat file; git rev-parse HEAD; git remote get-url origin"), **git)
        assert ran.text == f"1\n{commits[0]}\n{folder}\n"
        assert b"checked out " + commits[0].encode() in ran.log("setup")


@pytest.mark.service
async def test_tags_come_only_when_asked_for(tmp_path, repository):
    folder, _ = repository
    async with open_world(tmp_path) as world:
        without = await world.run(sh("git tag"), **plan_git(f"file://{folder}", tmp_path))
        tags = await world.run(
            sh("git tag"), **plan_git(f"file://{folder}", tmp_path, fetch_tags=True, depth=1)
        )
        assert (without.text, tags.text) == ("", "v1\n")


@pytest.mark.service
async def test_a_missing_ref_fails_the_job_with_gits_own_words(tmp_path, repository):
    folder, _ = repository
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("echo no"), **plan_git(f"file://{folder}", tmp_path, ref="absent"))
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
            ran = await world.run(sh("true"), **plan_git(url, tmp_path / "allowed"))
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
            good = await world.run(sh("cat file"), **plan_git(url, "/", allow_private_addresses=True))
            bad = await world.run(sh("cat file"), **plan_git(url, "/"))
        server.shutdown()
        assert good.text == "2\n" or good.message
        assert good.outcome.kind is OutcomeKind.SUCCEEDED, good.message
        assert bad.code == "workspace"
        assert "not a public address" in bad.message


@pytest.mark.service
async def test_an_unreachable_remote_says_so_and_hides_the_password(tmp_path):
    async with open_world(tmp_path) as world:
        git = plan_git("http://user:hunter2@localhost:9/x.git", "/", allow_private_addresses=True)
        ran = await world.run(sh("true"), **git)
        assert ran.code == "workspace"
        assert "hunter2" not in ran.message + ran.log("setup", "stderr").decode()


@pytest.mark.service
async def test_a_fetch_that_hangs_ends_with_the_start_limit(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.git"
        async with open_world(tmp_path) as world:
            git = plan_git(url, "/", allow_private_addresses=True)
            ran = await world.run(sh("true"), **git, start_limit_s=0.8)
            assert (ran.outcome.kind, ran.code) == (OutcomeKind.TIMED_OUT, "start_timeout")


@pytest.mark.parametrize(
    "address",
    ["168.63.129.16", "192.0.0.9", "192.0.2.1", "198.51.100.1", "203.0.113.9", "198.18.0.1", "192.88.99.1", "0.1.2.3",
     "240.0.0.1", "255.255.255.255", "2001:10::1", "2001::1", "3fff::1", "5f00::1", "not-an-address", "127.0.0.1",
     "10.1.2.3", "192.168.1.1", "172.20.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1",
     "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "224.0.0.1"],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused_whatever_its_form(address):
    git = FetchRules()
    remote = git_source.parse_url("https://example.org/x")
    with pytest.raises(SourceRefused, match="not a public address"):
        git_source.pin_address(remote, git, lambda host, port: ["93.184.216.34", address])


def test_the_hosts_own_subnets_are_read_from_its_route_tables():
    head = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"
    rows = (
        "eth0 00000000 0102000A 3 0 0 0 00000000 0 0 0\neth0 0002000A 00000000 1 0 0 0 00FFFFFF 0 0 0\n"
        "tun0 00000000 00000000 1 0 0 0 00000080 0 0 0\n"
    )
    assert [str(each) for each in addresses._connected_v4(head + rows)] == ["10.0.2.0/24"]
    row = f"{'26070000':0<32} 40 {'':0<32} 00 {'':0<32} 100 1 0 1 eth0\n"
    networks = addresses._connected_v6(row)
    assert [str(each) for each in networks] == ["2607::/64"]
    assert addresses.is_public("2607::1")
    assert not addresses.is_public("2607::1", tuple(networks))


def test_a_public_address_is_pinned_for_https_and_ssh():
    git = FetchRules()
    remote = git_source.parse_url("https://example.org/x")
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
    remote, git = git_source.parse_url(url), FetchRules()
    git_source.check_protocol(remote, git)
    git_source.pin_address(remote, git, lambda host, port: ["127.0.0.1"])


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@h:port/p", "https://user:hun/ter2@h.org/p", "https://user:hunter2@[::1/p",
        "https://user:hunter2@h.org:99999/p", "https://user:hunter2@h\\@e.org/p", "https://user:hunter2@/p",
        "https://user:hunter2@h..org/p", "https://user:hunter2@" + "a" * 64 + ".org/p", "https://u:hunter2@1.2.3/p",
        "https://user:hunter2@h.org/\x7f", "https://user:hunter2@h\u00e9.org/p", "https://user:hunter2@h.org./p",
        "user:hunter2@h.org:p", "ssh://-oProxyCommand=hunter2@h.org/p", "https://u%0ahost=x:hunter2@h.org/p",
        "https://[fe80::1%25eth0]/p", "https://0x7f.1/p", "https://h.org\\@e.org/p", "https://h.org /p", "file://h/p",
        "https://h.org\r\n/p", "https://%68.org/p", "https://a_b.org/p", "https://h.org:0/p",
    ],
)  # fmt: skip
def test_a_url_that_programs_could_read_differently_is_refused_without_its_credentials(url):
    with pytest.raises(SourceRefused) as caught:
        git_source.parse_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown", "credentials"),
    [
        ("https://user:p%40ss@h.org/p?q#f", "https://h.org/p?q#f", ("user", "p@ss")),
        ("https://a@b:c@H.org:8443/p@q", "https://h.org:8443/p@q", ("a@b", "c")),
        ("https://token@h.org/p", "https://h.org/p", ("token", "")),
        ("ssh://git:secret@h.org:2222/p", "ssh://git@h.org:2222/p", ("git", "")),
        ("git@h.org:p/q.git", "git@h.org:p/q.git", ("git", "")),
    ],
)  # fmt: skip
def test_git_is_given_a_url_rebuilt_from_the_parts_that_were_read_without_credentials(
    url, shown, credentials
):
    remote = git_source.parse_url(url)
    assert (remote.url, (remote.user, remote.password)) == (shown, credentials)
    assert "secret" not in repr(remote)
    assert "p@ss" not in repr(remote)


def test_gits_own_protocol_which_takes_no_pin_fetches_from_the_address():
    remote = git_source.parse_url("git://h.org:9419/h.org")
    assert git_source.fetch_url(remote, "2600::1") == "git://[2600::1]:9419/h.org"


def test_words_about_a_url_lose_everything_before_its_last_at():
    assert git_source.redact("at https://u:p@ss@h.org/x@y: no") == "at https://h.org/x@y: no"


def test_a_resolver_that_does_not_know_what_to_say_refuses_the_source():
    git = FetchRules()
    for found in (["not-an-address"], []):
        with pytest.raises(SourceRefused):
            git_source.pin_address(
                git_source.parse_url("https://h.org/p"), git, lambda host, port, found=found: found
            )


def test_a_lookup_that_hangs_ends_when_it_must(monkeypatch):
    monkeypatch.setattr(name_lookup, "_resolve", lambda host, port: time.sleep(60))
    began = time.monotonic()
    assert name_lookup.look_up("h.org", 443, must_end=lambda: True) is None
    assert time.monotonic() - began < 5


def test_a_lookup_gives_addresses_or_the_resolvers_words():
    assert "127.0.0.1" in name_lookup.look_up("127.0.0.1", 80, must_end=lambda: False)
    for name in ("does-not-exist.invalid", "a" * 64 + ".org"):
        with pytest.raises(OSError, match=r"\w"):
            name_lookup.look_up(name, 80, must_end=lambda: False)


class PasswordHandler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("Authorization") == "Basic " + base64.b64encode(b"user:hunter2@x").decode():
            super().do_GET()
            return
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="r"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        seen_while_fetching.extend(living_with("hunter2"))


seen_while_fetching: list[int] = []


@pytest.mark.service
async def test_credentials_fetch_and_are_in_no_process_list_no_log_and_no_file_of_the_job(
    tmp_path, repository
):
    folder, _ = repository
    handler = functools.partial(PasswordHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"localhost:{server.server_address[1]}/.git"
        async with open_world(tmp_path) as world:
            git = plan_git(f"http://user:hunter2%40x@{place}", "/", allow_private_addresses=True)
            script = (
                "cat file; git remote get-url origin; grep -r hunter2 / --include=* -s -l --exclude-dir=proc"
            )
            ran = await world.run(sh(script + " --exclude-dir=usr; env"), **git)
            bad = await world.run(
                sh("true"), **plan_git(f"http://u:hunter2@{place}", "/", allow_private_addresses=True)
            )
        server.shutdown()
    assert ran.text.splitlines()[:2] == ["2", f"http://{place}"], ran.message
    assert bad.code == "workspace"
    assert seen_while_fetching == []
    for each in (ran, bad):
        printed = b"".join(each._logs.values()) + each.message.encode()
        assert b"hunter2" not in printed


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
        ran = await world.run(sh(script), **git, artifacts=("other", "d/**", "file"))
        assert ran.text == " D file\n?? d/\n?? other\n"
        kept = ran.directory.path / "artifacts"
        assert {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()} == {"other", "d/e"}
        (base,) = (ran.directory.path / "repositories").glob("*/trees/*/tree")
        assert (base / "file").read_text() == "2\n"
        assert not (base / "other").exists()
