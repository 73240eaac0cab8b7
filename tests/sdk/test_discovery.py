"""The service and its token are found as INTERFACE.md says, and what is missing names its cure."""

import pytest

from runyard.sdk.discovery import DEFAULT_ADDRESS, data_folders, find_service, is_loopback
from runyard.sdk.errors import NotConfigured


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "address").write_text("127.0.0.1:7711\n")
    (tmp_path / "admin.token").write_text("from-folder\n")
    return tmp_path


def test_the_environment_goes_first(folder):
    environ = {"RUNYARD_URL": "https://r.example/", "RUNYARD_TOKEN": "t"}
    service = find_service(environ, folders=[folder])
    assert (service.url, service.token) == ("https://r.example", "t")


def test_what_the_caller_gives_goes_before_the_environment(folder):
    service = find_service({"RUNYARD_TOKEN": "t"}, url="http://x:1", token="mine", folders=[folder])
    assert (service.url, service.token) == ("http://x:1", "mine")


def test_without_it_the_data_folder_holds_both(folder, tmp_path):
    service = find_service({}, folders=[tmp_path / "none", folder])
    assert (service.url, service.token) == ("http://127.0.0.1:7711", "from-folder")


def test_a_token_alone_takes_the_usual_address(tmp_path):
    assert find_service({"RUNYARD_TOKEN": "t"}, folders=[tmp_path]).url == DEFAULT_ADDRESS


def test_the_admins_token_of_this_host_is_never_sent_to_another(folder):
    with pytest.raises(NotConfigured, match=r"RUNYARD_TOKEN.*token create"):
        find_service({"RUNYARD_URL": "https://elsewhere.example"}, folders=[folder])


def test_the_admins_token_goes_to_the_address_found_beside_it(folder):
    (folder / "address").write_text("http://10.0.0.5:7700")
    assert find_service({"RUNYARD_URL": "http://10.0.0.5:7700"}, folders=[folder]).token == "from-folder"


def test_an_unreadable_token_says_which_command_makes_one(folder):
    (folder / "admin.token").unlink()
    (folder / "admin.token").mkdir()  # root may read every file, but no folder
    with pytest.raises(NotConfigured, match=r"cannot be read.*runyard token create"):
        find_service({}, folders=[folder])


def test_nothing_found_names_the_folders_and_the_command_that_starts_one(tmp_path):
    with pytest.raises(NotConfigured, match=r"none of .*nowhere.* holds an address.*runyard serve"):
        find_service({}, folders=[tmp_path / "nowhere"])


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:99999", "http://x:port"])
def test_what_is_no_address_is_said_before_anything_is_sent(url):
    with pytest.raises(NotConfigured, match="no address"):
        find_service({"RUNYARD_URL": url, "RUNYARD_TOKEN": "t"}, folders=[])


def test_root_looks_into_the_system_folder_first_and_others_into_their_own(tmp_path):
    environ = {"XDG_STATE_HOME": str(tmp_path)}
    assert [str(one) for one in data_folders(environ, is_root=True)] == [
        "/var/lib/runyard",
        f"{tmp_path}/runyard",
    ]
    assert data_folders(environ, is_root=False)[0] == tmp_path / "runyard"
    assert str(data_folders({"RUNYARD_DATA": "/d"}, is_root=True)[0]) == "/d"


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://localhost:1", True), ("http://[::1]:1", True), ("http://127.0.0.9", True),
     ("http://127.0.0.1.evil.example", False), ("http://10.0.0.1", False)],
)  # fmt: skip
def test_loopback_is_told_by_the_address_not_by_its_look(url, expected):
    assert is_loopback(url) is expected
