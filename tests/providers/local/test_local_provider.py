"""The `local` provider keeps the port's promises, for real."""

import asyncio
import contextlib
import dataclasses
import os
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from runyard.host.attempt_directory import AttemptDirectory
from runyard.logs.layout import stream_file
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Unreachable
from runyard.model.job import FileSource, JobSpec, Limits, Step, StepCondition, Workspace
from runyard.model.outcome import OutcomeKind, ReasonCode
from runyard.model.pool import AvailabilityKind, Demand
from runyard.model.requirements import Isolation, Requirements
from runyard.model.secret import SecretUse, SecretValue
from runyard.providers.local import LocalProvider, create_provider
from runyard.providers.port import AttemptRequest, ProviderConfig
from runyard.testing.memory_context import MemoryContext
from tests.host.world import until

pytestmark = pytest.mark.service
UID = secrets.token_hex(8)  # what this host names by it is no other run's


@dataclass
class Context:
    """A RunContext over a folder."""

    folder: Path
    log_bytes_max: int = 1 << 20
    phases: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    cache_uses: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def log_directory(self) -> Path:
        return self.folder / "log"

    @property
    def artifact_directory(self) -> Path:
        return self.folder / "artifacts"

    def may_create(self, within_s: float) -> bool:
        return True

    async def record_phase(self, name, at):
        self.phases.setdefault(name, at)

    async def record_outputs(self, outputs):
        self.outputs.update(outputs)

    async def record_cache_use(self, cache, result, total):
        self.cache_uses[cache, result] = total

    def log(self, step="000", stream="stdout") -> str:
        file = stream_file(self.log_directory, step, stream)
        return file.read_text() if file.exists() else ""


def request(
    script: str | None = None, *, number=1, slot=0, spec: JobSpec | None = None, **fields
) -> AttemptRequest:
    spec = spec or JobSpec(steps=(Step(name="main", command=("/bin/sh", "-ec", script)),), **fields)
    env = {"RUNYARD_JOB": "j", "RUNYARD_TENANT": "t", "RUNYARD_QUEUE": "q", "RUNYARD_ATTEMPT": str(number)}
    return AttemptRequest(key=AttemptKey(UID, number), job_id="j", spec=spec, slot=slot, epoch=1, env=env)


@contextlib.asynccontextmanager
async def open_provider(folder: Path, slots=2, **options) -> AsyncIterator[LocalProvider]:
    provider = create_provider(
        ProviderConfig(
            pool="local", installation="i", data_directory=folder / "pool", slots=slots,
            options={"uid_base": 731_600_000, "kill_grace": 0.3, **options},
        )
    )  # fmt: skip
    await provider.start()
    try:
        yield provider
    finally:
        for resource in (await provider.list_resources()).resources:
            await provider.destroy_resource(resource.name)
        await provider.close()


async def test_a_job_runs_with_the_environment_that_the_interface_lists(tmp_path):
    context = Context(tmp_path)
    spec = JobSpec(
        steps=(
            Step(name="one", command=("/bin/sh", "-c", "env; pwd"), env={"B": "step", "C": "3"}, dir="sub"),
            Step(name="two", command=("/bin/sh", "-c", "pwd"), condition=StepCondition.ALWAYS),
        ),
        env={"A": "job", "B": "job"},
        dir="base",
        workspace=Workspace(
            files=(
                FileSource(path="base/x", content_base64="eA=="),
                FileSource(path="sub/x", content_base64="eA=="),
            )
        ),
    )
    async with open_provider(tmp_path) as provider:
        outcome = await provider.run_job(request(spec=spec), context)
    assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
    *lines, directory = context.log().splitlines()
    assert dict(line.split("=", 1) for line in lines) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp/home",
        "LANG": "C.UTF-8", "TZ": "UTC", "CI": "true", "RUNYARD_JOB": "j", "RUNYARD_TENANT": "t",
        "RUNYARD_QUEUE": "q", "RUNYARD_ATTEMPT": "1", "RUNYARD_STEP": "one", "RUNYARD_WORKSPACE": "/workspace",
        "RUNYARD_OUTPUTS": "/outputs", "A": "job", "B": "step", "C": "3", "PWD": "/workspace/sub",
    }  # fmt: skip
    assert (directory, context.log("001")) == ("/workspace/sub", "/workspace/base\n")
    assert set(context.phases) == {"preparing", "workspace", "running", "step:one", "step:two"}


