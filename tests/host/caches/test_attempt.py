"""Caches of real attempts: restored before the first step, saved after success, by the attempt's own id."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from runyard.host import host_tree
from runyard.host.cgroups import Limits
from runyard.host.disk_watch import DiskLimits
from runyard.host.plan import PlanCache, PlanCaches, PlanFile
from runyard.model.outcome import OutcomeKind
from tests.host.world import open_world, sh

pytestmark = pytest.mark.service


def caches(folder: Path, *entries: PlanCache, **fields) -> PlanCaches:
    return PlanCaches(
        **{
            "directory": str(folder / "caches"),
            "tenant": "acme",
            "queue": "ci",
            "bytes_max": 64 << 20,
            "entry_bytes_max": 32 << 20,
            "entries": entries or (PlanCache(key="k", path="dep"),),
            **fields,
        }
    )


@pytest.fixture(params=["stage", "unstaged", "bare"])
def level(request):
    """(stage or not, the plan's fields)."""
    fields = {} if request.param == "stage" else {"user_id": None}
    if request.param == "bare":
        fields["isolation"] = "none"
    return request.param == "stage", fields


@contextlib.asynccontextmanager
async def world_at(folder: Path, is_staged: bool):
    async with open_world(folder) if is_staged else open_world(folder, stage=None) as world:
        yield world


async def test_the_second_job_finds_what_the_first_left(tmp_path, level):
    is_staged, fields = level
    if not is_staged:
        fields = {**fields, "host_tree": _tree(tmp_path)}
    at_home = PlanCache(key="h-{sha256:lock}", root="/tmp/home", path=".cache/pip")
    in_workspace = PlanCache(key="w", path="sub/dep")
    given = caches(tmp_path, in_workspace, at_home)
    files = (PlanFile(path="lock", content_base64="MQ=="),)
    async with world_at(tmp_path, is_staged) as world:
        first = await world.run(
            sh(
                "mkdir -p sub/dep/d $HOME/.cache/pip; echo 1 > sub/dep/d/a; chmod 750 sub/dep/d; ln -s d/a sub/dep/l;"
                "touch -d @1000.5 sub/dep/d/a; echo 2 > $HOME/.cache/pip/b"
            ),
            caches=given,
            files=files,
            **fields,
        )
        second = await world.run(
            sh("cat sub/dep/l $HOME/.cache/pip/b; stat -c '%a %u %.1Y' sub/dep/d sub/dep/d/a; id -u"),
            caches=given,
            files=files,
            **fields,
        )
        assert (first.outcome.kind, second.outcome.kind) == (OutcomeKind.SUCCEEDED,) * 2, second.message
        one, two, folder, file, user = second.text.splitlines()
        assert (one, two) == ("1", "2")
        assert (folder.split()[:2], file.split()[1:]) == (["750", user], [user, "1000.5"])
        assert b"sub/dep: nothing is saved under 'w'" in first.log("setup", "stderr")
        assert b"sub/dep: saved as 'w'" in first.log("setup", "stderr")
        assert b"~/.cache/pip: restored 'h-" in second.log("setup", "stderr")
        assert b"saved" not in second.log("setup", "stderr")
        assert [record["what"] for record in first.records].count("cache") == 1


def _tree(folder: Path):
    host_tree.write_generated(str(folder / "etc"))
    return host_tree.host_tree(str(folder / "etc"))


async def test_a_prefix_restores_the_newest_and_the_new_key_is_saved(tmp_path):
    async with open_world(tmp_path) as world:
        await world.run(sh("mkdir dep; echo 1 > dep/a"), caches=caches(tmp_path))
        newer = caches(tmp_path, PlanCache(key="k2", restore=("k",), path="dep"))
        second = await world.run(sh("cat dep/a; echo 2 > dep/a"), caches=newer)
        third = await world.run(sh("cat dep/a"), caches=newer)
        assert (second.text, third.text) == ("1\n", "2\n")
        assert b"restored 'k'" in second.log("setup", "stderr")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("mkdir dep; touch dep/a; exit 1", b""),
        ("true", b"nothing is saved: it is no folder"),
        ("echo > dep", b"nothing is saved: it is no folder"),
        ("mkdir dep", b"nothing is saved: it is empty"),
        ("mkdir dep; head -c 40M /dev/zero > dep/a", b"larger than 33.6 MB"),
    ],
)
async def test_nothing_is_saved_of_a_failure_of_nothing_and_of_too_much(tmp_path, script, words):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh(script), caches=caches(tmp_path))
        assert words in ran.log("setup", "stderr")
        assert (b"saved as" in ran.log("setup", "stderr")) is False
        assert (ran.outcome.kind is OutcomeKind.FAILED) == script.endswith("exit 1")
        assert list((tmp_path / "caches" / "new").iterdir()) == []
        second = await world.run(sh("ls"), caches=caches(tmp_path))
        assert second.text == ""


async def test_another_tenant_or_queue_starts_empty(tmp_path):
    async with open_world(tmp_path) as world:
        await world.run(sh("mkdir dep; echo secret > dep/a"), caches=caches(tmp_path))
        any_key = PlanCache(key="k", restore=("", "k"), path="dep")
        for fields in ({"tenant": "other"}, {"queue": "other"}):
            ran = await world.run(sh("ls"), caches=caches(tmp_path, any_key, **fields))
            assert ran.text == ""


