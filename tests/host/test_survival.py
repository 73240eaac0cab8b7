"""An attempt outlives the service that started it, and its end is found afterwards."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runyard.host import journal
from runyard.host.attempt_directory import AttemptDirectory
from runyard.model.outcome import OutcomeKind
from tests.host import fake_service
from tests.host.world import STAGE, World, changed, living_with, open_world, sh, until

pytestmark = pytest.mark.service


def kill_service_at(world: World, plan, what: str) -> AttemptDirectory:
    """Starts another service for the plan and kills it -9 at the first record `what`."""
    file = world.folder / f"{plan.name}.json"
    file.write_text(plan.to_json())
    argv = [sys.executable, fake_service.__file__, str(file), str(world.folder), STAGE]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as service:
        for line in service.stdout:
            record = json.loads(line)
            if record["what"] == "zygote":
                world.other_zygote = record["pid"]
            if record["what"] == what:
                break
        service.send_signal(signal.SIGKILL)
    return world.directory(plan)


async def test_a_killed_service_loses_no_step_no_outcome_and_no_byte(tmp_path):
    count = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
    async with open_world(tmp_path) as world:
        plan = world.plan(
            sh(f"read x < /tmp/go 2>/dev/null; sleep 0.3; {count}", "a"), sh(count, "b"), sh("exit 7", "c")
        )
        kill_service_at(world, plan, journal.STEP_STARTED)
        ran = await world.run_plan(plan)
        expected = "".join(f"line {i}\n" for i in range(2000)).encode()
        assert (ran.log("000"), ran.log("001")) == (expected, expected)
        assert (ran.outcome.kind, ran.outcome.exit_code) == (OutcomeKind.FAILED, 7)
        starts = [record["index"] for record in ran.records if record["what"] == journal.STEP_STARTED]
        assert starts == [0, 1, 2]


async def test_an_attempt_that_ended_while_the_service_was_dead_is_found_ended(tmp_path):
    async with open_world(tmp_path) as world:
        plan = world.plan(sh("sleep 0.2; echo done"))
        directory = kill_service_at(world, plan, journal.STEP_STARTED)
        await until(directory.is_ended)
        ran = await world.run_plan(plan)
        assert (ran.outcome.kind, ran.text) == (OutcomeKind.SUCCEEDED, "done\n")


async def test_limits_hold_while_the_service_is_dead(tmp_path):
    async with open_world(tmp_path) as world:
        plan = world.plan(sh("sleep 60"), run_limit_s=0.4)
        directory = kill_service_at(world, plan, journal.STEP_STARTED)
        await until(directory.is_ended)
        assert (await world.run_plan(plan)).code == "run_timeout"


async def test_an_attempt_can_be_stopped_after_the_service_was_killed(tmp_path):
    async with open_world(tmp_path) as world:
        plan = world.plan(sh("sleep 60"))
        directory = kill_service_at(world, plan, journal.STEP_STARTED)
        directory.request_stop(1.0)
        ran = await world.run_plan(plan)
        assert ran.outcome.kind is OutcomeKind.CANCELED


async def test_cancelling_the_follower_leaves_the_attempt_running(tmp_path):
    async with open_world(tmp_path) as world:
        plan = world.plan(sh("sleep 0.4; echo went on"))
        running = asyncio.Event()

        async def note(record):
            if record["what"] == journal.STEP_STARTED:
                running.set()

        follower = asyncio.create_task(world.run_plan(plan, note))
        await running.wait()
        follower.cancel()
        await asyncio.gather(follower, return_exceptions=True)
        ran = await world.run_plan(plan)
        assert (ran.outcome.kind, ran.text) == (OutcomeKind.SUCCEEDED, "went on\n")


async def test_many_followers_start_an_attempt_once(tmp_path):
    async with open_world(tmp_path) as world:
        plan = world.plan(sh("echo ran; sleep 0.2"))
        all_ran = await asyncio.gather(*(world.run_plan(plan) for _ in range(5)))
        assert {ran.outcome.kind for ran in all_ran} == {OutcomeKind.SUCCEEDED}
        assert all_ran[0].text == "ran\n"


async def test_a_killed_shim_is_proof_of_death_and_leaves_nothing(tmp_path):
    marker = "7654.321"
    async with open_world(tmp_path) as world:
        plan = world.plan(sh(f"setsid sleep {marker} & sleep {marker}"))

        async def kill_shim(record):
            if record["what"] == journal.STEP_STARTED:
                await until(lambda: living_with(marker))
                os.kill(AttemptDirectory(tmp_path / plan.name).shim_pid(), signal.SIGKILL)

        ran = await world.run_plan(plan, kill_shim)
        assert (ran.outcome.kind, ran.code, ran.outcome.was_seen) == (OutcomeKind.LOST, "host_lost", True)
        await until(lambda: not living_with(marker))


async def test_another_boot_is_proof_of_death_and_an_unseen_attempt_costs_nothing(tmp_path):
    async with open_world(tmp_path) as world:
        plan = changed(world.plan(sh("true")), boot_id="another")
        world.directory(plan).create(plan)
        ran = await world.run_plan(plan)
        assert (ran.outcome.kind, ran.outcome.was_seen) == (OutcomeKind.LOST, False)


async def test_a_stop_before_the_start_ends_it_canceled_and_runs_nothing(tmp_path):
    async with open_world(tmp_path) as world:
        plan = world.plan(sh("echo ran"))
        world.directory(plan).request_stop(5.0)
        ran = await world.run_plan(plan)
        assert (ran.outcome.kind, ran.outcome.was_seen, ran.text) == (OutcomeKind.CANCELED, False, "")


async def test_a_dead_zygote_is_started_again(tmp_path):
    async with open_world(tmp_path) as world:
        os.kill(world.zygote.pid, signal.SIGKILL)
        dead = world.zygote.pid
        await until(lambda: world.zygote._socket is None)
        ran = await world.run(sh("echo again"))
        assert ran.text == "again\n"
        assert world.zygote.pid != dead


async def test_the_zygote_ends_with_its_service_and_shims_do_not(tmp_path):
    async with open_world(tmp_path) as world:
        plan = world.plan(sh("sleep 1; echo alive"))
        directory = kill_service_at(world, plan, journal.STEP_STARTED)
        await until(lambda: is_gone(world.other_zygote))
        assert directory.is_alive()
        assert (await world.run_plan(plan)).text == "alive\n"


def is_gone(pid: int) -> bool:
    """Dead, if perhaps not yet waited for: its parent was killed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_an_attempt_is_destroyed_while_it_runs_and_again(tmp_path):
    marker = "7654.987"
    async with open_world(tmp_path) as world:
        plan = world.plan(sh(f"mkdir -p a/b; chmod 0 a; ln -s / root; sleep {marker}"))
        directory = kill_service_at(world, plan, journal.STEP_STARTED)
        await until(lambda: living_with(marker))
        directory.destroy(plan.cgroups)
        assert not directory.path.exists()
        await until(lambda: not living_with(marker))
        directory.destroy(plan.cgroups)