async def test_run_job_of_an_ended_attempt_gives_the_same_outcome_and_outputs_from_a_new_provider(tmp_path):
    first, second = Context(tmp_path), Context(tmp_path)
    async with open_provider(tmp_path) as provider:
        before = await provider.run_job(request("echo -n v > $RUNYARD_OUTPUTS/name; exit 5"), first)
        async with contextlib.AsyncExitStack() as stack:
            other = create_provider(
                ProviderConfig(pool="local", installation="i", data_directory=tmp_path / "pool")
            )
            await other.start()
            stack.push_async_callback(other.close)
            after = await other.run_job(request("exit 5"), second)
    assert before == after
    assert first.outputs == second.outputs == {"name": "v"}
    assert first.phases == second.phases


async def test_a_stop_ends_a_running_attempt_canceled(tmp_path):
    context = Context(tmp_path)
    async with open_provider(tmp_path) as provider:
        running = asyncio.create_task(provider.run_job(request("sleep 60"), context))
        await until(lambda: "running" in context.phases)
        await provider.stop_job(request("").key, grace_s=2.0)
        assert (await running).kind is OutcomeKind.CANCELED


async def test_a_stop_before_the_start_is_kept(tmp_path):
    async with open_provider(tmp_path) as provider:
        await provider.stop_job(request("").key, grace_s=1.0)
        outcome = await provider.run_job(request("exit 9"), Context(tmp_path))
        assert (outcome.kind, outcome.was_seen) == (OutcomeKind.CANCELED, False)


async def test_resources_are_listed_and_destroyed_and_missing_is_success(tmp_path):
    async with open_provider(tmp_path) as provider:
        await provider.run_job(request("true"), Context(tmp_path))
        listing = await provider.list_resources()
        assert [resource.name for resource in listing.resources] == [f"runyard-{UID}-1"]
        assert listing.is_complete
        await provider.destroy_resource(f"runyard-{UID}-1")
        await provider.destroy_resource(f"runyard-{UID}-1")
        await provider.destroy_resource("../../etc")
        assert (await provider.list_resources()).resources == ()


async def test_slots_have_user_ids_of_their_own_and_cannot_read_each_other(tmp_path):
    async with open_provider(tmp_path) as provider:
        for slot in (0, 1):
            await provider.run_job(
                request("touch mine", number=slot + 1, slot=slot), Context(tmp_path / str(slot))
            )
        owners = [
            (tmp_path / f"pool/attempts/runyard-{UID}-{n}/workspace/mine").stat().st_uid for n in (1, 2)
        ]
        assert owners == [731_601_000, 731_666_536]


async def test_memory_of_the_requirements_is_the_limit(tmp_path):
    async with open_provider(tmp_path) as provider:
        hog = request(
            "python3 -c 'x = bytearray(256 << 20)'", requirements=Requirements(memory_bytes=64 << 20)
        )
        outcome = await provider.run_job(hog, Context(tmp_path))
        assert outcome.reason.code is ReasonCode.MEMORY


@pytest.mark.parametrize(("disk_bytes", "limit"), [(None, "8.0Mi"), (16 << 20, "16.0Mi")])
async def test_disk_of_the_requirements_is_the_limit_and_else_the_pools(tmp_path, disk_bytes, limit):
    async with open_provider(tmp_path, disk_max="8Mi", disk_reserve=0) as provider:
        assert "disk watched" in provider.capabilities.description
        script = "for i in 1 2 3 4 5 6; do head -c 4M /dev/zero > $i; done; sleep 60"
        hog = request(script, requirements=Requirements(disk_bytes=disk_bytes))
        outcome = await provider.run_job(hog, Context(tmp_path))
        assert outcome.reason.code is ReasonCode.DISK
        assert limit in outcome.reason.message


async def test_whatever_keeps_a_resource_from_being_removed_is_unreachable(tmp_path):
    async with open_provider(tmp_path) as provider:
        name = request("").key.resource_name
        directory = AttemptDirectory(tmp_path / "pool/attempts" / name)
        directory.path.mkdir()
        lock = directory.take_lock()
        directory.journal.write_text("{torn\n")
        with pytest.raises(Unreachable, match=name):
            await provider.destroy_resource(name)
        os.close(lock)
        await provider.destroy_resource(name)
        assert not directory.path.exists()


async def test_limits_of_the_job_are_enforced(tmp_path):
    async with open_provider(tmp_path) as provider:
        outcome = await provider.run_job(request("sleep 60", limits=Limits(run_s=0.2)), Context(tmp_path))
        assert outcome.reason.code is ReasonCode.RUN_TIMEOUT


