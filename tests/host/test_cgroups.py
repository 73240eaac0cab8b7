"""Limits as control groups: both tables on a fake tree, version 1 for real where this host has it."""

import os
import signal

import pytest

from runyard.host import cgroups
from runyard.host.cgroups import AttemptCgroup, CgroupTree, Limits
from tests.host.world import host

LIMITS = Limits(memory_bytes=1 << 30, pids_max=100, cpu_millis=1500)
V1_MOUNTS = "\n".join(
    f"3{n} 1 0:{n} / {{root}}/{name} rw shared:1 - cgroup cgroup rw,{name}"
    for n, name in enumerate(("memory", "pids", "cpu,cpuacct"))
)
V2_MOUNT = "40 1 0:40 / {root} rw shared:1 - cgroup2 cgroup2 rw"


def rows(version):
    return [(row.controller, row.file, row.value) for row in cgroups.settings(version, LIMITS)]


def test_version_1_limits():
    assert rows(1) == [
        ("memory", "memory.limit_in_bytes", "1073741824"),
        ("memory", "memory.memsw.limit_in_bytes", "1073741824"),
        ("pids", "pids.max", "100"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpu", "cpu.cfs_quota_us", "150000"),
    ]


def test_version_2_limits():
    assert rows(2) == [
        ("memory", "memory.max", "1073741824"),
        ("memory", "memory.swap.max", "0"),
        ("memory", "memory.oom.group", "1"),
        ("pids", "pids.max", "100"),
        ("cpu", "cpu.max", "150000 100000"),
    ]


def test_no_limit_writes_nothing():
    assert cgroups.settings(1, Limits()) == cgroups.settings(2, Limits()) == []


def everything(path):
    return True


def test_controllers_of_version_1_are_used_where_they_are_even_beside_a_unified_mount():
    mounts = V1_MOUNTS.format(root="/cg") + "\n" + V2_MOUNT.format(root="/cg/unified")
    tree = cgroups.detect("0::/", mounts, is_root=True, can_write=everything)
    assert tree.version == 1
    assert tree.bases["cpuacct"] == tree.bases["cpu"] == "/cg/cpu,cpuacct/runyard"


def test_version_2_as_root_lies_at_the_top_outside_the_services_own_group():
    tree = cgroups.detect(
        "0::/system.slice/runyard.service",
        V2_MOUNT.format(root="/cg"),
        is_root=True,
        can_write=everything,
        available=lambda path: "cpu memory pids",
    )
    assert tree == CgroupTree(version=2, bases={"": "/cg/runyard"})


def test_a_user_gets_the_topmost_group_that_was_delegated_to_him():
    own = "/user.slice/user-1000.slice/user@1000.service/app.slice/runyard.service"
    tree = cgroups.detect(
        f"0::{own}",
        V2_MOUNT.format(root="/cg"),
        is_root=False,
        can_write=lambda path: "user@1000.service" in path,
        available=lambda path: "memory pids",
    )
    assert tree.bases[""] == "/cg/user.slice/user-1000.slice/user@1000.service/runyard"


@pytest.mark.parametrize(
    ("can_write", "available"),
    [(lambda path: False, "cpu memory pids"), (everything, "cpu io"), (everything, "")],
)
def test_what_cannot_be_written_or_lacks_controllers_gives_none(can_write, available):
    tree = cgroups.detect(
        "0::/a",
        V2_MOUNT.format(root="/cg"),
        is_root=False,
        can_write=can_write,
        available=lambda path: available,
    )
    assert tree.version == 0


def fake_group(tmp_path, files):
    group = tmp_path / "runyard" / "attempt"
    group.mkdir(parents=True)
    for name, text in files.items():
        (group / name).write_text(text)
    return group


V2_FILES = {
    "memory.max": "max", "pids.max": "max", "cpu.max": "max 100000", "cgroup.procs": "", "cgroup.kill": "",
    "memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\n", "pids.events": "max 4\n",
    "cpu.stat": "usage_usec 2500000\nuser_usec 1\n", "memory.peak": "4096\n",
}  # fmt: skip


def test_version_2_is_written_and_read_by_its_files_and_may_lack_the_optional_ones(tmp_path):
    group = fake_group(tmp_path, V2_FILES)
    cgroup = AttemptCgroup(CgroupTree(version=2, bases={"": str(tmp_path / "runyard")}), "attempt")
    cgroup.create(LIMITS)
    assert (group / "memory.max").read_text() == "1073741824"
    assert (group / "cpu.max").read_text() == "150000 100000"
    assert not (group / "memory.swap.max").exists()
    counters = cgroup.counters()
    assert (counters.oom_kills, counters.pids_refused) == (2, 4)
    assert (counters.cpu_s, counters.memory_bytes_peak) == (2.5, 4096)


def test_version_2_is_prepared_by_handing_on_what_is_there_and_leaving_the_group_first_if_need_be(tmp_path):
    base = tmp_path / "runyard"
    base.mkdir()
    for folder in (tmp_path, base):
        (folder / "cgroup.subtree_control").write_text("")
    (tmp_path / "cgroup.controllers").write_text("memory pids io")
    cgroups.prepare(CgroupTree(version=2, bases={"": str(base)}))
    assert (base / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_version_2_hands_on_to_groups_within_whose_processes_are_its_own(tmp_path):
    group = fake_group(
        tmp_path, {"cgroup.controllers": "memory pids io", "cgroup.subtree_control": "", "cgroup.procs": ""}
    )
    attempt = AttemptCgroup(CgroupTree(version=2, bases={"": str(tmp_path / "runyard")}), "attempt")
    attempt.hand_on()
    assert (group / "cgroup.subtree_control").read_text() == "+memory +pids"
    for number, name in enumerate(("steps", "s000"), start=7):
        (group / name).mkdir()
        (group / name / "cgroup.procs").write_text(f"{number}\n")
    assert attempt.processes() == {7, 8}
    assert attempt.beneath("s000").processes() == {8}


def test_a_required_file_that_is_missing_is_an_error(tmp_path):
    fake_group(tmp_path, {"pids.max": ""})
    with pytest.raises(FileNotFoundError):
        AttemptCgroup(CgroupTree(version=2, bases={"": str(tmp_path / "runyard")}), "attempt").create(LIMITS)


@pytest.mark.service
def test_a_real_group_limits_counts_kills_and_goes():
    cgroup = AttemptCgroup(host().cgroup_tree, f"test-{os.getpid()}")
    cgroup.create(LIMITS)
    pid = os.fork()
    if pid == 0:
        cgroup.join()
        signal.pause()
        os._exit(0)
    try:
        while pid not in cgroup.processes():
            os.sched_yield()
        assert not cgroup.remove()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead must not wait in the group for us
        assert cgroup.kill()
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    assert cgroup.remove()
    assert not cgroup.exists
    assert cgroup.kill()
    assert cgroup.remove()


@pytest.mark.service
def test_a_real_group_kills_and_goes_with_those_within():
    attempt = AttemptCgroup(host().cgroup_tree, f"test-{os.getpid()}-within")
    within = attempt.beneath("s000")
    attempt.create(LIMITS)
    attempt.hand_on()
    within.create(Limits(memory_bytes=64 << 20))
    pid = os.fork()
    if pid == 0:
        within.join()
        signal.pause()
        os._exit(0)
    try:
        while pid not in attempt.processes():
            os.sched_yield()
        assert not attempt.remove()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        assert attempt.kill()
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    assert attempt.remove()
    assert not (attempt.exists)
    assert not (within.exists)
