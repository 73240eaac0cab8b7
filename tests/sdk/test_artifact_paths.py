"""A job chooses its artifacts' paths; none of them leaves the folder that the user named."""

import contextlib

import pytest

from runyard.sdk.artifact_paths import UnsafeArtifact, artifact_target
from runyard.sdk.job_calls import artifact
from runyard.sdk.partial_file import PartialFile


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../x", "a/../../x", "..", "", "a\\..\\b", "C:/x", "a\0b", ".", "nul"]
)
def test_a_path_that_leaves_or_confuses_is_refused(tmp_path, path):
    with pytest.raises(UnsafeArtifact):
        artifact_target(tmp_path, path)


def test_a_link_in_the_folder_is_not_followed_out_of_it(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    with pytest.raises(UnsafeArtifact):
        artifact_target(inside, "link/file")


def test_an_ordinary_path_stays_beneath_the_folder(tmp_path):
    assert artifact_target(tmp_path, "reports/junit.xml") == tmp_path.resolve() / "reports" / "junit.xml"


def test_a_link_in_the_files_own_place_is_replaced_not_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "link").symlink_to(victim)
    with PartialFile(tmp_path / "link") as file:
        file.write(b"theirs")
        file.finish()
    assert victim.read_text() == "mine"
    assert (tmp_path / "link").read_bytes() == b"theirs"


def test_a_download_that_breaks_leaves_nothing(tmp_path):
    with contextlib.suppress(OSError), PartialFile(tmp_path / "d" / "f") as file:
        file.write(b"half")
        raise OSError
    assert list((tmp_path / "d").iterdir()) == []


def test_odd_names_survive_the_url():
    call = artifact("a", "dir/ä b?#%.txt", tenant=None, attempt=1)
    assert call.path == "/api/v1/jobs/a/artifacts/dir/%C3%A4%20b%3F%23%25.txt"
