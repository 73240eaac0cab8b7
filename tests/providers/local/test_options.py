"""A pool's keys, and what the host answers when it is asked for room."""

import pytest

from runyard.model.errors import ConfigError
from runyard.model.pool import AvailabilityKind, Budget, WaitCode
from runyard.model.requirements import Isolation, Requirements
from runyard.providers.local.admission import HostSupply, admit
from runyard.providers.local.options import LocalOptions, parse_options
from runyard.providers.port import Capabilities, PoolShape

GIB = 1 << 30


def test_every_wrong_key_is_named_at_once_with_its_value():
    with pytest.raises(ConfigError) as caught:
        parse_options(
            "p", {"isolation": "microvm", "memory": "lots", "colour": 1, "pids_max": True, "labels": {"a": 1}}
        )
    for part in ("p.isolation = 'microvm'", "'lots'", "colour is not known", "p.pids_max = True", "p.labels"):
        assert part in caught.value.message


def test_right_keys_are_read():
    options = parse_options(
        "p",
        {"isolation": "none", "memory": "1.5Gi", "memory_reserve": 1000, "cpu": "500m", "cpu_reserve": 1.5,
         "git_protocols": ["file"], "git_file_roots": ["/srv"], "labels": {"gpu": "a"}, "kill_grace": 3,
         "disk_max": "2Gi", "files_max": 5000},
    )  # fmt: skip
    assert options == LocalOptions(
        isolation=Isolation.NONE, memory_bytes=3 * GIB // 2, memory_reserve_bytes=1000, cpu_millis=500,
        cpu_reserve_millis=1500, git_protocols=("file",), git_file_roots=("/srv",), labels={"gpu": "a"},
        kill_grace_s=3.0, disk_bytes_max=2 * GIB, files_max=5000,
    )  # fmt: skip


@pytest.mark.parametrize("wrong", [{"git_protocols": ["ext"]}, {"git_file_roots": ["rel"]}, {"uid_base": 0},
                                   {"memory": -1}, {"disk_max": "lots"}, {"files_max": 1},
                                   {"cpu": True}, {"allow_private_addresses": "yes"}, {"kill_grace": -1},
                                   {"egress_networks": ["10.0.0.1/8"]}, {"nameservers": ["a.example"]}])  # fmt: skip
def test_dangerous_values_are_refused(wrong):
    with pytest.raises(ConfigError):
        parse_options("p", wrong)


def ask(free=100 * GIB, has_network=True, **fields):
    return admit(
        Requirements(**fields),
        pool="local",
        capabilities=Capabilities(
            isolation=Isolation.CONTAINER,
            has_network_open=has_network,
            labels={"arch": "amd64", "os": "linux", "a": "b"},
        ),
        shape=PoolShape(slots=4, budget=Budget(cpu_millis=4000, memory_bytes=8 * GIB)),
        supply=HostSupply(
            cores=4, budget=Budget(cpu_millis=4000, memory_bytes=8 * GIB), disk_bytes_total=100 * GIB
        ),
        options=LocalOptions(disk_reserve_bytes=GIB),
        disk_free_bytes=free,
    )


def test_what_fits_is_taken_now():
    answer = ask(arch="x86_64", os="linux", labels={"a": "b"}, network="open", disk_bytes=GIB)
    assert (answer.kind, answer.room) == (AvailabilityKind.NOW, 4)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"isolation": Isolation.MICROVM}, "gives isolation container, the job asks for microvm"),
        ({"arch": "arm64"}, "has arch amd64, the job asks for arm64"),
        ({"os": "windows"}, "has os linux"),
        ({"labels": {"gpu": "a100"}}, "lacks the label gpu=a100"),
        ({"cpu_millis": 5000}, "has 4 cpu in all, the job asks for 5"),
        ({"memory_bytes": 9 * GIB}, "has 8.0Gi of memory in all, the job asks for 9.0Gi"),
        ({"disk_bytes": 200 * GIB}, "has a disk of 99.0Gi"),
        ({"network": "open", "has_network": False}, "cannot give network open"),
        ({"network": "allow"}, "cannot keep a job to network.allow"),
        ({"needs_services": True}, "cannot run services beside a job"),
        ({"network": "other"}, "cannot give network 'other'"),
    ],
)
def test_what_can_never_run_is_said_with_the_reason(fields, words):
    answer = ask(**fields)
    assert answer.kind is AvailabilityKind.NEVER
    assert words in answer.why


def test_a_disk_that_is_nearly_full_takes_jobs_later():
    answer = ask(free=GIB // 2)
    assert (answer.kind, answer.code) == (AvailabilityKind.SOON, WaitCode.POOL_FULL)
    assert "0.5Gi free" in answer.why
