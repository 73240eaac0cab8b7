"""Trees that a job left, however hostile, are removed: deep, closed, linked, large."""

import os
import resource
import subprocess
import tempfile
from pathlib import Path

import pytest

from runyard.host.removal import remove_tree
from runyard.model.outcome import OutcomeKind
from tests.host.world import open_world, sh

pytestmark = pytest.mark.service
DIG = "import os\nfor _ in range(12_000): os.mkdir('d'); os.chdir('d')\nopen('bottom', 'w').close()"


def dig(folder, script=DIG):
    folder.mkdir()
    subprocess.run(["python3", "-c", script], cwd=folder, check=True)


@pytest.fixture
def few_descriptors():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))  # what other tests of this process hold open
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_tree_of_any_depth_is_removed_with_few_descriptors(few_descriptors):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:  # where a directory costs no disk
        dig(Path(folder) / "deep")
        remove_tree(Path(folder) / "deep")
        assert os.listdir(folder) == []


def test_missing_is_success_and_a_file_or_a_link_goes_itself(tmp_path):
    remove_tree(tmp_path / "missing")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("kept")
    remove_tree(tmp_path / "file")
    remove_tree(tmp_path / "link")
    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(tmp_path / "kept") == ["file"]


def test_links_in_it_are_removed_and_never_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").touch()
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(victim)
    (tree / "up").symlink_to("..")
    os.mkfifo(tree / "fifo")
    remove_tree(tree)
    assert os.listdir(tmp_path) == ["victim"]
    assert os.listdir(victim) == ["file"]


def test_an_ordinary_user_removes_folders_that_were_closed_to_him(tmp_path):
    script = "mkdir -p t/a/b/c t/w/x; touch t/a/b/f t/w/x/f; chmod 0 t/a/b/c t/a/b t/a; chmod 500 t/w/x t/w; chmod 0 t"
    work = tmp_path / "work"
    work.mkdir()
    os.chmod(tmp_path, 0o755)
    os.chown(work, 1234, 1234)
    subprocess.run(["sh", "-c", script], cwd=work, check=True, user=1234, group=1234, extra_groups=[])
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.chdir("/")
            fd = os.open(work, os.O_RDONLY)
            os.setgroups([])
            os.setgid(1234)
            os.setuid(1234)
            remove_tree(f"/proc/self/fd/{fd}/t")  # pytest's folders are closed to him
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.listdir(work) == []


def test_what_cannot_be_removed_is_an_error_with_its_name(tmp_path):
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "held").touch()
    subprocess.run(["chattr", "+i", str(tree / "a" / "held")], check=True)
    try:
        with pytest.raises(OSError, match="held"):
            remove_tree(tree)
    finally:
        subprocess.run(["chattr", "-i", str(tree / "a" / "held")], check=True)


async def test_an_attempt_with_deep_trees_ends_and_is_destroyed(tmp_path):
    dig_less = DIG.replace("12_000", "2_500")  # still beyond what a path can name
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh(f'for d in /workspace /tmp; do cd $d; python3 -c "{dig_less}"; done'), artifacts=("**",)
        )
        assert ran.outcome.kind in (OutcomeKind.SUCCEEDED, OutcomeKind.FAILED), ran.message
        assert ran.code in (None, "disk"), ran.message
        ran.directory.destroy(world.plan().cgroups)
        assert not ran.directory.path.exists()
