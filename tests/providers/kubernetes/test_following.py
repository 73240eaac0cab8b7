"""How attempts end in a cluster, each way told apart, over the strict server; and what they leave comes home."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from runyard.model.errors import Unreachable
from runyard.model.job import Limits, Step
from runyard.model.outcome import Outcome, OutcomeKind, ReasonCode
from runyard.model.pool import AvailabilityKind, WaitCode
from runyard.model.secret import SecretValue
from runyard.providers.kubernetes.provider import KubernetesProvider
from runyard.providers.port import AttemptRequest
from runyard.testing.conformance import TinyCommand
from runyard.testing.memory_context import MemoryContext
from runyard.testing.promises.world import Following, following
from tests.kubernetes.strict_server import ExecCall, ExecResult, Exit, Kind, Pause, Program, Say, Waiting
from tests.kubernetes.strict_server import kubelet as kubelet_module
from tests.kubernetes.strict_server.resources import JOBS, QUOTAS
from tests.providers.kubernetes.world import STOPPED, UNCLOSED, StrictWorld, bundle, end, strict_world

pytestmark = [pytest.mark.service, UNCLOSED]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StrictWorld]:
    monkeypatch.setattr(kubelet_module, "CREATING_S", 0.02)
    monkeypatch.setattr(kubelet_module, "INIT_GAP_S", 0.02)
    async with strict_world(tmp_path) as made:
        yield made


@pytest.fixture
async def provider(world: StrictWorld) -> KubernetesProvider:
    return await world.start_provider()


async def until(holds: Callable[[], Any]) -> Any:
    async with asyncio.timeout(15):
        while not (found := holds()):  # noqa: ASYNC110 -- the server tells nobody
            await asyncio.sleep(0.01)
    return found


def pod_of(world: StrictWorld) -> str:
    (pod,) = world.server.objects("pods")
    return str(pod["metadata"]["name"])


async def run(world: StrictWorld, provider: KubernetesProvider, request: AttemptRequest) -> Outcome:
    return await Following(world, provider, request).outcome()


def told(outcome: Outcome) -> tuple[OutcomeKind, ReasonCode | None, bool]:
    return outcome.kind, outcome.reason.code if outcome.reason else None, outcome.was_seen


# -- ends -------------------------------------------------------------------------------------------------------------
async def test_out_of_memory_is_told_as_such(world: StrictWorld, provider: KubernetesProvider) -> None:
    request = world.request()
    world.script(request, [Program((Exit(137, "OOMKilled"),))])
    outcome = await run(world, provider, request)
    assert told(outcome) == (OutcomeKind.FAILED, ReasonCode.MEMORY, True)


@pytest.mark.parametrize(
    ("disrupt", "words"),
    [
        (lambda server, pod: server.kubelet.evict(pod, "The node was low on memory."), "low on memory"),
        (lambda server, pod: server.kubelet.preempt(pod), "higher priority"),
        (lambda server, pod: server.kubelet.remove_node(), "node is gone"),
    ],
    ids=["evicted", "preempted", "node gone"],
)
async def test_what_the_cluster_does_to_it_is_a_loss_that_was_seen(
    world: StrictWorld, provider: KubernetesProvider, disrupt: Callable[..., None], words: str
) -> None:
    request = world.request(TinyCommand.WAIT)
    async with following(world, provider, request) as followed:
        disrupt(world.server, pod_of(world))
        outcome = await followed.outcome()
    assert told(outcome) == (OutcomeKind.LOST, ReasonCode.HOST_LOST, True)
    assert outcome.reason is not None
    assert words in outcome.reason.message


async def test_a_node_that_falls_silent_is_no_end(world: StrictWorld, provider: KubernetesProvider) -> None:
    request = world.request(TinyCommand.WAIT)
    async with following(world, provider, request) as followed:
        world.server.kubelet.lose_node()
        done, _ = await asyncio.wait({followed.task}, timeout=1.5)
        assert not done


async def test_an_image_that_cannot_be_pulled_ends_by_the_start_limit_in_the_clusters_words(
    world: StrictWorld, provider: KubernetesProvider
) -> None:
    request = world.request(limits=Limits(start_s=2))
    words = "manifest for nowhere.test/image:1 not found"
    world.script(request, [Program(waits=Waiting("ImagePullBackOff", words))])
    followed = Following(world, provider, request)
    outcome = await followed.outcome()
    assert told(outcome) == (OutcomeKind.TIMED_OUT, ReasonCode.START_TIMEOUT, False)
    assert outcome.reason is not None
    assert words in outcome.reason.message
    assert any(words in (text or "") for text in followed.context.progress)
    await until(lambda: not any(one["status"]["phase"] == "Pending" for one in world.server.objects("pods")))


async def test_a_job_that_is_deleted_by_another_hand_is_lost_and_not_made_again(
    world: StrictWorld, provider: KubernetesProvider
) -> None:
    request = world.request(TinyCommand.WAIT)
    async with following(world, provider, request) as followed:
        cluster = world.server.cluster
        cluster.delete(JOBS, "default", request.key.resource_name, {"propagationPolicy": "Background"})
        outcome = await followed.outcome()
    assert told(outcome) == (OutcomeKind.LOST, ReasonCode.HOST_LOST, True)
    assert await run(world, await world.start_provider(), request) == outcome
    assert world.count_starts(request.key) == 1


async def test_a_job_that_was_deleted_while_nobody_watched_is_lost(world: StrictWorld) -> None:
    old, request = await world.start_provider(), world.request(TinyCommand.WAIT)
    async with following(world, old, request):
        pass
    await old.close()
    cluster = world.server.cluster
    cluster.delete(JOBS, "default", request.key.resource_name, {"propagationPolicy": "Background"})
    await until(lambda: not world.server.objects("pods"))
    outcome = await run(world, await world.start_provider(), request)
    assert outcome.kind is OutcomeKind.LOST
    assert world.count_starts(request.key) == 1


async def test_an_ended_attempt_is_told_the_same_after_its_pod_is_gone(
    world: StrictWorld, provider: KubernetesProvider
) -> None:
    request = world.request(TinyCommand.FAIL)
    outcome = await run(world, provider, request)
    await world.kill_place(request.key)
    await until(lambda: not world.server.objects("pods"))
    assert await run(world, await world.start_provider(), request) == outcome


# -- waiting ----------------------------------------------------------------------------------------------------------
async def test_no_room_in_the_cluster_is_told_with_the_schedulers_words_and_holds_the_class_back(
    world: StrictWorld, provider: KubernetesProvider
) -> None:
    world.server.kubelet.places = False
    words = "0/1 nodes are available: 1 Insufficient cpu."
    followed = Following(world, provider, world.request())
    await until(lambda: world.server.objects("pods"))
    world.server.kubelet.mark_unschedulable(pod_of(world), words)
    await until(lambda: any(words in (text or "") for text in followed.context.progress))
    answer = await provider.can_dequeue(world.requirements)
    assert (answer.kind, answer.code) == (AvailabilityKind.SOON, WaitCode.POOL_FULL)
    assert words in answer.why
    other = dataclasses.replace(world.requirements, cpu_millis=1)
    assert (await provider.can_dequeue(other)).kind is AvailabilityKind.NOW
    world.server.kubelet.schedule(pod_of(world))
    assert (await followed.outcome()).kind is OutcomeKind.SUCCEEDED
    assert (await provider.can_dequeue(world.requirements)).kind is AvailabilityKind.NOW


async def test_a_used_up_quota_is_told_before_a_job_is_taken(
    world: StrictWorld, provider: KubernetesProvider
) -> None:
    spec = {"hard": {"requests.cpu": "8", "pods": "5"}}
    quota = world.server.cluster.create(QUOTAS, "default", {"metadata": {"name": "team"}, "spec": spec})[0]
    status = {"hard": spec["hard"], "used": {"requests.cpu": "7500m", "pods": "1"}}
    world.server.cluster.set_status(QUOTAS, quota, status)
    answer = await provider.can_dequeue(world.requirements)
    assert (answer.kind, answer.code) == (AvailabilityKind.SOON, WaitCode.QUOTA)
    assert "'team'" in answer.why
    huge = dataclasses.replace(world.requirements, cpu_millis=9000)
    assert (await provider.can_dequeue(huge)).kind is AvailabilityKind.NEVER


async def test_a_missing_runtime_class_is_named(world: StrictWorld) -> None:
    world.options["runtime_class"] = "kata"
    answer = await (await world.start_provider()).can_dequeue(world.requirements)
    assert answer.kind is AvailabilityKind.NEVER
    assert "'kata'" in answer.why


async def test_a_suspended_job_is_queued_in_the_cluster_and_its_start_limit_waits(
    world: StrictWorld, provider: KubernetesProvider
) -> None:
    world.server.kubelet.places = False
    request = world.request(limits=Limits(start_s=2))
    followed = Following(world, provider, request)
    job = (await until(lambda: world.server.objects("jobs")))[0]
    suspend(world, job, True)
    await until(lambda: any("suspended" in (text or "") for text in followed.context.progress))
    done, _ = await asyncio.wait({followed.task}, timeout=3.0)
    assert not done
    world.server.kubelet.places = True
    suspend(world, world.server.objects("jobs")[0], False)
    assert (await followed.outcome()).kind is OutcomeKind.SUCCEEDED


async def test_a_suspension_while_it_runs_is_a_loss(world: StrictWorld, provider: KubernetesProvider) -> None:
    request = world.request(TinyCommand.WAIT)
    async with following(world, provider, request) as followed:
        suspend(world, world.server.objects("jobs")[0], True)
        outcome = await followed.outcome()
    assert told(outcome) == (OutcomeKind.LOST, ReasonCode.HOST_LOST, True)


async def test_a_suspension_has_a_bound_of_its_own(world: StrictWorld) -> None:
    world.options["suspended_max"] = 1
    world.server.kubelet.places = False
    followed = Following(world, await world.start_provider(), world.request())
    job = (await until(lambda: world.server.objects("jobs")))[0]
    suspend(world, job, True)
    assert told(await followed.outcome()) == (OutcomeKind.TIMED_OUT, ReasonCode.START_TIMEOUT, False)


def suspend(world: StrictWorld, job: dict[str, Any], is_suspended: bool) -> None:
    world.server.cluster.replace(JOBS, job, {**job, "spec": {**job["spec"], "suspend": is_suspended}})


# -- steps, logs, artifacts -------------------------------------------------------------------------------------------
def steps(*names: str) -> tuple[Step, ...]:
    return tuple(Step(name=name, command=("true",)) for name in names)


def changed(request: AttemptRequest, **fields: Any) -> AttemptRequest:
    return dataclasses.replace(request, spec=dataclasses.replace(request.spec, **fields))


async def test_each_step_has_its_log_and_its_phase(world: StrictWorld, provider: KubernetesProvider) -> None:
    request = changed(world.request(), steps=steps("build", "test", "pack"))
    scripts = [
        Program((Say(b"building\n"), Pause(0.3), end("exit", 0))),
        Program((Pause(0.4), Say(b"testing\n"), end("exit", 3))),
        Program((Pause(0.8), end("skipped", 0))),
    ]
    world.script(request, scripts)
    followed = Following(world, provider, request)
    outcome = await followed.outcome()
    assert (outcome.kind, outcome.exit_code) == (OutcomeKind.FAILED, 3)
    assert [followed.context.printed(f"00{index}") for index in range(3)] == [
        b"building\n",
        b"testing\n",
        b"",
    ]
    assert list(followed.context.phases) == ["preparing", "workspace", "running", "step:build", "step:test"]
    assert followed.context.placement["node"] == "node-1"


@pytest.mark.parametrize("every", [1, 2, 3])
async def test_watches_that_end_all_the_time_lose_nothing_of_an_attempt(
    world: StrictWorld, provider: KubernetesProvider, every: int
) -> None:
    world.server.faults.watch_events_max = every
    world.server.faults.log_bytes_max = 20
    world.server.watches.cut()
    request = world.request()
    lines = [b"line %d\n" % number for number in range(9)]
    world.script(request, [Program((*map(Say, lines), Pause(0.3), end("exit", 0)))])
    followed = Following(world, provider, request)
    await asyncio.sleep(1.0)
    world.server.faults.log_bytes_max = None
    assert (await followed.outcome()).kind is OutcomeKind.SUCCEEDED
    assert followed.context.printed() == b"".join(lines)


ARTIFACTS = {"one.txt": b"1" * 40_000, "two/three.bin": bytes(range(256)) * 300}


@pytest.fixture
def leaving(world: StrictWorld) -> AttemptRequest:
    request = changed(world.request(), artifacts=("**",), outputs={"version": "v"})
    world.programs.left[request.key.resource_name] = bundle(ARTIFACTS, {"version": "1.2"}, "big: left out\n")
    return request


async def test_artifacts_and_outputs_come_home_and_the_pod_is_let_go(
    world: StrictWorld, provider: KubernetesProvider, leaving: AttemptRequest
) -> None:
    followed = Following(world, provider, leaving)
    assert (await followed.outcome()).kind is OutcomeKind.SUCCEEDED
    assert followed.context.artifacts == ARTIFACTS
    assert followed.context.outputs == {"version": "1.2"}
    assert followed.context.printed("setup", "stderr") == b"big: left out\n"
    await until(lambda: world.server.objects("pods")[0]["status"]["phase"] == "Succeeded")


@pytest.mark.parametrize("cut_after", [1, 600, 30_000, 70_000])
async def test_an_exec_that_is_cut_stores_no_half_file_and_is_repeated(
    world: StrictWorld, provider: KubernetesProvider, leaving: AttemptRequest, cut_after: int
) -> None:
    whole, cuts = world.server.kubelet.exec_handler, 2

    def cutting(call: ExecCall) -> ExecResult:
        nonlocal cuts
        found = whole(call)
        if not found.stdout or not cuts:
            return found
        cuts -= 1
        return dataclasses.replace(found, cut_after=cut_after)

    world.server.kubelet.exec_handler = cutting
    followed = Following(world, provider, leaving)
    assert (await followed.outcome()).kind is OutcomeKind.SUCCEEDED
    assert followed.context.artifacts == ARTIFACTS
    assert followed.context.outputs == {"version": "1.2"}


async def test_artifacts_that_cannot_be_had_make_a_success_none(
    world: StrictWorld, provider: KubernetesProvider, leaving: AttemptRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runyard.providers.kubernetes.collecting.RETRY_S", 0.0)
    world.server.kubelet.exec_handler = lambda call: ExecResult(stderr=b"no such file", code=1)
    outcome = await run(world, provider, leaving)
    assert told(outcome) == (OutcomeKind.FAILED, ReasonCode.ARTIFACTS, True)
    await until(lambda: world.server.objects("pods")[0]["status"]["phase"] in ("Failed", "Succeeded"))


async def test_a_store_that_is_full_leaves_the_attempt_to_be_asked_again(
    world: StrictWorld, provider: KubernetesProvider, leaving: AttemptRequest
) -> None:
    class Full(MemoryContext):
        async def store_artifact(self, path: str, chunks: Any) -> None:
            raise Unreachable("the disk is full")

    with pytest.raises(Unreachable, match="disk is full"):
        await provider.run_job(leaving, Full())
    followed = Following(world, provider, leaving)
    assert (await followed.outcome()).kind is OutcomeKind.SUCCEEDED
    assert followed.context.artifacts == ARTIFACTS
    assert world.count_starts(leaving.key) == 1


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.DROP_REPLY])
@pytest.mark.parametrize("call", ["exec", "PATCH .*/secrets", "GET .*/log"])
async def test_who_dies_around_the_end_is_followed_by_one_who_tells_it_whole(
    world: StrictWorld, provider: KubernetesProvider, leaving: AttemptRequest, call: str, kind: Kind
) -> None:
    followed = Following(world, provider, leaving)
    world.server.faults.plan(call, kind)
    outcome = None
    while outcome is None:
        try:
            outcome = await followed.outcome()
        except Unreachable:
            followed = Following(world, await world.start_provider(), leaving)
    again = Following(world, await world.start_provider(), leaving)
    assert await again.outcome() == outcome
    assert outcome.kind is OutcomeKind.SUCCEEDED
    assert again.context.outputs == {"version": "1.2"}
    assert again.context.phases == followed.context.phases


async def test_a_stop_in_the_middle_of_two_steps_says_where(
    world: StrictWorld, provider: KubernetesProvider
) -> None:
    request = changed(world.request(TinyCommand.WAIT), steps=steps("one", "two"))
    waiting = Program((Say(b"began\n"),), on_term=STOPPED)
    world.script(request, [waiting, Program(on_term=end("unstarted", 143))])
    async with following(world, provider, request) as followed:
        await provider.stop_job(request.key, grace_s=2.0)
        outcome = await followed.outcome()
    assert told(outcome) == (OutcomeKind.CANCELED, ReasonCode.CANCELED, True)


async def test_a_crowd_costs_few_requests_each(world: StrictWorld, provider: KubernetesProvider) -> None:
    """The two watches and what is read now and then are shared; the rest is an attempt's own."""
    requests = [world.request(number=number) for number in range(1, 21)]
    before = len(world.server.requests)
    outcomes = await asyncio.gather(*(run(world, provider, request) for request in requests))
    await asyncio.gather(*(provider.destroy_resource(request.key.resource_name) for request in requests))
    assert {outcome.kind for outcome in outcomes} == {OutcomeKind.SUCCEEDED}
    asked = [str(request) for request in world.server.requests[before:]]
    assert sum("/openapi/" in words for words in asked) == 1
    assert len(asked) / len(requests) <= 15  # some 10; a slow machine reads what is shared more often


