"""The second job's workspace lies over what the first one's fetch prepared, and no job can change what others read."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from runyard.host.repositories.eviction import evict
from runyard.model.outcome import OutcomeKind
from tests.host.repositories.places import FETCH_ID, kept, make_upstream, mirrors, trees
from tests.host.test_plain_user import NOBODY, run_as_nobody
from tests.host.world import USER_ID, open_world, sh, until

pytestmark = pytest.mark.service


@pytest.fixture
def upstream(tmp_path):
    """Two commits on main, a tag on the first."""
    upstream = make_upstream(tmp_path / "upstream")
    upstream.commit({"file": "1\n", "tool": "#!/bin/sh\n", "deep/inner": "a\n", "other/thing": "b\n"})
    upstream.git("tag", "v1")
    upstream.commit({"file": "2\n"})
    return upstream


async def test_a_second_job_fetches_nothing_and_has_the_files_as_its_own(tmp_path, upstream):
    async with open_world(tmp_path) as world:
        first = await world.run(sh("cat file"), **kept(tmp_path, upstream.folder))
        tree = trees(tmp_path)
        shutil.rmtree(mirrors(tmp_path)[0])
        script = "cat file; chmod +x file; touch -d @1 tool; echo x >> deep/inner; git status --short; stat -c %U file"
        second = await world.run(sh(script), user_id=USER_ID + 7, **kept(tmp_path, upstream.folder))
    assert first.text == "2\n"
    assert second.text == "2\n M deep/inner\n M file\nrunyard\n", second.log("000", "stderr")
    assert trees(tmp_path) == tree
    assert (tree[0] / "deep/inner").read_text() == "a\n"
    assert {os.lstat(path).st_uid for path in tree[0].rglob("*")} == {FETCH_ID}


async def test_the_jobs_repository_works(tmp_path, upstream):
    script = """
        git status --short; git log --format=%s -1; git diff --stat HEAD~1 | tail -1; git remote get-url origin
        git rev-parse --abbrev-ref HEAD HEAD@{upstream}
        echo new > new; git add new; git -c user.name=a -c user.email=b@c commit -qm mine; git log --format=%s -1
        git fsck --no-dangling --no-progress; git gc -q; git status --short --branch; cat .git/refs/remotes/origin/HEAD
    """
    async with open_world(tmp_path) as world:
        for _ in range(2):
            ran = await world.run(sh(script), **kept(tmp_path, upstream.folder))
            assert ran.text.splitlines() == [
                "x", " 1 file changed, 1 insertion(+), 1 deletion(-)", str(upstream.folder), "main",
                "origin/main", "mine", "## main...origin/main [ahead 1]", "ref: refs/remotes/origin/main",
            ], ran.log("000", "stderr")  # fmt: skip


async def test_a_job_cannot_write_into_what_another_reads(tmp_path, upstream):
    hostile = """
        for file in .git/objects/pack/*; do chmod u+w $file; echo poison >> $file; done
        git config core.fsmonitor 'touch /tmp/ran'; echo poison > file; rm -rf .git/refs .git/packed-refs deep
        find / -xdev -name '*.pack' -not -path '/workspace/*' 2>/dev/null; grep -s repositories /proc/self/mountinfo
        ls /mnt; true
    """
    async with open_world(tmp_path) as world:
        first, second = await asyncio.gather(
            world.run(sh(hostile), **kept(tmp_path, upstream.folder)),
            world.run(sh(hostile), user_id=USER_ID + 1, **kept(tmp_path, upstream.folder)),
        )
        after = await world.run(
            sh("cat file deep/inner; git fsck --no-progress; git config core.fsmonitor"),
            **kept(tmp_path, upstream.folder),
        )
    assert first.outcome.kind is second.outcome.kind is OutcomeKind.SUCCEEDED, first.message
    assert (first.text, second.text) == ("", "")
    assert after.text == "2\na\n"


async def test_eight_at_once_make_one_fetch_and_one_tree(tmp_path, upstream):
    async with open_world(tmp_path) as world:
        plans = [
            world.plan(sh("cat file"), user_id=USER_ID + n, **kept(tmp_path, upstream.folder))
            for n in range(8)
        ]
        ran = await asyncio.gather(*map(world.run_plan, plans))
        assert [each.text for each in ran] == ["2\n"] * 8
        packs = list(mirrors(tmp_path)[0].glob("objects/pack/*.pack"))
        assert (len(packs), len(trees(tmp_path))) == (1, 1)


async def test_a_push_is_seen_by_the_next_job_and_a_tree_is_made_from_the_nearest(tmp_path, upstream):
    async with open_world(tmp_path) as world:
        await world.run(sh("true"), **kept(tmp_path, upstream.folder))
        upstream.commit({"file": "3\n"})
        upstream.git("branch", "side")
        ran = await world.run(
            sh("cat file; git branch -r; git status --short"), **kept(tmp_path, upstream.folder)
        )
        assert ran.text == "3\n  origin/HEAD -> origin/main\n  origin/main\n  origin/side\n", ran.message
        old, new = sorted(trees(tmp_path), key=lambda tree: (tree / "file").read_text())
        assert (old / "deep/inner").samefile(new / "deep/inner")
        assert (old / "file").read_text() == "2\n"


async def test_a_forced_push_and_a_deleted_branch_are_followed(tmp_path, upstream):
    upstream.git("branch", "a")
    async with open_world(tmp_path) as world:
        await world.run(sh("true"), **kept(tmp_path, upstream.folder))
        upstream.git("reset", "-q", "--hard", "v1")
        upstream.git("branch", "-D", "a")
        upstream.git("branch", "a/b")
        ran = await world.run(sh("cat file; git branch -r"), **kept(tmp_path, upstream.folder))
        assert ran.text == "1\n  origin/HEAD -> origin/main\n  origin/a/b\n  origin/main\n", ran.message


async def test_a_commit_that_is_gone_or_was_never_there_fails_with_the_commit_in_words(tmp_path, upstream):
    gone = "1234567890" * 4
    async with open_world(tmp_path) as world:
        for depth in (None, 1):
            ran = await world.run(sh("true"), **kept(tmp_path, upstream.folder, ref=gone, depth=depth))
            assert (ran.code, gone in ran.message) == ("workspace", True), ran.message
        short = await world.run(sh("true"), **kept(tmp_path, upstream.folder, ref="1234567"))
        assert "write all of its digits" in short.message


@pytest.mark.parametrize("ref", ["main", "v1", None])
async def test_a_depth_hides_what_lies_before(tmp_path, upstream, ref):
    git = kept(tmp_path, upstream.folder, ref=ref, depth=1)
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("git log --format=%s | wc -l; git status --short; git tag"), **git)
        assert ran.text == ("1\nv1\n" if ref == "v1" else "1\n"), ran.message


async def test_sparse_folders_alone_are_checked_out(tmp_path, upstream):
    async with open_world(tmp_path) as world:
        for _ in range(2):
            ran = await world.run(
                sh("ls; git status --short"), **kept(tmp_path, upstream.folder, sparse=("deep",))
            )
            assert ran.text == "deep\nfile\ntool\n", ran.message


@pytest.mark.parametrize("damage", ["cut off", "garbled"])
@pytest.mark.parametrize("next_one", ["fetches", "makes a tree"])
async def test_a_damaged_mirror_is_found_and_made_again(tmp_path, upstream, damage, next_one):
    async with open_world(tmp_path) as world:
        await world.run(sh("true"), **kept(tmp_path, upstream.folder))
        (pack,) = mirrors(tmp_path)[0].glob("objects/pack/*.pack")
        content = pack.read_bytes()
        os.unlink(pack)  # not the inode that the trees share
        pack.write_bytes(content[:100] if damage == "cut off" else content[:20] + bytes(200) + content[220:])
        if next_one == "fetches":
            upstream.commit({"file": "3\n"})
        ran = await world.run(
            sh("cat file deep/inner; git log --stat -2 > /dev/null"),
            **kept(tmp_path, upstream.folder, sparse=("deep",)),
        )
        assert ran.text == ("3\na\n" if next_one == "fetches" else "2\na\n"), ran.message
        assert ran.log("000", "stderr") == b""


async def test_locks_and_halves_that_a_killed_fetch_left_are_no_hindrance(tmp_path, upstream):
    async with open_world(tmp_path) as world:
        await world.run(sh("true"), **kept(tmp_path, upstream.folder))
        mirror, tree = mirrors(tmp_path)[0], trees(tmp_path)[0].parent
        for name in ("shallow.lock", "packed-refs.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_x"):
            (mirror / name).write_text("")
            os.chown(mirror / name, FETCH_ID, FETCH_ID)
        shutil.copytree(tree, tree.with_name(tree.name + ".new"))
        shutil.rmtree(tree)
        upstream.commit({"file": "3\n"})
        ran = await world.run(sh("cat file"), **kept(tmp_path, upstream.folder))
        again = await world.run(sh("cat file"), **kept(tmp_path, upstream.folder, ref="v1"))
        assert (ran.text, again.text) == ("3\n", "1\n"), ran.message
        assert not list(mirror.rglob("*.lock"))


async def test_a_shim_killed_while_it_fetches_leaves_the_lock_and_the_work_to_the_next(tmp_path, upstream):
    """Killed again and again, at whatever it is doing then; in the end the workspace is right."""
    async with open_world(tmp_path) as world:
        for number in range(12):
            plan = world.plan(sh("cat file"), **kept(tmp_path, upstream.folder))
            directory = world.directory(plan)
            running = asyncio.create_task(world.runner.run(directory, lambda plan=plan: plan, _ignore))
            await until(lambda directory=directory: directory.shim_pid() is not None)
            await asyncio.sleep(0.01 * number)  # nothing to wait for: each kill is to come at another moment
            pid = directory.shim_pid()
            if directory.is_alive():
                os.kill(pid, signal.SIGKILL)
            await running
        ran = await world.run(sh("cat file; git fsck --no-progress"), **kept(tmp_path, upstream.folder))
        assert ran.text == "2\n", ran.message


async def test_the_oldest_trees_go_first_and_never_one_that_is_in_use(tmp_path, upstream):
    store = str(tmp_path / "store")
    async with open_world(tmp_path) as world:
        await world.run(sh("true"), **kept(tmp_path, upstream.folder, ref="v1"))
        plan = world.plan(
            sh(
                "echo up > $RUNYARD_OUTPUTS/up; while [ -e file ] && [ ! -e /tmp/go ]; do sleep 0.01; done; cat tool"
            ),
            **kept(tmp_path, upstream.folder),
        )
        plan.steps[0].env["RUNYARD_OUTPUTS"] = "/outputs"
        running = asyncio.create_task(world.run_plan(plan))
        await until((tmp_path / plan.name / "outputs/up").exists)
        assert len(trees(tmp_path)) == 2
        evict(store, 0)
        (left,) = trees(tmp_path)
        assert (left / "file").read_text() == "2\n"
        assert mirrors(tmp_path)
        (tmp_path / plan.name / "tmp/go").write_text("")
        assert (await running).text == "#!/bin/sh\n"
        await until(lambda: not world.directories[-1].is_alive())
        assert evict(store, 0) == 0
        assert (trees(tmp_path), mirrors(tmp_path)) == ([], [])
        again = await world.run(sh("cat file"), **kept(tmp_path, upstream.folder))
        assert again.text == "2\n"


async def test_another_tenants_repository_is_not_served_by_a_commits_name(tmp_path, upstream):
    """What tenant A fetched is A's; B's job asks the remote itself, and it no longer gives that commit."""
    secret = upstream.commit({"file": "secret\n"})
    async with open_world(tmp_path) as world:
        await world.run(sh("true"), **kept(tmp_path, upstream.folder, tenant="a", ref=secret))
        upstream.git("reset", "-q", "--hard", "HEAD~1")
        upstream.git("reflog", "expire", "--expire=now", "--all")
        upstream.git("gc", "-q", "--prune=now")
        own = await world.run(sh("cat file"), **kept(tmp_path, upstream.folder, tenant="a", ref=secret))
        other = await world.run(sh("cat file"), **kept(tmp_path, upstream.folder, tenant="b", ref=secret))
        assert own.text == "secret\n"
        assert (other.code, secret in other.message) == ("workspace", True)


def test_without_root_each_job_gets_a_checkout_of_its_own_from_the_mirror():
    with tempfile.TemporaryDirectory(prefix="runyard-nobody-store-") as name:
        folder = Path(name)
        upstream = make_upstream(folder / "upstream")
        upstream.commit({"file": "1\n"})
        os.chmod(folder, 0o755)
        (folder / "store").mkdir()
        os.chown(folder / "store", NOBODY, NOBODY)
        hostile = (
            "cat file; git status --short; cd .git/objects/pack; chmod u+w *; for f in *; do : > $f; done"
        )
        for _ in range(2):
            records, logs = run_as_nobody(
                sh(hostile), **kept(folder, upstream.folder, rules={"user_id": None})
            )
            assert logs["000.stdout"] == "1\n", records
        (mirror,) = mirrors(folder)
        assert (
            subprocess.run(
                ["git", "-c", "safe.directory=*", "-C", str(mirror), "fsck"], check=False
            ).returncode
            == 0
        )


async def _ignore(record) -> None:
    pass
