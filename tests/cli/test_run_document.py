"""`run`'s flags spell a job document; what cannot be sent is said before anything is."""

import pytest

from runyard.cli.exit_codes import UsageError
from runyard.cli.run_document import RunFlags, build_document, split_file
from runyard.wire.job_document import JobDocument


def test_only_what_was_given_is_sent_so_that_a_queues_defaults_hold():
    assert build_document(RunFlags(command=["true"]), {}) == {"steps": [{"name": "run", "command": ["true"]}]}


def test_every_flag_makes_a_valid_document():
    flags = RunFlags(
        command=["a", ""], image="python:3.12", queue="q", tenant="t", id="one", git="https://g/r", ref="main",
        env=["A="], secret=["S"], network="open", isolation="none", cpu="2", memory="1Gi", timeout="5m",
        label=["a=b"], artifact=["x/**"],
    )  # fmt: skip
    document = JobDocument.model_validate(build_document(flags, {}))
    assert document.workspace.git.ref == "main"
    assert document.limits.run == 300
    assert document.env == {"A": ""}
    assert document.steps[0].command == ["a", ""]


def test_what_is_allowed_is_a_network_of_its_own():
    flags = RunFlags(command=["true"], allow=["*.example.com", "192.0.2.0/24:443"])
    assert build_document(flags, {})["network"] == {"allow": ["*.example.com", "192.0.2.0/24:443"]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "open", "allow": ["a.example"]}, "leave --network open away"),
        ({"command": []}, "nothing to run"),
        ({"ref": "main"}, "--ref needs --git"),
        ({"env": ["NOT_SET"]}, "not set here"),
        ({"label": ["x"]}, "--label NAME=VALUE"),
        ({"file": ["/does/not/exist"]}, "cannot be read"),
        ({"file": ["/dev/zero"]}, "above 3 MiB"),
        ({"file": ["/dev/null:a", "/dev/null:a"]}, "two files go to 'a'"),
    ],
)
def test_what_cannot_be_sent_is_wrong_use(changes, message):
    with pytest.raises(UsageError, match=message):
        build_document(RunFlags(**{"command": ["true"], **changes}), {})


@pytest.mark.parametrize(
    ("given", "source", "target"),
    [
        ("a/b.txt", "a/b.txt", "b.txt"),
        ("a:c/d", "a", "c/d"),
        ("a:", "a", "a"),
        ("C:\\x\\y:z", "C:\\x\\y", "z"),
    ],
)
def test_a_file_is_source_and_destination(given, source, target):
    path, found = split_file(given)
    assert (str(path), found) == (source, target)
