"""Steps in images on the `local` pool: pulled from a real registry, recorded, limited, adopted."""

import asyncio
import contextlib
import dataclasses
import os
import secrets
import signal

import pytest

from runyard.host.attempt_directory import AttemptDirectory
from runyard.model.attempt import AttemptKey
from runyard.model.job import GitSource, JobSpec, Limits, NamedCache, Step, Workspace
from runyard.model.outcome import OutcomeKind, ReasonCode
from runyard.model.pool import AvailabilityKind
from runyard.model.requirements import Isolation, Requirements
from runyard.testing.memory_context import MemoryContext
from tests.host.images.layers import entry, link
from tests.host.repositories.places import make_upstream
from tests.host.world import until
from tests.providers.local.test_local_provider import open_provider
from tests.providers.local.test_local_provider import request as other_request
from tests.registry_server import busybox_entries, free_port, serving_registry

pytestmark = pytest.mark.service
UID = secrets.token_hex(8)  # its control groups are apart from those of tests beside it


def request(script: str | None = None, *, number: int = 1, **fields):
    return dataclasses.replace(other_request(script, number=number, **fields), key=AttemptKey(UID, number))


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with serving_registry(tmp_path_factory.mktemp("registry")) as registry:
        registry.push("base:1", busybox_entries("base"))
        registry.push("bob:1", busybox_entries("bob"), config={"User": "bob", "Env": ["A=image", "B=image"]})
        yield registry


def job(registry, script: str, *, image="base:1", steps=(), **fields) -> JobSpec:
    first = Step(name="main", command=("/bin/sh", "-ec", script))
    name = image if "/" in image else f"{registry.address}/{image}"
    return JobSpec(steps=(first, *steps), image=name, requirements=Requirements(needs_images=True), **fields)


def pool(tmp_path, registry, **options):
    return open_provider(tmp_path, **{"registries": [{"host": registry.address, "private": True}], **options})


def printed(context, step="000", stream="stdout") -> str:
    return (context.log_directory / f"{step}.{stream}").read_text()


async def test_a_job_runs_in_its_image_and_tells_which(tmp_path, registry):
    context = MemoryContext(tmp_path)
    digest = registry.push("told:1", busybox_entries("told"))
    async with pool(tmp_path, registry) as provider:
        spec = job(
            registry, "cat /etc/os-release; id -u; echo x > made; pwd", image="told:1", artifacts=("made",)
        )
        outcome = await provider.run_job(request(spec=spec), context)
    assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
    assert printed(context).split() == ['NAME="told"', "0", "/workspace"]
    assert context.placement == {"image": digest}
    assert "image" in context.phases
    assert context.progress[-1] is None
    assert (context.artifact_directory / "made").read_text() == "x\n"


async def test_each_step_may_name_an_image_and_the_environment_has_its_order(tmp_path, registry):
    other = Step(
        name="other", command=("/bin/sh", "-c", "cat f; id -u; echo $A $B $C $HOME"), env={"C": "step"},
        image=f"{registry.address}/bob:1",
    )  # fmt: skip
    context = MemoryContext(tmp_path)
    async with pool(tmp_path, registry) as provider:
        spec = job(registry, "echo shared > f", steps=(other,), env={"B": "job", "C": "job"})
        outcome = await provider.run_job(request(spec=spec), context)
    assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
    assert printed(context, "001").split() == ["shared", "1234", "image", "job", "step", "/tmp/home"]
    assert set(context.placement) == {"image", "image:other"}


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("missing:1", "is not there"),
        ("hostile:1", "leads out of the root"),
        ("arch:1", "s390x"),
        ("big:1", "image_disk_max"),
    ],
)
async def test_a_wrong_image_is_the_outcome_in_the_registrys_words(tmp_path, registry, image, words):
    registry.push("hostile:1", [entry("../x", "x")])
    registry.push("arch:1", busybox_entries(), architecture="s390x")
    registry.push("big:1", [entry("x", os.urandom(9 << 20))])
    async with pool(tmp_path, registry, image_disk_max="8Mi") as provider:
        outcome = await provider.run_job(
            request(spec=job(registry, "true", image=image)), MemoryContext(tmp_path)
        )
    assert (outcome.kind, outcome.reason.code, outcome.was_seen) == (
        OutcomeKind.FAILED,
        ReasonCode.IMAGE,
        False,
    )
    assert words in outcome.reason.message


