"""What an attempt leaves: artifacts and outputs, and nothing that is not its own."""

import os
import subprocess
from pathlib import Path

import pytest

from runyard.host.plan import PlanFile
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
            git=plan_git(f"file://{repository}", tmp_path),
            files=(PlanFile(path="evil/file", content_base64="eA=="),),
        )
        assert ran.code == "workspace", ran.message
    assert list(victim.iterdir()) == []
