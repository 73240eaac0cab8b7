"""One attempt, from its plan to its end, for real."""

import pytest

from runyard.host.plan import PlanFile, PlanStep
from runyard.model.outcome import OutcomeKind
from tests.host.world import ENV, open_world, sh

pytestmark = pytest.mark.service


async def test_a_command_runs_and_its_output_lies_in_the_log_by_stream(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("echo out; echo err >&2"))
    assert ran.outcome.kind is OutcomeKind.SUCCEEDED
    assert (ran.outcome.exit_code, ran.outcome.was_seen) == (0, True)


async def test_stdout_and_stderr_are_told_apart_and_dev_stderr_opens_for_the_job(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("echo out > /dev/stdout; echo err > /dev/stderr"))
        assert ran.log(stream="stdout") == b"out\n"
        assert ran.log(stream="stderr") == b"err\n"


async def test_the_exit_code_of_the_first_failing_step_decides_and_the_next_does_not_run(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("true", "a"), sh("exit 3", "b"), sh("echo no", "c"))
        assert (ran.outcome.kind, ran.code, ran.outcome.exit_code) == (OutcomeKind.FAILED, "exit", 3)
        assert ran.outcome.reason.step == "b"
        assert ran.log("002") == b""


async def test_always_and_failure_steps_run_after_a_failure_and_success_ones_do_not(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("exit 1"),
            sh("echo always", "b", condition="always"),
            sh("echo failure", "c", condition="failure"),
            sh("echo success", "d"),
        )
        assert [ran.log(key) for key in ("001", "002", "003")] == [b"always\n", b"failure\n", b""]
        assert ran.outcome.exit_code == 1


async def test_a_failure_step_does_not_run_while_all_is_well(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("true"), sh("echo no", condition="failure"))
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED
        assert ran.log("001") == b""


async def test_a_missing_command_is_told_by_name(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(PlanStep(name="s", command=("no-such-command",), env=ENV))
        assert (ran.outcome.kind, ran.code, ran.outcome.exit_code) == (OutcomeKind.FAILED, "command", 127)
        assert "'no-such-command' was not found" in ran.message


async def test_a_file_that_cannot_be_executed_is_told_as_126(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(PlanStep(name="s", command=("/etc/passwd",), env=ENV))
        assert (ran.code, ran.outcome.exit_code) == ("command", 126)


async def test_a_missing_directory_of_a_step_is_told(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("true", directory="/workspace/nowhere"))
        assert ran.code == "command"
        assert "/workspace/nowhere" in ran.message


async def test_a_signal_is_told_from_an_exit(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("kill -SEGV $$"))
        assert (ran.code, ran.outcome.signal) == ("signal", 11)


async def test_steps_share_workspace_and_tmp_and_see_their_environment_only(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("echo kept > here; echo kept > /tmp/there; cd; pwd"),
            PlanStep(name="b", command=("sh", "-c", "cat here /tmp/there; env"), env={**ENV, "A": "b c"}),
        )
        assert ran.text == "/tmp/home\n"
        lines = ran.log("001").decode().splitlines()
        assert lines[:2] == ["kept", "kept"]
        assert {line.partition("=")[0] for line in lines[2:]} == {*ENV, "A", "PWD"}


async def test_files_of_the_job_are_in_its_workspace_and_its_own(tmp_path):
    files = (
        PlanFile(path="deep/er/run.sh", content_base64="IyEvYmluL3NoCmVjaG8gcmFuCg=="),
        PlanFile(path="bin", content_base64="AP8="),
    )
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("deep/er/run.sh; od -An -tx1 bin; stat -c %U bin; echo x >> bin"), files=files
        )
        assert ran.text == "ran\n 00 ff\nrunyard\n"
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED


@pytest.mark.parametrize("path", ["../out", "/abs", "a/../../out", "nul\0", ""])
async def test_a_file_that_leaves_the_workspace_is_refused(tmp_path, path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("true"), files=(PlanFile(path=path, content_base64="eA=="),))
        assert (ran.outcome.kind, ran.code) == (OutcomeKind.FAILED, "workspace")
        assert not (tmp_path / "out").exists()


async def test_a_second_run_of_an_ended_attempt_returns_its_outcome_and_runs_nothing(tmp_path):
    async with open_world(tmp_path) as world:
        plan = world.plan(sh("echo once; exit 4"))
        first = await world.run_plan(plan)
        second = await world.run_plan(plan)
        assert second.end == first.end
        assert second.text == "once\n"


async def test_what_an_attempt_used_is_measured(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("python3 -c 'x = bytearray(64 << 20)'"))
        usage = ran.outcome.usage
        assert usage.wall_s > 0
        assert usage.cpu_s > 0
        assert usage.memory_bytes_peak > 64 << 20


async def test_ordinary_programs_work(tmp_path):
    script = """
        set -e
        python3 -c 'import subprocess, tempfile, multiprocessing, socket, os
r, w = os.openpty(); print("pty", os.ttyname(w))
print(subprocess.check_output(["sh", "-c", "echo sub"]).decode().strip())
multiprocessing.get_context("fork").Lock()'
        git init -q r && cd r && git -c user.name=a -c user.email=b commit -q --allow-empty -m m
        git log --oneline | wc -l
        echo 'int main(){return 0;}' > a.c
        if command -v gcc >/dev/null; then gcc a.c -o a && ./a && echo compiled; else echo compiled; fi
        exec 3<>/dev/shm/x; date -u +%Z; whoami; hostname
    """
    async with open_world(tmp_path) as world:
        ran = await world.run(sh(script))
        assert ran.text.splitlines() == [
            "pty /dev/pts/0",
            "sub",
            "1",
            "compiled",
            "UTC",
            "runyard",
            "runyard",
        ], ran.log(stream="stderr")
