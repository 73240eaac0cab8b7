"""Secrets on this host, for real: who gets them, who does not, and where they are looked for in vain."""

import asyncio
import base64
import os
from pathlib import Path

import pytest

from runyard.host import attempt_directory as folders
from runyard.model.outcome import OutcomeKind
from runyard.model.secret import SecretValue
from tests.host.world import open_world, sh, until

pytestmark = pytest.mark.service

VALUE = b"correct-horse/battery+staple 42"
TOKEN = SecretValue(name="TOKEN", env="TOKEN", value=VALUE)
USING = """
    echo "$TOKEN" > /dev/null; cat /run/secrets/deep/key.pem | wc -c; touch here
    until test -e go; do sleep 0.01; done
"""
KEY = SecretValue(name="KEY", path="deep/key.pem", value=VALUE + b"\n\x00\xff")


async def run(world, *steps, secrets=(TOKEN,), **fields):
    return await world.run_plan(world.plan(*steps, has_secrets=True, **fields), secrets=secrets)


async def test_a_step_has_the_variable_and_its_value_is_masked_in_every_form(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await run(
            world,
            sh('test "$TOKEN" = "correct-horse/battery+staple 42" && echo "got $TOKEN"; echo "$TOKEN" >&2'),
            sh('printf "%s" "$TOKEN" | base64; printf "x%s" "$TOKEN" | base64', "b"),
        )
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED
        assert ran.log() == b"got ***\n"
        assert ran.log(stream="stderr") == b"***\n"
        printed = ran.log("001").split()
        assert [base64.b64encode(VALUE)[:20] in line for line in printed] == [False, False]
        assert [b"***" in line for line in printed] == [True, True]


async def test_a_secret_that_is_printed_in_pieces_and_over_two_steps_is_masked(tmp_path):
    piecewise = 'printf "%s" "${TOKEN%% *}"; sleep 0.01; printf " %s|\\n" "${TOKEN##* }"'
    async with open_world(tmp_path) as world:
        ran = await run(
            world, sh(piecewise), sh('printf "%s" "${TOKEN%% *}"', "b"), sh('printf " 42|"; echo', "c")
        )
        assert ran.log() == b"***|\n"
        assert ran.log("001") == b"***"
        assert ran.log("002") == b"***|\n"


async def test_a_prompt_that_begins_like_a_secret_appears_while_the_step_waits(tmp_path):
    async with open_world(tmp_path) as world:
        plan = world.plan(sh('printf "say cor"; until test -e go; do sleep 0.01; done'), has_secrets=True)
        running = asyncio.create_task(world.run_plan(plan, secrets=(TOKEN,)))
        log = tmp_path / plan.name / "log" / "000.stdout"
        await until(lambda: log.exists() and log.read_bytes() == b"say cor")
        touch(world.directories[0].path / folders.WORKSPACE / "go")
        assert (await running).outcome.kind is OutcomeKind.SUCCEEDED


async def test_a_secret_file_is_read_by_its_step_alone_and_written_by_nobody(tmp_path):
    script = """
        cat /run/secrets/deep/key.pem | tail -c 3 | od -An -tx1
        stat -c '%a %U' /run/secrets/deep/key.pem
        (echo no > /run/secrets/deep/key.pem) 2>/dev/null || echo kept
        (echo no > /run/secrets/more) 2>/dev/null || echo closed
    """
    async with open_world(tmp_path) as world:
        only = SecretValue(name="KEY", path="deep/key.pem", value=KEY.value, step="main")
        ran = await run(world, sh(script), sh("ls -A /run/secrets", "b"), secrets=(only,))
        assert ran.log().split(b"\n")[:4] == [b" 0a 00 ff", b"400 runyard", b"kept", b"closed"]
        assert ran.log("001") == b""


async def test_a_secret_of_one_step_is_not_in_the_others(tmp_path):
    async with open_world(tmp_path) as world:
        one = SecretValue(name="TOKEN", env="TOKEN", value=VALUE, step="b")
        ran = await run(world, sh('echo "<$TOKEN>"'), sh('echo "<$TOKEN>"', "b"), secrets=(one,))
        assert (ran.log(), ran.log("001")) == (b"<>\n", b"<***>\n")


async def test_nothing_on_the_host_shows_a_secret_while_it_is_used_or_after(tmp_path):
    """Every file beneath the attempt, every command line, and the environment of every process outside the sandbox."""
    async with open_world(tmp_path) as world:
        plan = world.plan(
            sh(USING),
            has_secrets=True,
        )
        running = asyncio.create_task(world.run_plan(plan, secrets=(TOKEN, KEY)))
        workspace = tmp_path / plan.name / folders.WORKSPACE
        await until((workspace / "here").exists)
        assert VALUE not in everything_written(tmp_path)
        assert VALUE not in command_lines()
        assert VALUE not in environment_of(world.directories[0].shim_pid())
        touch(workspace / "go")
        ran = await running
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED
        assert VALUE not in everything_written(tmp_path)


async def test_outputs_are_masked_and_an_output_named_like_a_secret_is_left_out(tmp_path):
    value = SecretValue(name="TOKEN", env="TOKEN", value=b"correct_horse")
    async with open_world(tmp_path) as world:
        ran = await run(
            world,
            sh('echo "v=$TOKEN" > /outputs/plain; echo x > "/outputs/$TOKEN"; echo "r=$TOKEN" > report'),
            outputs={"named": "report"},
            secrets=(value,),
        )
        assert dict(ran.end.outputs) == {"named": "r=***\n", "plain": "v=***\n"}
        assert "correct_horse" not in str(world.directories[0].records())


async def test_a_shim_without_the_secrets_of_its_plan_runs_nothing(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await run(world, sh("echo ran"), secrets=())
        assert (ran.outcome.kind, ran.outcome.was_seen) == (OutcomeKind.LOST, False)
        assert ran.log() == b""


async def test_bytes_that_are_no_text_pass_through_a_variable(tmp_path):
    value = SecretValue(name="TOKEN", env="TOKEN", value=b"\xff\xfe\x80abcdef")
    async with open_world(tmp_path) as world:
        ran = await run(world, sh('printf "%s" "$TOKEN" | wc -c; printf "%s" "$TOKEN"'), secrets=(value,))
        assert ran.log() == b"9\n***"


def everything_written(folder: Path) -> bytes:
    files = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    return b"".join(file.read_bytes() for file in files if file.is_file() and not file.is_symlink())


def touch(file: Path) -> None:
    file.touch()


def environment_of(pid: int | None) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def command_lines() -> bytes:
    found = b""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found += (entry / "cmdline").read_bytes() + b"\n"
            except OSError:
                continue
    return found
