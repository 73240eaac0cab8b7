"""Layers that mean harm: each is refused or made harmless, and nothing lands outside the root."""

import io
import os
import struct
import tarfile

import pytest

from runyard.host.images.layer_stream import LayerLimits, LayerRefused
from tests.host.images.layers import Stack, archive, digest_of, entry, hard_link, link, packed


@pytest.fixture
def stack(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text("untouched")
    return Stack(tmp_path)


@pytest.fixture(autouse=True)
def nothing_changed_outside(tmp_path):
    yield
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["file"]
    assert (tmp_path / "outside/file").read_text() == "untouched"
    assert (tmp_path / "outside/file").stat().st_nlink == 1


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry("../outside/x", "x")], "leads out"),
        ([entry("a/../../outside/x", "x")], "leads out"),
        ([entry("/../outside/x", "x")], "leads out"),
        ([hard_link("x", "../outside/file")], "leads out"),
        ([link("l", "../outside"), hard_link("x", "l/file")], "no file"),
        ([hard_link("x", "/etc/passwd")], "no file"),
        ([entry("d"), hard_link("x", "d")], "no file"),
        ([hard_link("x", "x/y")], "which"),
        ([entry("d/f", "x"), hard_link("d", "d/f")], "replaces"),
        ([entry("..wh", "x"), entry(".wh...", "")], "whiteout"),
        ([entry(".wh..", "")], "whiteout"),
        ([entry(".wh.", "")], "whiteout"),
        ([entry("a/.wh...", "")], "whiteout"),
        ([entry("f", "x"), entry("f/x", "x")], "is a file"),
        ([link("a", "b"), link("b", "a"), entry("a/x", "x")], "too many links"),
        ([link("l", ""), entry("l/x", "x")], "link to nothing"),
        ([entry("x" * 300, "x")], "longer than 255"),
        ([entry("/".join(["x" * 200] * 30), "x")], "longer than 4096"),
        ([entry("f", "x", pax_headers={"comment": "x" * (2 << 20)})], "header of"),
        ([entry("f", "x", pax_headers={f"SCHILY.xattr.user.n{i}": "x" for i in range(100)})], "64 attributes"),
        ([entry("f", "x", pax_headers={"GNU.sparse.map": "0,9", "GNU.sparse.size": "99"})], "do not fit"),
        ([entry("f", "x", pax_headers={"GNU.sparse.map": "9,1,0,1", "GNU.sparse.size": "99"})], "overlap"),
        ([entry("f", "x", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "9" * 19})], "larger than"),
        ([entry("f", "x", pax_headers={"size": "99999"})], "ends in the middle"),
        ([entry("f", "x", pax_headers={"size": "-1"})], "for a number"),
        ([link("l", "", pax_headers={"linkpath": "a\0b"})], "NUL"),
        ([entry("f", "x", pax_headers={"path": "a\0b"})], "NUL"),
    ],
)  # fmt: skip
def test_is_refused(stack, entries, words):
    with pytest.raises(LayerRefused, match=words):
        stack.unpack(*entries)


@pytest.mark.parametrize("target", ["../outside", "../../outside", "/{outside}", "/proc/self/root{outside}"])
def test_what_is_written_through_a_link_stays_within(stack, tmp_path, target):
    outside = tmp_path / "outside"
    root = stack.unpack(
        link("l", target.format(outside=outside)),
        entry("l/file", "overwritten"),
        entry("l/.wh..wh..opq", ""),
        entry("l/new", "x"),
    )
    assert len(list(root.rglob("new"))) == 1


def test_a_link_is_replaced_and_never_written_through(stack, tmp_path):
    outside = tmp_path / "outside/file"
    root = stack.unpack(link("l", str(outside)), entry("l", "new"), link("m", str(outside)), entry("m"))
    assert (root / "l").read_text() == "new"
    assert (root / "m").is_dir()


def test_a_link_of_a_layer_beneath_leads_nowhere_else_either(stack, tmp_path):
    stack.unpack(link("l", str(tmp_path / "outside")), link("up", "../../.."))
    root = stack.unpack(
        entry("l/file", "x"), entry("up/outside/file", "y"), hard_link("h", "up/outside/file")
    )
    assert (root / "outside/file").read_text() == "y"


