"""Repositories come from real servers over https and ssh, with credentials that only the fetch sees."""

import asyncio
import secrets
import shutil

import pytest

from runyard.host.git_source import parse_url
from runyard.host.plan import PlanCredential
from runyard.host.repositories.credentials import choose
from tests.host.repositories.places import kept, make_upstream, mirrors
from tests.host.repositories.servers import SSHD, ssh_server, web_server
from tests.host.world import USER_ID, living_with, open_world, sh

HTTPS = {"protocols": ("https", "http", "ssh", "file"), "allow_private_addresses": True}


@pytest.fixture
def upstream(tmp_path):
    upstream = make_upstream(tmp_path / "served/private/app")
    upstream.commit({"file": "1\n"})
    make_upstream(tmp_path / "served/app").commit({"file": "public\n"})
    return upstream


@pytest.fixture
def server(tmp_path, upstream):
    with web_server(tmp_path / "served", tls=True) as server:
        yield server


def rules(server) -> dict:
    return {**HTTPS, "ca_file": str(server.ca_file)}


def password(tmp_path, server, path="/private", username="user", word="hunter2") -> PlanCredential:
    file = tmp_path / f"password-{word}"
    file.write_text(f"{word}\n")
    return PlanCredential(url=server.url + path, username=username, password_file=str(file))


@pytest.mark.service
async def test_a_certificate_of_the_operators_own_authority_is_believed_and_no_other(tmp_path, server):
    async with open_world(tmp_path) as world:
        good = await world.run(sh("cat file"), **kept(tmp_path, f"{server.url}/app", rules=rules(server)))
        bad = await world.run(sh("cat file"), **kept(tmp_path, f"{server.url}/app", rules=HTTPS, tenant="b"))
        assert good.text == "public\n", good.message
        assert (bad.code, "certificate" in bad.message) == ("workspace", True)


@pytest.mark.service
async def test_the_pools_password_fetches_and_is_seen_by_no_job_no_process_list_and_no_file(tmp_path, server):
    word = secrets.token_hex(8)  # of this test alone: others on this host have passwords too
    server.login, url = f"user:{word}", f"{server.url}/private/app"
    script = (
        f"cat file; env; git config -l; w={word[:8]}; echo ${{w}}{word[8:]} > /tmp/w; grep -rslf /tmp/w /"
        " --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr --exclude=w; true"
    )
    seen: list[int] = []
    credentials = (password(tmp_path, server, word=word),)
    async with open_world(tmp_path) as world:
        git = kept(tmp_path, url, rules=rules(server), credentials=credentials)
        running = asyncio.create_task(world.run(sh(script), **git))
        while not running.done():
            seen += living_with(word)
            await asyncio.sleep(0.005)  # to look again, as often as it can be seen
        ran = running.result()
        kept_files = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
        without = await world.run(sh("true"), **kept(tmp_path, url, rules=rules(server)))
        assert ran.text.startswith("1\n"), ran.message
        assert word.encode() not in b"".join(ran._logs.values()) + ran.message.encode()
        assert not [path for path in kept_files if word.encode() in path.read_bytes()]
        assert seen == []
        assert without.code == "workspace"


@pytest.mark.service
async def test_what_one_tenants_credentials_fetched_is_not_served_without_them(tmp_path, server, upstream):
    """Neither to another tenant, nor to the same one with other credentials, and not by the commit's name."""
    commit, url = upstream.git("rev-parse", "HEAD"), f"{server.url}/private/app"
    right, wrong = password(tmp_path, server), password(tmp_path, server, word="wrong")
    async with open_world(tmp_path) as world:
        for ref in (None, commit):
            own = await world.run(
                sh("cat file"),
                **kept(tmp_path, url, rules=rules(server), ref=ref, tenant="a", credentials=(right,)),
            )
            assert own.text == "1\n", own.message
            for tenant, offered in (("b", ()), ("b", (wrong,)), ("a", (wrong,)), ("a", ())):
                ran = await world.run(
                    sh("cat file"),
                    **kept(tmp_path, url, rules=rules(server), ref=ref, tenant=tenant, credentials=offered),
                )
                assert (ran.code, ran.text) == ("workspace", ""), (tenant, offered)


