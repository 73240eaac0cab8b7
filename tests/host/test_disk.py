"""A job's disk: its limit, its files and the floor, watched while it runs."""

import os
import time

import pytest

from runyard.host.disk_watch import DiskLimits, DiskWatch, Usage
from runyard.model.outcome import OutcomeKind
from tests.host.test_hostile import python
from tests.host.world import open_world, sh

pytestmark = pytest.mark.service
MIB = 1 << 20


@pytest.mark.parametrize("where", ["/workspace", "/tmp", "/outputs"])
async def test_a_job_that_uses_more_disk_than_its_limit_is_ended_and_told(tmp_path, where):
    script = f"for i in 1 2 3 4; do head -c 10M /dev/zero > {where}/$i; done; sleep 60"
    async with open_world(tmp_path) as world:
        ran = await world.run(sh(script), disk=DiskLimits(bytes_max=20 * MIB))
        assert (ran.outcome.kind, ran.code) == (OutcomeKind.FAILED, "disk")
        assert "used 40.0Mi of disk, more than its limit of 20.0Mi" in ran.message


async def test_a_single_file_cannot_overshoot(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("exec head -c 30M /dev/zero > big"), disk=DiskLimits(bytes_max=8 * MIB))
        assert (ran.outcome.kind, ran.code) == (OutcomeKind.FAILED, "disk")
        assert (ran.directory.path / "workspace/big").stat().st_size == 8 * MIB


async def test_a_sparse_file_counts_what_it_takes(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("for i in 1 2 3 4 5; do truncate -s 8M $i; done; sleep 2"), disk=DiskLimits(bytes_max=9 * MIB)
        )
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED, ran.message


async def test_a_job_that_makes_too_many_files_is_ended(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("seq 3000 | xargs touch; sleep 60"), disk=DiskLimits(bytes_max=900 * MIB, files_max=1000)
        )
        assert ran.code == "disk"
        assert "files and folders, more than its limit of 1000" in ran.message


async def test_below_the_floor_the_job_that_writes_is_ended_and_one_that_does_not_is_spared(tmp_path):
    disk = DiskLimits(reserve_bytes=1 << 60)
    async with open_world(tmp_path) as world:
        writes = await world.run(sh("head -c 20M /dev/zero > a; sleep 60"), disk=disk)
        spared = await world.run(sh("sleep 1.5; echo spared"), disk=disk)
        assert writes.code == "disk"
        assert "disk_reserve" in writes.message
        assert spared.text == "spared\n"


async def test_what_hides_in_directories_too_deep_to_measure_is_ended(tmp_path):
    dig = "import os, time\nfor _ in range(30): os.mkdir('d' * 200); os.chdir('d' * 200)\ntime.sleep(60)"
    async with open_world(tmp_path) as world:
        ran = await world.run(python(dig))
        assert ran.code == "disk"
        assert "deeper than a path can name" in ran.message


def test_a_file_with_many_links_counts_once_and_a_link_leads_nowhere(tmp_path):
    folder = tmp_path / "workspace"
    folder.mkdir()
    (folder / "a").write_bytes(b"x" * MIB)
    os.link(folder / "a", folder / "b")
    (folder / "up").symlink_to("/usr")
    usage = Usage(str(tmp_path), ["workspace", "missing"])
    usage.go_on(10)
    assert usage.is_complete
    assert usage.files == 2
    assert MIB <= usage.bytes < 2 * MIB


def test_a_look_at_a_large_tree_takes_a_fiftieth_of_a_second_and_the_next_goes_on(tmp_path):
    for folder in range(10):
        (tmp_path / "tmp" / str(folder)).mkdir(parents=True)
        for name in range(1000):
            os.close(os.open(tmp_path / "tmp" / str(folder) / str(name), os.O_CREAT))
    now = 0.0
    watch = DiskWatch(str(tmp_path), ["tmp"], DiskLimits(files_max=9_000), clock=lambda: now)
    began, looks, words = time.thread_time(), 0, None
    while words is None and looks < 100:
        now, looks = now + 1, looks + 1
        words = watch.check()
    assert words is not None
    assert looks > 1 or time.thread_time() - began < 0.5