def test_an_absolute_name_is_one_within_the_root(stack):
    root = stack.unpack(entry("/etc/passwd", "ours"), entry("//./x", "x"))
    assert (root / "etc/passwd").read_text() == "ours"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE])
def test_a_device_is_left_out(stack, kind):
    root = stack.unpack(
        entry("dev/sda", b"", type=kind, devmajor=8, devminor=0), entry("f", b"", type=kind), entry("g", "x")
    )
    assert sorted(path.name for path in root.rglob("*")) == ["dev", "g"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_device_that_overlayfs_would_take_for_a_whiteout_hides_nothing(stack):
    root = stack.unpack(entry("etc", b"", type=tarfile.CHRTYPE, devmajor=0, devminor=0))
    assert list(root.iterdir()) == []


def test_a_fifo_is_made_and_never_opened(stack):
    root = stack.unpack(entry("f", b"", type=tarfile.FIFOTYPE), entry("f", "file"))
    assert (root / "f").read_text() == "file"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (LayerLimits(bytes_max=1 << 20), "more than 1048576 bytes|larger than"),
        (LayerLimits(ratio_from_bytes=1 << 20, ratio_max=100), "100 times its size"),
        (LayerLimits(entries_max=3), "more than 3 entries"),
    ],
)
def test_a_bomb_is_refused_while_it_goes_off(stack, limits, words):
    data = archive(*(entry(f"f{number}", bytes(4 << 20)) for number in range(5)))
    with pytest.raises(LayerRefused, match=words):
        stack.add(data, limits=limits)


def test_a_sparse_bomb_counts_as_what_it_claims_to_be(stack):
    info, data = entry("f", "", pax_headers={"GNU.sparse.map": "", "GNU.sparse.size": str(1 << 45)})
    with pytest.raises(LayerRefused, match="larger than"):
        stack.unpack((info, data))


def test_a_wrong_diff_id_is_refused(stack):
    with pytest.raises(LayerRefused, match="configuration says"):
        stack.add(archive(entry("f", "x")), blob=packed(archive(entry("g", "x"))))


def test_bytes_behind_the_end_of_the_archive_count_for_the_digest(stack):
    data = archive(entry("f", "x")) + b"behind"
    assert stack.add(data).diff_id == digest_of(data)


@pytest.mark.parametrize(
    ("blob", "words"),
    [
        (b"", "ends in the middle"),
        (b"<html>not found</html>" * 100, "for a number"),
        (packed(archive(entry("f", "x")))[:-40], "ends in the middle"),
        (packed(archive(entry("f", "x"))) + b"junk", "bytes follow"),
        (b"\x1f\x8b" + b"\xff" * 100, "cannot be decompressed"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 100, "cannot be decompressed"),
        (archive(entry("f", "x"))[:700], "ends in the middle"),
    ],
)
def test_what_is_no_layer_is_refused(stack, blob, words):
    with pytest.raises(LayerRefused, match=words):
        stack.add(b"", blob=blob)


def test_a_number_that_is_none_and_a_broken_checksum_are_refused(stack):
    data = bytearray(archive(entry("f", "x")))
    data[124:136] = b"\xff" * 12
    with pytest.raises(LayerRefused, match="checksum"):
        stack.add(bytes(data))
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + sum(data[156:512]) + 8 * 32)
    with pytest.raises(LayerRefused, match="negative"):
        stack.add(bytes(data), blob=bytes(data))


def test_a_time_beyond_all_clocks_is_taken_for_the_last_one(stack):
    root = stack.unpack(
        entry("f", "x", mtime=2**60),
        entry("g", "x", pax_headers={"mtime": "-5"}),
        entry("h", "x", pax_headers={"mtime": "9" * 5000}),
    )
    assert (root / "f").stat().st_mtime == 2**33 - 1
    assert (root / "h").stat().st_mtime == 2**33 - 1


def test_an_old_sparse_entry_with_endless_parts_is_refused(stack):
    info = tarfile.TarInfo("f")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[482] = 1
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:512]) + 8 * 32)
    block = (
        b"".join(struct.pack("12s12s", b"%011o" % 0, b"%011o" % 0) for _ in range(21)) + b"\x01" + bytes(7)
    )
    data = io.BytesIO(bytes(header) + block * 6000).getvalue()
    with pytest.raises(LayerRefused, match="more than 100000 parts"):
        stack.add(data)