@pytest.mark.service
async def test_rights_that_were_taken_away_end_within_the_stated_time(
    tmp_path, server, upstream, monkeypatch
):
    """A branch is asked for by each job; a commit's name counts as asked for a minute."""
    commit, url = upstream.git("rev-parse", "HEAD"), f"{server.url}/private/app"
    git = {"rules": rules(server), "credentials": (password(tmp_path, server),)}
    async with open_world(tmp_path) as world:
        await world.run(sh("true"), **kept(tmp_path, url, ref=commit, **git))
        server.login = "user:changed"
        by_branch = await world.run(sh("true"), **kept(tmp_path, url, ref="main", **git))
        at_once = await world.run(sh("cat file"), **kept(tmp_path, url, ref=commit, **git))
        for answer in (tmp_path / "store").glob("*/answers/*"):
            text = answer.read_text()
            begin = text.index('"asked_at": ') + 12
            asked_at = float(text[begin : text.index(",", begin)])
            answer.write_text(text.replace(str(asked_at), str(asked_at - 61)))
        later = await world.run(sh("cat file"), **kept(tmp_path, url, ref=commit, **git))
        assert (by_branch.code, at_once.text, later.code) == ("workspace", "1\n", "workspace")


@pytest.mark.service
async def test_eight_jobs_at_once_download_the_repository_once(tmp_path, server):
    async with open_world(tmp_path) as world:
        git = kept(tmp_path, f"{server.url}/app", rules=rules(server))
        plans = [world.plan(sh("cat file"), user_id=USER_ID + number, **git) for number in range(8)]
        ran = await asyncio.gather(*map(world.run_plan, plans))
    assert [each.text for each in ran] == ["public\n"] * 8
    questions, packs = server.asked("GET /app/info/refs"), server.asked("POST /app/git-upload-pack")
    assert questions <= 9
    assert len(list(mirrors(tmp_path)[0].glob("objects/pack/*.pack"))) == 1
    assert packs <= questions + 1


@pytest.mark.service
async def test_git_follows_no_redirect(tmp_path, server):
    server.redirects["/moved/info/refs"] = f"{server.url}/app/info/refs?service=git-upload-pack"
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("true"), **kept(tmp_path, f"{server.url}/moved", rules=rules(server)))
        assert ran.code == "workspace"
        assert server.asked("/app/") == 0


@pytest.mark.service
@pytest.mark.parametrize("url", ["http://169.254.169.254/x", "http://[::ffff:169.254.169.254]/x"])
async def test_the_metadata_address_is_closed_even_where_private_ones_are_allowed(tmp_path, url):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("true"), **kept(tmp_path, url, rules=HTTPS))
        assert (ran.code, "metadata" in ran.message) == ("workspace", True), ran.message


@pytest.mark.service
@pytest.mark.skipif(shutil.which(SSHD) is None, reason="openssh-server is not installed")
async def test_over_ssh_a_key_fetches_and_a_host_with_another_key_is_refused(tmp_path, upstream):
    with ssh_server(tmp_path / "ssh") as server:
        url = f"ssh://root@localhost:{server.port}{upstream.folder}"
        credential = PlanCredential(
            url=f"ssh://localhost:{server.port}/",
            ssh_key_file=str(server.key_file),
            known_hosts_file=str(server.known_hosts_file),
        )
        async with open_world(tmp_path) as world:
            git = kept(tmp_path, url, rules=HTTPS, credentials=(credential,))
            script = (
                "cat file; git remote get-url origin; ls -A /tmp; cat /proc/self/mountinfo | grep -c scratch"
            )
            good = await world.run(sh(script), **git)
            other = (tmp_path / "ssh/key.pub").read_text()
            server.known_hosts_file.write_text(f"[localhost]:{server.port} {other}")
            bad = await world.run(
                sh("true"), **kept(tmp_path, url, rules=HTTPS, tenant="b", credentials=(credential,))
            )
            none = await world.run(sh("true"), **kept(tmp_path, url, rules=HTTPS, tenant="c"))
    assert good.text == f"1\n{url}\nhome\n0\n", good.message + good.text
    assert (bad.code, none.code) == ("workspace", "workspace")
    assert "Host key verification failed" in bad.log("setup", "stderr").decode()


@pytest.mark.parametrize(
    ("url", "chosen"),
    [
        ("https://h.org/team/app.git", "team"), ("https://h.org/team", "team"), ("https://h.org/teams/app", "all"),
        ("https://h.org:8443/team/app", None), ("http://h.org/team/app", None), ("https://h.org.evil.org/team", None),
        ("https://h.org/other/../team/app", None), ("https://h.org/%2e%2e/team", None), ("git@h.org:team/x", "ssh"),
        ("ssh://git@h.org/team/x", "ssh"), ("https://evil.org/h.org/team", None),
    ],
)  # fmt: skip
def test_a_credential_is_for_its_own_host_and_whole_parts_of_the_path(url, chosen):
    offered = [
        PlanCredential(url="https://h.org/", username="all"),
        PlanCredential(url="https://h.org/team", username="team"),
        PlanCredential(url="ssh://h.org/team", username="ssh"),
    ]
    found = choose(parse_url(url), offered)
    assert (found.username if found else None) == chosen
