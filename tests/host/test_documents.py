"""The plan, the journal and the attempt's directory as files."""

import os

from runyard.host.attempt_directory import AttemptDirectory
from runyard.host.cgroups import CgroupTree, Limits
from runyard.host.journal import JournalReader, JournalWriter
from runyard.host.plan import (
    FetchRules,
    HostTree,
    Plan,
    PlanCredential,
    PlanEgress,
    PlanFile,
    PlanGit,
    PlanService,
    PlanStep,
)
from runyard.host.runner import to_end
from runyard.host.sandbox import Descriptors, HostRoot, Sandbox, options
from runyard.model.outcome import OutcomeKind, ReasonCode


def full_plan() -> Plan:
    return Plan(
        name="runyard-0123456789abcdef-1",
        boot_id="b",
        created_at=1.0,
        created_boottime=2.0,
        steps=(PlanStep(name="a", command=("x", "y"), env={"A": "ü"}, timeout_s=3.0),),
        log_directory="/l",
        artifact_directory="/a",
        files=(PlanFile(path="p", content_base64="eA=="),),
        git=PlanGit(url="u", ref="r", sparse=("d",), credentials=(PlanCredential(url="https://h"),)),
        fetch=FetchRules(protocols=("file",)),
        host_tree=HostTree(binds=(("/usr", "/usr"),), links=(("usr/bin", "/bin"),)),
        cgroups=CgroupTree(version=2, bases={"": "/c"}),
        limits=Limits(memory_bytes=1),
        egress=PlanEgress(allow=("a.example",), opened=("10.0.0.0/8",), nameservers=("10.0.0.1",)),
        services=(PlanService(name="s", image=0, command=("x",), ready_ports=(1,), ready_command=("y",)),),
        artifacts=("*",),
        outputs={"n": "f"},
    )


def test_a_plan_comes_back_as_it_was_written():
    assert Plan.from_json(full_plan().to_json()) == full_plan()


def test_the_first_plan_stays(tmp_path):
    directory = AttemptDirectory(tmp_path / "attempt")
    directory.create(full_plan())
    directory.create(Plan.from_json(full_plan().to_json().replace("/l", "/other")))
    assert directory.read_plan() == full_plan()


def test_a_journal_is_read_on_from_where_it_was_left_and_a_torn_line_waits(tmp_path):
    path = str(tmp_path / "journal")
    assert JournalReader(path).read() == []
    writer, reader = JournalWriter(path), JournalReader(path)
    writer.buffer("a", 1.0)
    assert reader.read() == []
    writer.write("b", 2.0, index=0)
    with open(path, "ab") as file:
        file.write(b'{"what": "c", ')
    assert [record["what"] for record in reader.read()] == ["a", "b"]
    with open(path, "ab") as file:
        file.write(b'"at": 3}\n')
    assert [record["what"] for record in reader.read()] == ["c"]
    writer.close()


def test_a_lock_is_held_by_one_and_tells_life(tmp_path):
    directory = AttemptDirectory(tmp_path)
    assert not directory.is_alive()
    lock = directory.take_lock()
    assert directory.is_alive()
    assert directory.take_lock() is None
    os.close(lock)
    assert not directory.is_alive()


def test_an_outcome_document_becomes_values():
    end = to_end(
        {
            "kind": "failed",
            "reason": {"code": "exit", "message": "m", "step": "s"},
            "exit_code": 3,
            "usage": {"wall_s": 1.0, "cpu_s": None, "memory_bytes_peak": 5},
            "was_seen": True,
            "outputs": {"a": "b"},
        }
    )
    assert (end.outcome.kind, end.outcome.reason.code) == (OutcomeKind.FAILED, ReasonCode.EXIT)
    assert (end.outcome.exit_code, end.outcome.signal, end.outcome.usage.memory_bytes_peak) == (3, None, 5)
    assert end.outputs == {"a": "b"}


def test_a_sandbox_shares_no_namespace_and_its_environment_is_only_what_was_given():
    sandbox = Sandbox(
        root=HostRoot(binds=(("/usr", "/usr"),), links=()),
        workspace="/w",
        tmp="/t",
        outputs="/o",
        env={"A": "b"},
    )
    arguments = options(sandbox, Descriptors(seccomp=5, status=6))
    for name in ("user", "pid", "net", "ipc", "uts", "cgroup-try"):
        assert f"--unshare-{name}" in arguments
    assert {"--die-with-parent", "--new-session", "--clearenv", "--cap-drop"} <= set(arguments)
    assert arguments[arguments.index("--setenv") + 1 : arguments.index("--setenv") + 3] == ["A", "b"]
    assert "--block-fd" not in arguments
