"""What a layer becomes on disk."""

import os
import stat
import subprocess
import tarfile

import pytest
import zstandard

from runyard.host.images.layer_stream import LayerRefused
from tests.host.images.layers import Stack, archive, entry, hard_link, link, packed

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners and whiteouts need root")


@pytest.fixture
def stack(tmp_path):
    return Stack(tmp_path)


def test_files_folders_and_links_are_as_in_the_archive(stack):
    root = stack.unpack(
        entry("etc", mode=0o751, mtime=1_500_000_000),
        entry("etc/issue", "hello\n", mode=0o640, mtime=1_600_000_000),
        link("etc/alias", "issue"),
        hard_link("etc/same", "etc/issue"),
    )
    assert (root / "etc/alias").read_text() == "hello\n"
    assert (root / "etc/issue").stat().st_ino == (root / "etc/same").stat().st_ino
    assert stat.S_IMODE((root / "etc/issue").stat().st_mode) == 0o640
    assert (root / "etc").stat().st_mtime == 1_500_000_000


@as_root
def test_owners_and_set_id_bits_are_the_images(stack):
    root = stack.unpack(entry("su", "x", uid=12, gid=34, mode=0o4755), link("l", "su", uid=56))
    seen = (root / "su").stat()
    assert (seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)) == (12, 34, 0o4755)
    assert (root / "l").lstat().st_uid == 56


@as_root
def test_an_owner_beyond_the_range_of_a_slot_is_nobody(stack):
    root = stack.unpack(entry("f", "x", uid=1_000_730_000))
    assert (root / "f").stat().st_uid == 65534


@pytest.mark.parametrize("compression", ["gzip", "zstd", "plain", "two gzip members"])
def test_every_compression_is_read(stack, compression):
    data = archive(entry("f", os.urandom(3 << 20)))
    half = len(data) // 2
    blob = {
        "gzip": packed(data),
        "zstd": zstandard.compress(data),
        "plain": data,
        "two gzip members": packed(data[:half]) + packed(data[half:]),
    }[compression]
    stack.add(data, blob=blob)
    assert (stack.roots[0] / "f").stat().st_size == 3 << 20


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_links_of_both_forms_are_read(stack, form):
    name = "/".join(["d" * 120] * 4)
    root = stack.unpack(entry(f"{name}/file", "x"), link("short", name + "/file"), format=form)
    assert (root / "short").read_text() == "x"


@pytest.mark.parametrize("form", ["gnu", "posix"])
@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_sparse_files_keep_their_holes(stack, tmp_path, form, version):
    with open(tmp_path / "holes", "wb") as file:
        for at in range(0, 40 << 20, 8 << 20):
            file.seek(at)
            file.write(b"data")
        file.truncate(64 << 20)
    options = ["--format=gnu"] if form == "gnu" else ["--format=posix", f"--sparse-version={version}"]
    made = subprocess.run(["tar", "-C", tmp_path, "-cS", *options, "holes"], check=True, capture_output=True)
    stack.add(made.stdout)
    found = stack.roots[0] / "holes"
    assert found.read_bytes() == (tmp_path / "holes").read_bytes()
    assert found.stat().st_blocks * 512 < 1 << 20


def test_of_two_entries_of_one_name_the_later_counts(stack):
    root = stack.unpack(
        entry("a", "file"), entry("a"), entry("a/b", "x"), entry("c"), entry("c/d", "x"), entry("c", "file")
    )
    assert (root / "a/b").read_text() == "x"
    assert (root / "c").read_text() == "file"


def test_user_attributes_are_kept_and_no_others(stack):
    pax = {
        "SCHILY.xattr.user.colour": "blue",
        "SCHILY.xattr.security.capability": "x",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.user.overlay.opaque": "y",
    }
    root = stack.unpack(entry("f", "x", pax_headers=pax), entry("d", pax_headers=pax))
    assert os.listxattr(root / "f") == os.listxattr(root / "d") == ["user.colour"]


def test_an_archive_that_names_no_folders_makes_them(stack):
    root = stack.unpack(entry("./a/b/c", "x"))
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0o755


# -- over other layers ---------------------------------------------------------------------------------------------


@as_root
def test_whiteouts_become_those_of_overlayfs(stack):
    stack.unpack(entry("a/b", "x"), entry("d/e", "x"))
    root = stack.unpack(entry("a/.wh.b", ""), entry("d"), entry("d/.wh..wh..opq", ""))
    seen = (root / "a/b").lstat()
    assert stat.S_ISCHR(seen.st_mode)
    assert seen.st_rdev == 0
    assert os.getxattr(root / "d", "trusted.overlay.opaque") == b"y"


@as_root
@pytest.mark.parametrize("whiteout_first", [True, False])
def test_what_replaces_a_removed_folder_hides_what_was_in_it(stack, whiteout_first):
    stack.unpack(entry("a/old", "x"))
    whiteout, new = entry(".wh.a", ""), entry("a/new", "x")
    root = stack.unpack(*((whiteout, new) if whiteout_first else (new, whiteout)))
    assert (root / "a/new").exists()
    assert os.getxattr(root / "a", "trusted.overlay.opaque") == b"y"


@as_root
def test_a_folder_that_a_layer_does_not_name_keeps_its_owner(stack):
    stack.unpack(entry("home", uid=7, mode=0o1777), entry("home/x", "x"))
    root = stack.unpack(entry("home/y", "y"))
    assert ((root / "home").stat().st_uid, stat.S_IMODE((root / "home").stat().st_mode)) == (7, 0o1777)


def test_an_entry_behind_a_link_of_a_layer_beneath_goes_where_the_link_leads(stack):
    """Or a layer that writes lib/x would replace the merged /lib -> usr/lib of the image beneath."""
    stack.unpack(entry("usr/lib"), link("lib", "usr/lib"), link("deep", "/a/../usr/./lib"))
    root = stack.unpack(entry("lib/x", "x"), entry("deep/y", "y"))
    assert not (root / "lib").exists()
    assert (root / "usr/lib/x").read_text() + (root / "usr/lib/y").read_text() == "xy"


def test_a_hard_link_to_a_file_beneath_is_a_copy_of_it(stack):
    stack.unpack(entry("bin/tool", "tool", mode=0o755), link("bin/link", "tool"))
    root = stack.unpack(hard_link("bin/again", "bin/tool"), hard_link("bin/link2", "bin/link"))
    assert (root / "bin/again").read_text() == "tool"
    assert os.readlink(root / "bin/link2") == "tool"


@as_root
def test_what_was_removed_beneath_is_not_linked_to(stack):
    stack.unpack(entry("bin/tool", "tool"))
    stack.unpack(entry("bin/.wh.tool", ""))
    with pytest.raises(LayerRefused, match="no file in the image"):
        stack.unpack(hard_link("x", "bin/tool"))
