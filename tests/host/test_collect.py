"""What an attempt leaves: artifacts and outputs, and nothing that is not its own."""

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from runyard.host.collect import collect_artifacts
from runyard.host.disk_watch import DiskLimits
from runyard.host.plan import Plan, PlanFile
from runyard.model.outcome import OutcomeKind
from tests.host.test_workspace import plan_git
from tests.host.world import open_world, sh

pytestmark = pytest.mark.service


def artifacts(ran) -> dict[str, bytes]:
    folder = ran.directory.path / "artifacts"
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


async def test_globs_take_files_and_whole_folders_by_their_path(tmp_path):
    script = "mkdir -p a/b c; echo 1 > a/1.txt; echo 2 > a/b/2.txt; echo 3 > c/3.log; echo 4 > top.txt"
    async with open_world(tmp_path) as world:
        ran = await world.run(sh(script), artifacts=("**/*.txt", "c"))
        assert artifacts(ran) == {
            "a/1.txt": b"1\n",
            "a/b/2.txt": b"2\n",
            "c/3.log": b"3\n",
            "top.txt": b"4\n",
        }


async def test_artifacts_and_outputs_are_collected_after_a_failure(tmp_path):
    script = "echo report > r.txt; echo -n 42 > n; echo -n seen > /outputs/state; exit 1"
    async with open_world(tmp_path) as world:
        ran = await world.run(sh(script), artifacts=("r.txt",), outputs={"answer": "n"})
        assert artifacts(ran) == {"r.txt": b"report\n"}
        assert ran.end.outputs == {"answer": "42", "state": "seen"}
        assert ran.outcome.kind is OutcomeKind.FAILED


async def test_a_missing_artifact_or_output_is_said_and_fails_nothing(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("true"), artifacts=("none/*.xml",), outputs={"a": "missing"})
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED
        said = ran.log("setup", "stderr").decode()
        assert "nothing matches 'none/*.xml'" in said
        assert "missing is not there" in said


async def test_links_fifos_and_devices_are_never_followed_or_opened(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    script = f"""
        ln -s {secret} link; ln -s / all; mkfifo fifo; mkdir d; ln -s {tmp_path} d/up; ln -s {secret} /outputs/link
        mkfifo /outputs/fifo; echo real > d/real
    """
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh(script),
            artifacts=("**",),
            outputs={"a": "link", "b": "all/etc/passwd", "c": "fifo", "d": "../x"},
        )
        assert artifacts(ran) == {"d/real": b"real\n"}
        assert ran.end.outputs == {}


async def test_what_is_not_text_or_too_long_is_no_output(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("printf '\\377' > /outputs/a; head -c 70000 /dev/zero > /outputs/b; echo x > '/outputs/b c'")
        )
        assert ran.end.outputs == {}
        assert len(ran.log("setup", "stderr").splitlines()) == 3


async def test_artifacts_beyond_the_bound_are_left_out_and_it_is_said(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("echo 1 > a; head -c 5000 /dev/zero > b"), artifacts=("*",), artifact_bytes_max=4096
        )
        assert artifacts(ran) == {"a": b"1\n"}
        assert b"more than 4096 bytes match" in ran.log("setup", "stderr")


def collect(tmp_path, must_end=lambda: None, patterns=("**",), **fields):
    """What was said while `workspace` was collected into `artifacts`."""
    said: list[str] = []
    plan = Plan(
        name="n", boot_id="b", created_at=0, created_boottime=0, steps=(), log_directory="", artifacts=patterns,
        artifact_directory=str(tmp_path / "artifacts"), **fields,
    )  # fmt: skip
    collect_artifacts(plan, str(tmp_path / "workspace"), said.append, must_end)
    return said


def test_holes_stay_holes_and_cost_nothing_of_the_bound(tmp_path):
    (tmp_path / "workspace").mkdir()
    with open(tmp_path / "workspace/sparse", "wb") as file:
        for offset in (1 << 30, 3 << 30):
            file.seek(offset)
            file.write(b"data")
        file.truncate(5 << 30)
    assert collect(tmp_path, artifact_bytes_max=1 << 20) == []
    kept = os.stat(tmp_path / "artifacts/sparse")
    assert (kept.st_size, kept.st_blocks * 512 < 1 << 20) == (5 << 30, True)
    with open(tmp_path / "artifacts/sparse", "rb") as file:
        file.seek((3 << 30) - 1)
        assert file.read(5) == b"\0data"


def test_a_word_to_end_is_heard_within_a_large_file_and_the_part_is_removed(tmp_path):
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace/big").write_bytes(b"x" * (40 << 20))
    asked = itertools.count()
    said = collect(tmp_path, lambda: "it was stopped" if next(asked) > 2 else None)
    assert said == ["artifacts: it was stopped; the rest is left out"]
    assert os.listdir(tmp_path / "artifacts") == []


def test_collecting_ends_above_the_disks_reserve(tmp_path):
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace/file").write_bytes(b"x")
    said = collect(tmp_path, disk=DiskLimits(reserve_bytes=1 << 60))
    assert "disk_reserve" in said[0]
    assert os.listdir(tmp_path / "artifacts") == []


def test_a_pattern_of_many_stars_is_looked_at_once(tmp_path):
    (tmp_path / "workspace/a").mkdir(parents=True)
    (tmp_path / "workspace/a/x").write_bytes(b"x")
    assert collect(tmp_path, patterns=("**/" * 3000 + "x",)) == []
    assert (tmp_path / "artifacts/a/x").exists()


def test_a_path_too_long_to_keep_is_said_and_the_others_are_kept(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    for name in ["workspace", *["d" * 250] * 20]:
        os.mkdir(name, dir_fd=folder)
        folder = os.open(name, os.O_RDONLY, dir_fd=folder)
    os.close(os.open("x", os.O_CREAT, dir_fd=folder))
    (tmp_path / "workspace/y").touch()
    said = collect(tmp_path)
    assert len(said) == 1
    assert "name too long" in said[0]
    assert (tmp_path / "artifacts/y").exists()


async def test_a_time_bound_ends_collecting_and_the_job_keeps_its_outcome(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("echo x > a"), artifacts=("*",), collect_limit_s=-1.0)
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED
        assert b"collecting took longer than" in ran.log("setup", "stderr")


async def test_a_name_that_is_no_text_is_kept_as_it_is(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("echo x > \"$(printf 'a\\377b')\""), artifacts=("*",))
        assert os.listdir(os.fsencode(Path(ran.directory.path) / "artifacts")) == [b"a\xffb"]


def repository_with_link(folder: Path, target: Path) -> Path:
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=b"]
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / "evil").symlink_to(target)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "m"], check=True)
    return folder


async def test_a_file_of_the_job_does_not_follow_a_link_that_a_repository_brought(tmp_path):
    """Files go over the repository: `evil -> /host/folder` in it must not carry them away."""
    victim = tmp_path / "victim"
    victim.mkdir()
    repository = repository_with_link(tmp_path / "repo", victim)
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("true"),
            **plan_git(f"file://{repository}", tmp_path),
            files=(PlanFile(path="evil/file", content_base64="eA=="),),
        )
        assert ran.code == "workspace", ran.message
    assert list(victim.iterdir()) == []
