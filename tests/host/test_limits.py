"""Every way to end too early, told apart."""

import asyncio
import time

import pytest

from runyard.host import journal
from runyard.host.cgroups import AttemptCgroup, Limits
from runyard.host.linux import boottime
from runyard.model.outcome import OutcomeKind
from tests.host.world import host, living_with, open_world, sh, until

pytestmark = pytest.mark.service


async def test_a_step_beyond_its_timeout_is_ended_and_an_always_step_still_runs(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("sleep 60", timeout_s=0.2), sh("echo after", condition="always"))
        assert (ran.outcome.kind, ran.code) == (OutcomeKind.TIMED_OUT, "step_timeout")
        assert ran.log("001") == b"after\n"


async def test_the_run_limit_counts_from_the_first_step_over_all_and_nothing_runs_after_it(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("sleep 0.3"), sh("sleep 60", "b"), sh("echo no", condition="always"), run_limit_s=0.5
        )
        assert (ran.outcome.kind, ran.code, ran.outcome.reason.step) == (
            OutcomeKind.TIMED_OUT,
            "run_timeout",
            "b",
        )
        assert ran.log("002") == b""


async def test_the_start_limit_counts_from_the_plan_on_the_clock_that_only_grows(tmp_path):
    async with open_world(tmp_path) as world:
        old = {"created_boottime": boottime() - 60, "created_at": time.time() + 10_000}
        ran = await world.run(sh("echo no"), start_limit_s=30.0, **old)
        assert (ran.outcome.kind, ran.code) == (OutcomeKind.TIMED_OUT, "start_timeout")
        assert (ran.outcome.was_seen, ran.text) == (False, "")


async def test_more_memory_than_asked_for_is_told_as_memory(tmp_path):
    async with open_world(tmp_path) as world:
        hog = sh("exec python3 -c 'x = bytearray(512 << 20)'")
        ran = await world.run(hog, limits=Limits(memory_bytes=64 << 20, pids_max=64))
        assert (ran.outcome.kind, ran.code) == (OutcomeKind.FAILED, "memory")
        assert "64Mi" in ran.message


async def test_more_processes_than_allowed_is_told_as_pids(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("for i in 1 2 3 4 5 6 7 8 9; do sleep 30 & done; wait"),
            limits=Limits(memory_bytes=256 << 20, pids_max=8),
        )
        assert (ran.outcome.kind, ran.code) == (OutcomeKind.FAILED, "pids")


async def test_a_fork_bomb_is_held_and_gone_at_the_end(tmp_path):
    marker = "8765.4321"
    async with open_world(tmp_path) as world:
        plan = world.plan(
            sh(f"b() {{ b | b & sleep {marker}; }}; b; wait", timeout_s=1.0),
            limits=Limits(memory_bytes=256 << 20, pids_max=64),
        )
        ran = await world.run_plan(plan)
        assert ran.code in ("step_timeout", "pids")
        assert AttemptCgroup(plan.cgroups, plan.name).processes() == set()
        assert not living_with(marker)


async def test_killed_by_a_signal_is_told_from_killed_by_a_limit(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("kill -9 $$"))
        assert (ran.code, ran.outcome.signal) == ("signal", 9)


async def test_a_stop_says_term_first_and_gives_its_grace(tmp_path):
    async with open_world(tmp_path) as world:
        plan = world.plan(sh("trap 'echo got term; exit 0' TERM; echo ready; sleep 60 & wait"))
        ran = await stopped_when_ready(world, plan, grace_s=60.0)
        assert ran.outcome.kind is OutcomeKind.CANCELED
        assert ran.text == "ready\ngot term\n"


async def test_what_ignores_term_and_hides_is_killed_after_the_grace(tmp_path):
    marker = "8765.1234"
    async with open_world(tmp_path) as world:
        hide = f"(trap '' TERM; setsid sh -c \"trap '' TERM; nohup sleep {marker} & wait\" & ) ; "
        plan = world.plan(sh(f"trap '' TERM; {hide} echo ready; while :; do sleep 0.1; done"))
        ran = await stopped_when_ready(world, plan, grace_s=0.2)
        assert ran.outcome.kind is OutcomeKind.CANCELED
        assert not living_with(marker)


async def test_what_a_step_leaves_running_is_gone_with_the_step(tmp_path):
    marker = "8765.5678"
    async with open_world(tmp_path) as world:
        daemon = f"setsid sh -c 'exec >/dev/null 2>&1 <&-; sleep {marker} &' & sleep 0.1; echo left"
        ran = await world.run(sh(daemon))
        assert (ran.outcome.kind, ran.text) == (OutcomeKind.SUCCEEDED, "left\n")
        assert not living_with(marker)


async def test_a_limited_cpu_is_limited(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("while :; do :; done", timeout_s=1.0),
            limits=Limits(memory_bytes=64 << 20, pids_max=16, cpu_millis=200),
            kill_grace_s=0.0,
        )
        assert ran.outcome.usage.cpu_s < 0.6


async def test_no_group_is_left_after_an_attempt(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("true"))
        cgroup = AttemptCgroup(host().cgroup_tree, ran.directory.name)
        await until(lambda: not cgroup.exists)


async def stopped_when_ready(world, plan, grace_s):
    """Stops the attempt once its log says `ready`."""
    directory = world.directory(plan)
    running = asyncio.create_task(world.run_plan(plan))
    log = directory.path / "log" / "000.stdout"
    await until(lambda: log.exists() and b"ready" in log.read_bytes())
    directory.request_stop(grace_s)
    return await running


async def test_records_name_the_phases_in_order(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("true"), artifacts=("x",))
        order = [journal.STARTED, journal.PREPARING, journal.STEP_STARTED, journal.STEP_ENDED]
        assert [record["what"] for record in ran.records] == [*order, journal.COLLECTING, journal.ENDED]