async def test_a_quota_on_pods_leaves_the_job_waiting_with_its_controllers_words(
    world: StrictWorld, provider: KubernetesProvider
) -> None:
    cluster = world.server.cluster
    cluster.create(QUOTAS, "default", {"metadata": {"name": "team"}, "spec": {"hard": {"pods": "0"}}})
    followed = Following(world, provider, world.request())
    await until(lambda: any("exceeded quota: team" in (text or "") for text in followed.context.progress))
    answer = await provider.can_dequeue(world.requirements)
    assert answer.kind in (AvailabilityKind.SOON, AvailabilityKind.NEVER)
    assert "team" in answer.why
    cluster.delete(QUOTAS, "default", "team", {})
    assert (await followed.outcome()).kind is OutcomeKind.SUCCEEDED


async def test_a_secret_reaches_its_step_by_the_input_alone(
    world: StrictWorld, provider: KubernetesProvider
) -> None:
    request = changed(world.request(), steps=steps("one", "two"), artifacts=("x",))
    world.script(request, [Program((end("exit", 0),)), Program((end("exit", 0),))])
    secret = SecretValue(name="token", value=b"hush'hush", env="TOKEN", step="two")
    assert (await run(world, provider, dataclasses.replace(request, secrets=(secret,)))).kind is (
        OutcomeKind.SUCCEEDED
    )
    (kept,) = world.server.objects("secrets")
    inputs = {name: base64.b64decode(text).decode() for name, text in kept["data"].items()}
    assert [name for name, text in inputs.items() if "hush" in text] == ["step-001"]
    everything = [*world.server.objects("jobs"), *world.server.objects("pods"), kept["metadata"]]
    assert "hush" not in str(everything)


async def test_a_secret_as_a_file_is_refused_by_name(
    world: StrictWorld, provider: KubernetesProvider
) -> None:
    secret = SecretValue(name="token", value=b"hush", path="token")
    outcome = await run(world, provider, dataclasses.replace(world.request(), secrets=(secret,)))
    assert told(outcome) == (OutcomeKind.REFUSED, ReasonCode.REQUIREMENTS, False)
    assert outcome.reason is not None
    assert "token" in outcome.reason.message
    assert "hush" not in outcome.reason.message
