"""Links in a root never lead a mount to the host (CVE-2026-87766)."""

import os

import pytest

from runyard.host.mount_points import HostileRoot, prepare
from runyard.model.outcome import OutcomeKind
from tests.host.world import open_world, sh

PLACES = ["/workspace", "/tmp", "/proc", "/dev", "/outputs"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("target", ["/oldroot/tmp/victim", "../../../victim", "/", "/proc/self/root"])
def test_a_link_at_a_mount_point_is_refused_by_name(tmp_path, place, target):
    (tmp_path / place[1:]).symlink_to(target)
    with pytest.raises(HostileRoot, match=f"{place} -> "):
        prepare(str(tmp_path), directories=[place])


def test_a_link_above_a_mount_point_is_refused(tmp_path):
    (tmp_path / "etc").symlink_to("/oldroot/etc")
    with pytest.raises(HostileRoot, match="/etc -> /oldroot/etc"):
        prepare(str(tmp_path), files=["/etc/resolv.conf"])


def test_a_link_at_a_file_that_is_mounted_on_is_refused(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").symlink_to("/oldroot/etc/passwd")
    with pytest.raises(HostileRoot, match=r"resolv\.conf"):
        prepare(str(tmp_path), files=["/etc/resolv.conf"])


def test_what_is_no_directory_is_refused(tmp_path):
    (tmp_path / "tmp").write_text("")
    os.mkfifo(tmp_path / "resolv.conf")
    with pytest.raises(HostileRoot):
        prepare(str(tmp_path), directories=["/tmp"])
    with pytest.raises(HostileRoot):
        prepare(str(tmp_path), files=["/resolv.conf"])


def test_missing_mount_points_are_made_within_the_root(tmp_path):
    prepare(str(tmp_path), directories=PLACES, files=["/etc/resolv.conf"])
    prepare(str(tmp_path), directories=PLACES, files=["/etc/resolv.conf"])
    assert all((tmp_path / place[1:]).is_dir() for place in PLACES)
    assert (tmp_path / "etc/resolv.conf").read_bytes() == b""


def small_root(folder):
    """A root with the host's programs in it as links do not work there: real folders, bound by nothing."""
    for name in ("bin", "lib", "etc", "proc"):
        (folder / name).mkdir(parents=True)
    os.system(f"cp /bin/busybox {folder}/bin/ 2>/dev/null || cp -L /bin/sh {folder}/bin/busybox")
    for name in ("sh", "ln", "rm", "echo", "mv", "mkdir", "touch", "rmdir", "ls"):
        (folder / f"bin/{name}").symlink_to("busybox")
    return folder


@pytest.mark.service
@pytest.mark.parametrize("place", ["workspace", "tmp", "etc", "proc"])
async def test_a_root_directory_with_hostile_links_runs_nothing_and_makes_nothing_on_the_host(
    tmp_path, place
):
    root, victim = small_root(tmp_path / "root"), tmp_path / "victim"
    victim.mkdir(mode=0o777)
    if (root / place).exists():
        (root / place).rename(root / f"{place}-was")
    (root / place).symlink_to(f"/oldroot{victim}/made-by-bwrap")
    async with open_world(tmp_path) as world:
        network = {"network": "open", "resolv_conf": "/etc/hostname"} if place == "etc" else {}
        ran = await world.run(sh("echo ran"), root_directory=str(root), **network)
        assert (ran.outcome.kind, ran.code) == (OutcomeKind.FAILED, "image")
        assert f"/{place} -> " in ran.message
        assert ran.text == ""
    assert list(victim.iterdir()) == []


@pytest.mark.service
async def test_a_step_that_leaves_links_at_mount_points_cannot_reach_the_host_with_the_next(tmp_path):
    root, victim = small_root(tmp_path / "root"), tmp_path / "victim"
    victim.mkdir(mode=0o777)
    root.chmod(0o777)
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh(
                f"for d in etc tmp workspace proc; do mv /$d /was-$d; ln -sfn /oldroot{victim}/made /$d; done;"
                "echo left"
            ),
            sh("echo ran", "b", condition="always"),
            root_directory=str(root),
            network="open",
            resolv_conf="/etc/hostname",
        )
        assert ran.text == "left\n"
    assert list(victim.iterdir()) == []


@pytest.mark.service
async def test_a_directory_root_runs_over_a_layer_and_stays_as_it_was(tmp_path):
    root = small_root(tmp_path / "root")
    (root / "data").mkdir(mode=0o777)
    (root / "data").chmod(0o777)
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("echo x > /data/file; ls /data; ls /", "a"), sh("ls /data", "b"), root_directory=str(root)
        )
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED, ran.message
        assert ran.log("001") == b"file\n"
    assert list((root / "data").iterdir()) == []
