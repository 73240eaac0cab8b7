"""What recorded hosts mean: the level they give, what is missing, and its cure."""

import json
from pathlib import Path

import pytest

from runyard.host.findings import Level, findings, judge
from runyard.host.probe import BwrapProbe, ProbeResults, choose_bwrap
from runyard.model.requirements import Isolation

PROBES = Path(__file__).parent / "probes"
CONTAINER, NONE = Isolation.CONTAINER, Isolation.NONE


def load(name: str) -> ProbeResults:
    return ProbeResults.from_json(json.loads((PROBES / f"{name}.json").read_text())["results"])


@pytest.mark.parametrize(
    ("name", "level", "isolation", "network"),
    [
        ("ubuntu-24.04-user", Level.NONE, NONE, False),
        ("ubuntu-24.04-root", Level.NONE, NONE, False),
        ("docker-default-seccomp", Level.NONE, NONE, False),
        ("docker-privileged", Level.ROOT, CONTAINER, True),
        ("rootless-podman", Level.ROOT, CONTAINER, False),
        ("debian-12-root", Level.ROOT, CONTAINER, True),
        ("debian-12-user-systemd", Level.USER_WITH_CGROUPS, CONTAINER, True),
        ("plain-user-ssh", Level.PLAIN_USER, CONTAINER, False),
        ("hardened-debian", Level.NONE, NONE, False),
        ("riscv", Level.NONE, NONE, False),
        ("nothing", Level.NONE, NONE, False),
    ],
)
def test_a_host_gives_the_level_that_it_can_keep(name, level, isolation, network):
    verdict = judge(load(name))
    assert (verdict.level, verdict.isolation, verdict.has_network_open) == (level, isolation, network)


@pytest.mark.parametrize(
    ("name", "finding", "cure"),
    [
        ("ubuntu-24.04-user", "user_namespaces", "apparmor_restrict_unprivileged_userns=0"),
        ("ubuntu-24.04-root", "bwrap", "apparmor_restrict_unprivileged_userns=0"),
        ("docker-default-seccomp", "user_namespaces", "seccomp=unconfined"),
        ("docker-default-seccomp", "mount_namespace", "CAP_SYS_ADMIN"),
        ("docker-default-seccomp", "network_open", "--device /dev/net/tun"),
        ("hardened-debian", "user_namespaces", "unprivileged_userns_clone=1"),
        ("plain-user-ssh", "limits", "Delegate=yes"),
        ("plain-user-ssh", "network_open", "slirp4netns"),
        ("riscv", "seccomp", "x86_64 or aarch64"),
        ("debian-12-root", "network_allow", "nftables"),
        ("nothing", "bwrap", "bubblewrap"),
        ("nothing", "git", "git"),
        ("nothing", "overlay", "overlay"),
    ],
)
def test_what_is_missing_is_named_with_its_cure(name, finding, cure):
    found = {each.name: each for each in findings(load(name))}[finding]
    assert not found.ok
    assert cure in found.cure


@pytest.mark.parametrize("file", sorted(PROBES.glob("*.json")), ids=lambda file: file.stem)
def test_every_wrong_finding_has_a_cure_and_every_right_one_none(file):
    for each in findings(load(file.stem)):
        assert bool(each.cure) != each.ok, each


def test_what_limits_only_by_rlimits_says_so():
    assert "rlimits only" in judge(load("plain-user-ssh")).description
    assert "control groups v2" in judge(load("debian-12-root")).description


def test_the_newest_bubblewrap_that_works_is_chosen():
    def bwrap(version: str, works: bool) -> BwrapProbe:
        return BwrapProbe(path=f"/{version}", version=version, works=works)

    assert (
        choose_bwrap([bwrap("0.8.0", True), bwrap("0.11.0", True), bwrap("0.12.0", False)]).version
        == "0.11.0"
    )
    assert choose_bwrap([bwrap("0.9.0", False)]) is None