async def test_a_registry_at_an_address_that_is_not_public_is_refused_unless_configured(tmp_path, registry):
    async with open_provider(tmp_path) as provider:
        outcome = await provider.run_job(request(spec=job(registry, "true")), MemoryContext(tmp_path))
    assert outcome.reason.code is ReasonCode.IMAGE
    assert "may not be fetched from" in outcome.reason.message


async def test_a_registry_that_cannot_be_reached_is_tried_again(tmp_path, registry):
    context = MemoryContext(tmp_path)
    with serving_registry(tmp_path / "late") as down:
        down.push("base:1", busybox_entries("late"))
    async with pool(tmp_path, registry, registries=[{"host": down.address, "private": True}]) as provider:
        spec = job(registry, "cat /etc/os-release", image=f"{down.address}/base:1")
        running = asyncio.create_task(provider.run_job(request(spec=spec), context))
        await until(lambda: any("trying again" in (text or "") for text in context.progress))
        with serving_registry(tmp_path / "late", port=int(down.address.rpartition(":")[2])):
            assert (await running).kind is OutcomeKind.SUCCEEDED
    assert printed(context) == 'NAME="late"\n'


async def test_waiting_for_an_image_ends_with_the_start_limit_and_the_registrys_words(tmp_path, registry):
    gone = f"127.0.0.1:{free_port()}"
    async with pool(tmp_path, registry, registries=[{"host": gone, "private": True}]) as provider:
        spec = job(registry, "true", image=f"{gone}/x:1", limits=Limits(start_s=4.0))
        outcome = await provider.run_job(request(spec=spec), MemoryContext(tmp_path))
    assert (outcome.kind, outcome.reason.code) == (OutcomeKind.TIMED_OUT, ReasonCode.START_TIMEOUT)
    assert "cannot be reached" in outcome.reason.message


async def test_a_stop_ends_an_attempt_that_waits_for_its_image(tmp_path, registry):
    gone = f"127.0.0.1:{free_port()}"
    context = MemoryContext(tmp_path)
    async with pool(tmp_path, registry, registries=[{"host": gone, "private": True}]) as provider:
        attempt = request(spec=job(registry, "true", image=f"{gone}/x:1"))
        running = asyncio.create_task(provider.run_job(attempt, context))
        await context.reached("image")
        await provider.stop_job(attempt.key, grace_s=1.0)
        assert (await running).kind is OutcomeKind.CANCELED
        assert (
            await provider.run_job(attempt, MemoryContext(tmp_path / "again"))
        ).kind is OutcomeKind.CANCELED


async def test_an_image_step_outlives_the_service_and_is_adopted_whole(tmp_path, registry):
    first, second = MemoryContext(tmp_path), MemoryContext(tmp_path)
    spec = job(
        registry, "echo before; while ! test -e go; do sleep 0.02; done; cat /etc/os-release",
        steps=(Step(name="next", command=("/bin/sh", "-c", "id -u"), image=f"{registry.address}/bob:1"),),
    )  # fmt: skip
    async with contextlib.AsyncExitStack() as stack:
        gone = await stack.enter_async_context(pool(tmp_path, registry))
        following = asyncio.create_task(gone.run_job(request(spec=spec), first))
        await first.reached("running")
        os.kill(gone._zygote.pid, signal.SIGKILL)  # as with the service itself
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        async with pool(tmp_path, registry, image_disk_max=1024) as provider:
            adopting = asyncio.create_task(provider.run_job(request(spec=spec), second))
            await second.reached("running")
            (tmp_path / "pool/attempts" / request("").key.resource_name / "workspace/go").touch()
            outcome = await adopting
            assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
    assert printed(second) == 'before\nNAME="base"\n'
    assert printed(second, "001") == "1234\n"
    assert second.cache_uses == first.cache_uses
    assert sum(second.cache_uses.values()) == 2, "a layer of each image, read again from the journal"


