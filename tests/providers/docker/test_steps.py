"""Jobs in real containers: what a step gets, how it ends, and what it leaves."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from pathlib import Path

import pytest

from runyard.model.job import FileSource, GitSource, Limits, NamedCache, Step, StepCondition, Workspace
from runyard.model.outcome import OutcomeKind, ReasonCode
from runyard.model.requirements import Requirements
from runyard.testing.memory_context import MemoryContext
from tests.docker_daemon import DockerDaemon
from tests.providers.docker.conftest import OpenPool, Pool

pytestmark = pytest.mark.service
EVERY_BYTE = "".join(f"\\\\{number:03o}" for number in range(256))


async def test_a_step_sees_its_own_environment_and_nothing_else(pool: Pool) -> None:
    _, context = await pool.run("env", env={"GREETING": "it's\ntwo lines"})
    seen = context.printed().decode()
    assert "GREETING=it's\ntwo lines\n" in seen
    assert {"RUNYARD_STEP=step-0", "HOME=/tmp/home", "CI=true", "RUNYARD_WORKSPACE=/workspace"} <= set(
        seen.splitlines()
    )
    assert "mark" not in seen


async def test_a_step_is_not_root_and_may_nothing(pool: Pool) -> None:
    script = "id -u; grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; ls /sys/class/net; touch /x; cat"
    outcome, context = await pool.run(script)
    assert outcome.kind is OutcomeKind.SUCCEEDED
    words = context.printed().decode().split()
    assert words[0] == "1000"
    assert dict(zip(words[1:-1:2], words[2:-1:2], strict=True)) == {
        "CapEff:": "0" * 16, "CapBnd:": "0" * 16, "NoNewPrivs:": "1", "Seccomp:": "2"
    }  # fmt: skip
    assert words[-1] == "lo"
    assert b"Read-only file system" in context.printed(stream="stderr")


async def test_a_step_has_a_home_and_a_place_for_what_passes(pool: Pool) -> None:
    outcome, _ = await pool.run('touch "$HOME/file" /tmp/file && exec true')
    assert outcome.kind is OutcomeKind.SUCCEEDED


async def test_signals_reach_a_step_as_they_do_in_a_terminal(pool: Pool) -> None:
    _, context = await pool.run("grep SigIgn /proc/self/status; true")
    assert context.printed().split()[-1] == b"0" * 16


async def test_what_a_step_prints_is_kept_byte_for_byte(pool: Pool) -> None:
    printed = f"printf '{EVERY_BYTE}'; printf 'no end' >&2".replace("\\\\", "\\")
    _, context = await pool.run(printed, "echo second")
    assert context.printed() == bytes(range(256))
    assert context.printed(stream="stderr") == b"no end"
    assert context.printed("001") == b"second\n"


async def test_a_line_longer_than_a_frame_is_one_line(pool: Pool) -> None:
    _, context = await pool.run("head -c 100000 /dev/zero | tr '\\0' x; echo; echo end")
    assert context.printed() == b"x" * 100_000 + b"\nend\n"


async def test_steps_share_a_workspace_and_leave_no_process_to_each_other(pool: Pool) -> None:
    outcome, context = await pool.run(
        "echo kept > file; sleep 600 >/dev/null 2>&1 &", "cat file; pidof sleep || echo none"
    )
    assert outcome.kind is OutcomeKind.SUCCEEDED
    assert context.printed("001") == b"kept\nnone\n"


async def test_steps_in_different_images_share_the_workspace_in_turn(pool: Pool) -> None:
    other = Step(
        name="other",
        command=("/bin/sh", "-c", "cat file; echo $FLAVOUR; echo more >> file"),
        image="runyard-test/other:1",
    )
    outcome, context = await pool.run("sleep 0.3; echo one > file", other, "cat file; id -u")
    assert (outcome.kind, outcome.reason) == (OutcomeKind.SUCCEEDED, None)
    assert context.printed("001") == b"one\nsweet\n"
    assert context.printed("002") == b"one\nmore\n1000\n"
    assert list(context.phases) == ["preparing", "running", "step:step-0", "step:other", "step:step-2"]


async def test_after_a_failure_only_the_steps_that_are_for_it_run(pool: Pool) -> None:
    steps = [
        Step(name="fails", command=("sh", "-c", "exit 7")),
        Step(name="skipped", command=("echo", "skipped")),
        Step(name="tidies", command=("echo", "tidied"), condition=StepCondition.FAILURE),
        Step(name="always", command=("echo", "always"), condition=StepCondition.ALWAYS),
    ]
    outcome, context = await pool.run(*steps)
    assert (outcome.kind, outcome.exit_code) == (OutcomeKind.FAILED, 7)
    assert [context.printed(f"00{index}") for index in (1, 2, 3)] == [b"", b"tidied\n", b"always\n"]


@pytest.mark.parametrize(
    ("command", "code"),
    [("kill -SEGV $$", ReasonCode.SIGNAL), ("exit 3", ReasonCode.EXIT)],
)
async def test_a_signal_and_an_exit_are_told_apart(pool: Pool, command: str, code: ReasonCode) -> None:
    outcome, _ = await pool.run(command)
    assert outcome.reason is not None
    assert outcome.reason.code is code
    assert outcome.signal == (11 if code is ReasonCode.SIGNAL else None)


async def test_a_command_that_is_not_there_is_named(pool: Pool) -> None:
    outcome, _ = await pool.run(Step(name="main", command=("no-such-tool", "--version")))
    assert outcome.reason is not None
    assert (outcome.reason.code, outcome.exit_code) == (ReasonCode.COMMAND, 127)
    assert "no-such-tool" in outcome.reason.message


async def test_too_much_memory_is_told_as_such(pool: Pool) -> None:
    requirements = Requirements(memory_bytes=48 << 20)
    outcome, _ = await pool.run("x=a; while :; do x=$x$x; done", requirements=requirements)
    assert outcome.reason is not None
    assert outcome.reason.code is ReasonCode.MEMORY


async def test_too_many_processes_are_told_as_such(open_pool: OpenPool) -> None:
    pool = await open_pool(pids_max=32)
    outcome, _ = await pool.run("for i in $(seq 60); do sleep 60 & done; false")
    assert outcome.reason is not None
    assert outcome.reason.code is ReasonCode.PIDS


async def test_a_step_s_time_out_lets_the_steps_for_a_failure_run(pool: Pool) -> None:
    slow = Step(name="slow", command=("sleep", "600"), timeout_s=0.3)
    tidy = Step(name="tidy", command=("echo", "tidied"), condition=StepCondition.ALWAYS)
    outcome, context = await pool.run(slow, tidy)
    assert outcome.reason is not None
    assert (outcome.kind, outcome.reason.code, outcome.reason.step) == (
        OutcomeKind.TIMED_OUT, ReasonCode.STEP_TIMEOUT, "slow"
    )  # fmt: skip
    assert context.printed("001") == b"tidied\n"


async def test_the_limit_of_the_run_holds_over_containers(pool: Pool) -> None:
    other = Step(name="other", command=("sleep", "600"), image="runyard-test/other:1")
    outcome, context = await pool.run("sleep 0.5", other, "echo never", limits=Limits(run_s=1.0))
    assert outcome.reason is not None
    assert (outcome.reason.code, outcome.reason.step) == (ReasonCode.RUN_TIMEOUT, "other")
    assert context.printed("002") == b""


async def test_inline_files_are_in_the_workspace_and_the_job_s_own(pool: Pool) -> None:
    content = base64.b64encode(b"print(1)\n").decode()
    workspace = Workspace(files=(FileSource(path="src/deep/a.py", content_base64=content),))
    outcome, context = await pool.run(
        "cat src/deep/a.py; echo more >> src/deep/a.py; ls -ln src/deep", workspace=workspace
    )
    assert outcome.kind is OutcomeKind.SUCCEEDED
    assert context.printed().startswith(b"print(1)\n")
    assert b" 1000 " in context.printed()


def make_repository(folder: Path) -> Path:
    source = folder / "source"
    identity = ("-c", "user.name=t", "-c", "user.email=t@t")
    subprocess.run(["git", "init", "-q", "-b", "main", source], check=True)
    (source / "README").write_text("hello\n")
    subprocess.run(["git", "-C", source, "add", "."], check=True)
    subprocess.run(["git", "-C", source, *identity, "commit", "-qm", "one"], check=True)
    folder.chmod(0o755)
    return source


async def test_a_repository_is_fetched_by_the_host_and_put_in(open_pool: OpenPool, tmp_path: Path) -> None:
    source = make_repository(tmp_path)
    pool = await open_pool(git_protocols=["file"], git_file_roots=[str(tmp_path)], disk_reserve=0)
    workspace = Workspace(git=GitSource(url=f"file://{source}"))
    outcome, context = await pool.run("cat README; ls -d .git; ls -lnd .", workspace=workspace)
    assert outcome.reason is None, outcome
    assert context.printed().split()[:2] == [b"hello", b".git"]
    assert context.printed().split()[4:6] == [b"1000", b"1000"]
    assert b"checked out" in context.log.streams["setup", "stdout"]


async def test_a_repository_that_cannot_be_fetched_fails_before_the_first_step(
    open_pool, tmp_path: Path
) -> None:
    pool = await open_pool(git_protocols=["file"], git_file_roots=[str(tmp_path)], disk_reserve=0)
    workspace = Workspace(git=GitSource(url=f"file://{tmp_path}/nothing"))
    outcome, _ = await pool.run("true", workspace=workspace)
    assert outcome.reason is not None
    assert (outcome.kind, outcome.reason.code, outcome.was_seen) == (
        OutcomeKind.FAILED, ReasonCode.WORKSPACE, False
    )  # fmt: skip


async def test_artifacts_and_outputs_are_collected_also_after_a_failure(pool: Pool) -> None:
    outcome, context = await pool.run(
        "mkdir -p out/deep; echo 1 > out/a.txt; echo 2 > out/deep/b.txt; echo 3 > out/c.log;"
        "ln -s /etc/passwd out/evil.txt; mkfifo out/pipe.txt; echo v1 > version;"
        'printf value > "$RUNYARD_OUTPUTS/name"; exit 1',
        artifacts=("out/**/*.txt", "nothing"),
        outputs={"version": "version", "gone": "gone"},
    )
    assert outcome.kind is OutcomeKind.FAILED
    assert context.artifacts == {"out/a.txt": b"1\n", "out/deep/b.txt": b"2\n"}
    assert context.outputs == {"version": "v1\n", "name": "value"}
    words = context.log.streams["setup", "stderr"].decode()
    assert "nothing matches 'nothing'" in words
    assert "outputs: gone is not there" in words


async def test_a_cache_that_the_pool_does_not_keep_is_said_once(pool: Pool) -> None:
    request = pool.request(
        "true", cache=(NamedCache(key="deps", path="~/.cache/pip"),), outputs={"gone": "gone"}
    )
    context = MemoryContext(pool.folder)
    first = await pool.provider.run_job(request, context)
    words = context.log.streams["setup", "stderr"]
    assert await pool.provider.run_job(request, context) == first
    assert context.log.streams["setup", "stderr"] == words
    assert [b"~/.cache/pip" in line for line in words.splitlines()] == [True, False]


async def test_a_long_log_keeps_its_head_and_its_tail(pool: Pool) -> None:
    request = pool.request("seq 1 60000")
    context = MemoryContext(pool.folder, log_bytes_max=64 << 10)
    await pool.provider.run_job(request, context)
    printed = context.printed()
    assert printed.startswith(b"1\n2\n3\n")
    assert printed.endswith(b"59999\n60000\n")
    assert len(printed) - printed.count(b"\0") <= 64 << 10


async def test_what_the_daemon_rotated_away_while_nobody_followed_is_a_gap(pool: Pool) -> None:
    script = (
        "echo first; until test -e go; do sleep 0.05; done; head -c 16000 /dev/zero | tr '\\0' x > line; echo >> line;"
        "for i in $(seq 100); do cat line; done > many; for i in $(seq 24); do cat many; done; echo last"
    )
    request = pool.request(script, artifacts=("go",))
    context = MemoryContext(pool.folder, log_bytes_max=64 << 10)
    running = asyncio.create_task(pool.provider.run_job(request, context))
    while context.printed() != b"first\n":  # noqa: ASYNC110 -- the memory's log tells nobody
        await asyncio.sleep(0.02)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    client, name = pool.provider.place.client, f"{request.key.resource_name}-s0"
    await client.execute(name, ["/bin/touch", "/workspace/go"])
    assert await client.wait_container(name, 60.0)
    outcome = await pool.provider.run_job(request, context)
    assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
    printed = context.printed()
    assert printed.startswith(b"first\n\0")
    assert printed.endswith(b"x\nlast\n")
    assert len(printed) - printed.count(b"\0") <= 64 << 10
    assert context.artifacts == {"go": b""}
    assert await pool.provider.run_job(request, context) == outcome
    assert context.printed() == printed


async def test_what_somebody_removed_is_lost_and_never_started_again(
    pool: Pool, dockerd: DockerDaemon
) -> None:
    request, context = pool.request("echo began; sleep 600"), MemoryContext(pool.folder)
    running = asyncio.create_task(pool.provider.run_job(request, context))
    await context.reached("running")
    dockerd.run("rm", "--force", f"{request.key.resource_name}-s0")
    first = await running
    assert (first.kind, first.was_seen) == (OutcomeKind.LOST, True)
    assert await pool.provider.run_job(request, context) == first
    assert context.printed() == b"began\n"