async def test_a_check_starts_a_sandbox_and_leaves_nothing(tmp_path):
    async with open_provider(tmp_path) as provider:
        found = {finding.name: finding for finding in await provider.check()}
        assert found["start"].ok, found["start"]
        assert found["isolation"].ok
        assert (await provider.list_resources()).resources == ()


async def test_supply_and_shape(tmp_path):
    async with open_provider(tmp_path, slots=3, cpu=4, memory="2Gi") as provider:
        assert (provider.shape.slots, provider.shape.budget.cpu_millis) == (3, 4000)
        assert provider.shape.budget.memory_bytes == 2 << 30
        supply = await provider.handle_queue_size(Demand(at=0.0, running=1), MemoryContext().records)
        assert (supply.slots, supply.idle) == (3, 2)
        assert (await provider.can_dequeue(Requirements())).kind is AvailabilityKind.NOW
        assert provider.capabilities.isolation is Isolation.CONTAINER


async def test_without_isolation_a_step_runs_in_its_folders_under_its_id_and_limits(tmp_path):
    context = Context(tmp_path)
    script = "id -u; pwd; echo $HOME; echo x > $RUNYARD_OUTPUTS/o; (setsid sleep 9876.5 &) ; kill -9 $$"
    async with open_provider(tmp_path, isolation="none") as provider:
        bare = Requirements(isolation=Isolation.NONE)
        outcome = await provider.run_job(request(script, slot=1, requirements=bare), context)
        assert (outcome.reason.code, outcome.signal, outcome.exit_code) == (ReasonCode.SIGNAL, 9, None)
        lines = context.log().splitlines()
        assert lines[0] == "731666536"
        assert lines[1].endswith("/workspace")
        assert context.outputs == {"o": "x\n"}
        missing = JobSpec(steps=(Step(name="a", command=("nope",)),), requirements=bare)
        outcome = await provider.run_job(request(number=2, spec=missing), Context(tmp_path / "b"))
        assert (outcome.reason.code, outcome.exit_code) == (ReasonCode.COMMAND, 127)
        assert (await provider.can_dequeue(Requirements())).kind is AvailabilityKind.NEVER


async def test_a_secret_as_a_file_is_refused_where_nothing_is_isolated(tmp_path):
    """There is no place for it that its job alone reads, and that is no disk."""
    key = SecretValue(name="KEY", path="key", value=b"correct-horse")
    token = SecretValue(name="TOKEN", env="TOKEN", value=b"correct-horse")
    spec = JobSpec(
        steps=(Step(name="main", command=("/bin/sh", "-c", "echo $TOKEN")),),
        requirements=Requirements(isolation=Isolation.NONE),
        secrets=(SecretUse(name="TOKEN", env="TOKEN"),),
    )
    async with open_provider(tmp_path, isolation="none") as provider:
        context = Context(tmp_path)
        bare = dataclasses.replace(request(spec=spec), secrets=(key,))
        outcome = await provider.run_job(bare, context)
        assert (outcome.kind, outcome.reason.code) == (OutcomeKind.REFUSED, ReasonCode.REQUIREMENTS)
        outcome = await provider.run_job(dataclasses.replace(bare, secrets=(token,)), context)
        assert outcome.kind is OutcomeKind.SUCCEEDED
        assert context.log() == "***\n"


async def test_who_adopts_a_running_attempt_needs_no_secret_and_its_output_stays_masked(tmp_path):
    token = SecretValue(name="TOKEN", env="TOKEN", value=b"correct-horse")
    script = "echo begins; until test -e go; do sleep 0.01; done; echo $TOKEN"
    asked = request(script, secrets=(SecretUse(name="TOKEN", env="TOKEN"),))
    context = Context(tmp_path)
    async with open_provider(tmp_path) as provider:
        running = asyncio.create_task(provider.run_job(dataclasses.replace(asked, secrets=(token,)), context))
        await until(lambda: context.log() == "begins\n")
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        adopting = asyncio.create_task(provider.run_job(asked, context))
        directory = AttemptDirectory(tmp_path / "pool" / "attempts" / asked.key.resource_name)
        (directory.path / "workspace" / "go").touch()
        assert (await adopting).kind is OutcomeKind.SUCCEEDED
        assert context.log() == "begins\n***\n"
        assert directory.read_plan().has_secrets
        assert "correct-horse" not in directory.read_plan().to_json()
