"""Nothing that a job does keeps its attempt from ending: not a stolen byte, not a shim that stands still."""

import asyncio
import os
import signal
import time

import pytest

from runyard.host import journal
from runyard.host.linux import boottime
from runyard.host.process import Identity
from runyard.host.pump import AttemptLog
from runyard.host.runner import AttemptRunner
from runyard.host.step import Command, Deadline, Program, StopRequest
from runyard.model.outcome import OutcomeKind
from tests.host.world import World, changed, living_with, open_world, sh, until

pytestmark = pytest.mark.service


class RobbedProgram(Program):
    """Somebody else reads what the poll announced before we do."""

    def _handle(self, child, fd):
        if fd in self._pipes or fd == self._command.status_read:
            thief = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)
            try:
                os.read(thief, 65536)
            except BlockingIOError:
                pass
            finally:
                os.close(thief)
        super()._handle(child, fd)


def run_robbed(folder, words: list[str]) -> None:
    wakeup_fd, _ = os.pipe2(os.O_NONBLOCK)
    status_read, status_write = os.pipe2(os.O_CLOEXEC)
    os.write(status_write, b"x")
    log = AttemptLog(str(folder), 1 << 20)
    command = Command(
        argv=["sh", "-c", "echo x; exec sleep 60"], env={"PATH": os.defpath}, identity=Identity(),
        is_sandboxed=False, inherit=[status_write], status_read=status_read,
    )  # fmt: skip
    program = RobbedProgram(
        command, stdout=log.open("000", "stdout"), stderr=log.open("000", "stderr"), cgroup=None,
        wakeup_fd=wakeup_fd, stop_request=lambda: None,
    )  # fmt: skip
    end = program.run([Deadline(at=boottime() + 0.3, why="step_timeout")], kill_grace_s=0)
    words.append(str(end.why))


def test_a_byte_that_a_job_stole_from_its_pipe_does_not_stop_the_time_out(tmp_path):
    pid = os.fork()
    if pid == 0:
        words: list[str] = []
        try:
            run_robbed(tmp_path, words)
        finally:
            os._exit(0 if words == ["step_timeout"] else 1)
    ends_at = time.monotonic() + 5
    while not (done := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < ends_at:
        time.sleep(0.01)  # no descriptor tells of a child that hangs
    if not done[0]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert done == (pid, 0)


async def test_a_job_that_reads_its_own_output_cannot_freeze_its_shim(tmp_path):
    script = """
        exec python3 -c '
import os, threading
fd = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK)
def steal():
    while True:
        try: os.read(fd, 1)
        except BlockingIOError: pass
for _ in range(3): threading.Thread(target=steal, daemon=True).start()
while True: os.write(1, b"x")'
    """
    async with open_world(tmp_path) as world:
        began = time.monotonic()
        async with asyncio.timeout(20):
            ran = await world.run(sh(script, timeout_s=1.0))
        assert ran.code == "step_timeout"
        assert time.monotonic() - began < 8


async def frozen(world: World, plan, *, stop_grace_s: float | None = None):
    """Runs the attempt and stops its shim dead at the first step; asks it to end if a grace is given."""
    directory = world.directory(plan)

    async def freeze(record):
        if record["what"] == journal.STEP_STARTED:
            os.kill(directory.shim_pid(), signal.SIGSTOP)
            if stop_grace_s is not None:
                directory.request_stop(stop_grace_s)

    async with asyncio.timeout(20):
        return await world.run_plan(plan, freeze)


async def test_a_shim_that_does_not_answer_a_stop_is_killed_and_the_attempt_canceled(tmp_path):
    marker = "6543.211"
    async with open_world(tmp_path) as world:
        world.runner = AttemptRunner(world.zygote, stop_margin_s=0.3)
        ran = await frozen(world, world.plan(sh(f"setsid sleep {marker}")), stop_grace_s=0.2)
        assert (ran.outcome.kind, ran.code, ran.outcome.was_seen) == (
            OutcomeKind.CANCELED,
            "canceled",
            True,
        )
        assert not ran.directory.is_alive()
        await until(lambda: not living_with(marker))


async def test_a_repeated_stop_does_not_put_the_end_off(tmp_path):
    async with open_world(tmp_path) as world:
        plan = world.plan(sh("true"))
        directory = world.directory(plan)
        directory.request_stop(1.0)
        first = directory.stop_request()
        directory.request_stop(5.0)
        assert directory.stop_request() == first
        assert first == StopRequest(grace_s=1.0, asked_at=first.asked_at)


async def test_a_shim_long_past_all_its_limits_is_killed_and_the_attempt_timed_out(tmp_path):
    async with open_world(tmp_path) as world:
        world.runner = AttemptRunner(world.zygote, limits_margin_s=0.1)
        plan = world.plan(
            sh("sleep 60"), start_limit_s=0.5, run_limit_s=0.2, kill_grace_s=0, collect_limit_s=0.1
        )
        ran = await frozen(world, plan)
        assert (ran.outcome.kind, ran.code) == (OutcomeKind.TIMED_OUT, "run_timeout")


async def test_a_frozen_shim_that_ran_no_step_is_lost_and_costs_nothing(tmp_path):
    async with open_world(tmp_path) as world:
        plan = world.plan(sh("echo ran"), start_limit_s=0.2, run_limit_s=0.1, collect_limit_s=0.1)
        directory = world.directory(plan)
        directory.create(changed(plan))
        lock = directory.take_lock()
        writer = journal.JournalWriter(directory.file("journal"))
        sleeper = await asyncio.create_subprocess_exec("sleep", "60", pass_fds=[lock])
        os.close(lock)
        writer.write(journal.STARTED, 0.0, pid=sleeper.pid, boot_id=plan.boot_id)
        world.runner = AttemptRunner(world.zygote, limits_margin_s=0.1)
        async with asyncio.timeout(20):
            ran = await world.run_plan(plan)
        assert (ran.outcome.kind, ran.outcome.was_seen) == (OutcomeKind.LOST, False)
        await sleeper.wait()


async def test_an_attempt_within_its_limits_is_left_alone(tmp_path):
    async with open_world(tmp_path) as world:
        world.runner = AttemptRunner(world.zygote, limits_margin_s=0.0, stop_margin_s=0.0)
        ran = await world.run(sh("sleep 1.3; echo done"))
        assert ran.text == "done\n"