async def test_a_hostile_root_is_the_images_fault(tmp_path, registry):
    registry.push("linked:1", [*busybox_entries(), entry(".wh.tmp", ""), link("tmp", "/oldroot/tmp")])
    async with pool(tmp_path, registry) as provider:
        spec = job(registry, "true", image="linked:1")
        outcome = await provider.run_job(request(spec=spec), MemoryContext(tmp_path))
    assert outcome.reason.code is ReasonCode.IMAGE
    assert "/tmp" in outcome.reason.message


async def test_a_pool_without_isolation_says_that_it_has_no_images(tmp_path, registry):
    async with open_provider(tmp_path, isolation="none") as provider:
        assert not provider.capabilities.has_images
        needs = Requirements(isolation=Isolation.NONE, needs_images=True)
        assert (await provider.can_dequeue(needs)).kind is AvailabilityKind.NEVER
        found = {finding.name: finding for finding in await provider.check()}
        assert "need a sandbox" in found["images"].message


async def test_what_a_destroyed_attempt_ran_in_may_go(tmp_path, registry):
    registry.push("one:1", [*busybox_entries("one"), entry("data", os.urandom(3 << 20))])
    registry.push("two:1", [*busybox_entries("two"), entry("data", os.urandom(3 << 20))])
    async with pool(tmp_path, registry, image_disk_max="9Mi") as provider:
        for number, name in enumerate(("one:1", "two:1"), start=1):
            attempt = request(number=number, spec=job(registry, "true", image=name))
            outcome = await provider.run_job(attempt, MemoryContext(tmp_path / name))
            assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
            await provider.destroy_resource(attempt.key.resource_name)
        assert not AttemptDirectory(tmp_path / "pool/attempts" / attempt.key.resource_name).exists
        assert len(os.listdir(tmp_path / "pool/images/layers")) == 1


async def test_an_image_works_on_a_repository_and_on_a_named_cache(tmp_path, registry):
    """The image's root, which is no slot's own id, reads, changes and commits what was fetched for the job."""
    upstream = make_upstream(tmp_path / "upstream")
    upstream.commit({"file": "1\n"})
    options = {"git_protocols": ["file"], "git_file_roots": [str(tmp_path)]}
    workspace = Workspace(git=GitSource(url=f"file://{upstream.folder}"))
    caches = (NamedCache(key="k", path="kept"),)
    script = (
        "cat file; echo 2 >> file; cat kept/x 2>/dev/null || { mkdir kept; echo cached > kept/x; }; touch new"
    )
    said, uses = [], []
    async with pool(tmp_path, registry, **options) as provider:
        for number in (1, 2):
            context = MemoryContext(tmp_path / str(number))
            spec = job(registry, script, workspace=workspace, cache=caches, artifacts=("file",))
            outcome = await provider.run_job(request(spec=spec, number=number), context)
            assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
            assert (context.artifact_directory / "file").read_text() == "1\n2\n"
            said.append(printed(context))
            uses.append(context.cache_uses)
            await provider.destroy_resource(AttemptKey(UID, number).resource_name)
    assert said == ["1\n", "1\ncached\n"]
    pulled = ("image_layers", "pulled"), ("git_trees", "made"), ("git_mirrors", "fetched")
    assert uses[0] == dict.fromkeys([*pulled, ("named", "missed"), ("named", "saved")], 1)
    there = ("image_layers", "present"), ("git_trees", "hit"), ("named", "restored")
    assert uses[1] == dict.fromkeys(there, 1)