async def test_the_job_cannot_reach_the_store(tmp_path):
    given = caches(tmp_path)
    async with open_world(tmp_path) as world:
        await world.run(sh("mkdir dep; echo secret > dep/a"), caches=given)
        ran = await world.run(
            sh(f"ls {given.directory}; ls -l /proc/self/fd | wc -l; ls /proc/*/fd/* | grep -c archives"),
            caches=given,
        )
        assert b"No such file" in ran.log(stream="stderr")
        assert ran.text.endswith("\n0\n")


async def test_a_damaged_cache_is_a_miss_and_saved_anew(tmp_path):
    async with open_world(tmp_path) as world:
        await world.run(sh("mkdir dep; echo 1 > dep/a"), caches=caches(tmp_path))
        [archive] = (tmp_path / "caches").glob("scopes/*/archives/*")
        archive.write_bytes(archive.read_bytes()[:-1] + b"x")
        ran = await world.run(sh("ls; mkdir dep; echo 2 > dep/a"), caches=caches(tmp_path))
        assert (ran.outcome.kind, ran.text) == (OutcomeKind.SUCCEEDED, "")
        assert (await world.run(sh("cat dep/a"), caches=caches(tmp_path))).text == "2\n"


async def test_links_in_the_way_lead_nowhere_but_in_the_sandbox(tmp_path):
    """A path through a link of the repository, or a link in the cache, is the job's own affair."""
    victim = tmp_path / "victim"
    victim.mkdir()
    victim.chmod(0o777)
    async with open_world(tmp_path) as world:
        await world.run(
            sh(f"mkdir dep; ln -s {victim} dep/out; ln -s /etc dep/etc; echo x > dep/a"),
            caches=caches(tmp_path),
        )
        through = caches(tmp_path, PlanCache(key="k", path="dep"), PlanCache(key="k", path="dep/out/in"))
        ran = await world.run(sh("readlink dep/out dep/etc"), caches=through)
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED
        assert ran.text == f"{victim}\n/etc\n"
        assert list(victim.iterdir()) == []


async def test_a_hostile_archive_hurts_only_its_own_job(tmp_path):
    """As if tar could be made to write one: it is unpacked as the slot's id, in the sandbox."""
    async with open_world(tmp_path) as world:
        await world.run(sh("mkdir dep; echo x > dep/a"), caches=caches(tmp_path))
        _forge(tmp_path)
        ran = await world.run(sh("ls -ln dep; ls /tmp"), caches=caches(tmp_path))
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED
        assert not list(tmp_path.rglob("escaped*"))
        assert not _exists("/tmp/escaped")


def _exists(path: str) -> bool:
    return Path(path).exists()


def _forge(folder: Path) -> None:
    """Replaces the archive by one that climbs out, with a key that names it truly."""
    [key] = (folder / "caches").glob("scopes/*/keys/*")
    [old] = (folder / "caches").glob("scopes/*/archives/*")
    with tarfile.open(old, "w") as archive:
        for name in ("../../escaped", "/tmp/escaped", "ok"):
            archive.addfile(tarfile.TarInfo(name))
        device = tarfile.TarInfo("device")
        device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
        archive.addfile(device)
        root = tarfile.TarInfo("root-owned")
        root.mode = 0o4755
        archive.addfile(root)
    digest = hashlib.sha256(old.read_bytes()).hexdigest()
    document = json.loads(key.read_text()) | {"sha256": digest, "size_bytes": old.stat().st_size}
    key.write_text(json.dumps(document))
    old.rename(old.parent / digest)


async def test_one_larger_than_the_job_may_write_is_left_out(tmp_path):
    async with open_world(tmp_path) as world:
        await world.run(sh("mkdir dep; head -c 2M /dev/urandom > dep/a"), caches=caches(tmp_path))
        ran = await world.run(sh("ls"), caches=caches(tmp_path), disk=DiskLimits(bytes_max=1 << 20))
        assert (ran.outcome.kind, ran.text) == (OutcomeKind.SUCCEEDED, "")
        assert b"the job may write 1.0 MB" in ran.log("setup", "stderr")


async def test_a_cache_on_a_pool_that_keeps_none_is_said_and_no_failure(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("mkdir dep; echo x > dep/a"), caches=caches(tmp_path, bytes_max=0))
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED
        assert b"this pool keeps none" in ran.log("setup", "stderr")


async def test_a_store_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "caches").write_text("a file in its place")
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("mkdir dep; echo x > dep/a; echo done"), caches=caches(tmp_path))
        assert (ran.outcome.kind, ran.text) == (OutcomeKind.SUCCEEDED, "done\n")
        assert b"cache: " in ran.log("setup", "stderr")


async def test_what_was_there_already_stays_under_what_is_restored(tmp_path):
    files = (PlanFile(path="dep/tracked", content_base64="MQ=="),)
    async with open_world(tmp_path) as world:
        await world.run(sh("mkdir dep; echo x > dep/a"), caches=caches(tmp_path))
        ran = await world.run(sh("ls dep"), caches=caches(tmp_path), files=files)
        assert ran.text == "a\ntracked\n"


async def test_a_job_at_its_memory_limit_can_still_restore_what_is_larger(tmp_path):
    async with open_world(tmp_path) as world:
        await world.run(sh("mkdir dep; head -c 24M /dev/urandom > dep/a"), caches=caches(tmp_path))
        ran = await world.run(
            sh("wc -c < dep/a"), caches=caches(tmp_path), limits=Limits(memory_bytes=16 << 20, pids_max=64)
        )
        assert (ran.outcome.kind, ran.text) == (OutcomeKind.SUCCEEDED, "25165824\n")
