"""One attempt in a daemon: started or adopted, followed, judged, collected. Idempotent by name.

What is created before the first start holds the whole attempt, so what is running later needs only to be followed. A
start that was not fed to its end ran nothing of the job's, and is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from runyard.model.errors import NoCapacity, Unreachable
from runyard.model.outcome import Outcome, OutcomeKind, ReasonCode, lost
from runyard.providers.docker import containers, names
from runyard.providers.docker.artifacts import collect
from runyard.providers.docker.client import (
    CREATE_S,
    DockerClient,
    Document,
    Listed,
    Missing,
    NameTaken,
    Refused,
)
from runyard.providers.docker.containers import Facts, Tools
from runyard.providers.docker.feeding import feed_container, write_secrets
from runyard.providers.docker.images import DaemonImages
from runyard.providers.docker.markers import parse_time
from runyard.providers.docker.options import DockerOptions
from runyard.providers.docker.parts import find_parts, stop_running
from runyard.providers.docker.pauses import Pauses, is_gone
from runyard.providers.docker.plan import Group, Image, group_steps, user_of, write_plan
from runyard.providers.docker.reading import AttemptLog, ContainerReader
from runyard.providers.docker.services import AttemptServices
from runyard.providers.docker.tools import ToolMaker
from runyard.providers.docker.verdict import UNFED, ContainerEnd, Story, judge, unseen
from runyard.providers.docker.workspace import Packed, Workspaces
from runyard.providers.port import AttemptRequest, RunContext

PROBE_S = 10.0
"""How often one that runs is looked at: whether it, and its daemon, are there."""
MARGIN_S = 30.0
DRAIN_S = 10.0
UNFED_PAUSE_S = 0.5
_DISK_FULL = "no space left on device"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the attempts of a pool share. `locks`: one start of an attempt at a time, in this process."""

    client: DockerClient
    facts: Facts
    options: DockerOptions
    tools: ToolMaker
    pauses: Pauses
    images: DaemonImages
    workspaces: Workspaces
    machine: str
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)


class AttemptRun:
    """One call of run_job."""

    def __init__(self, place: Place, request: AttemptRequest, context: RunContext) -> None:
        self._place = place
        self._client = place.client
        self._request = request
        self._context = context
        self._name = request.key.resource_name
        self._groups = group_steps(request.spec, place.options.image)
        self._words: dict[int, list[str]] = {}
        self._services = AttemptServices(
            place.client, place.facts, place.pauses, place.options, request, context, self._create
        )

    async def run(self) -> Outcome:
        async with contextlib.aclosing(self._services):
            return await self._run()

    async def _run(self) -> Outcome:
        while True:
            async with self._place.locks.setdefault(self._name, asyncio.Lock()):
                ended = await self._ensure_started()
            if ended is not None:
                await self._services.stop()
                return ended
            await self._say_first()
            story, outputs = Story(), dict[str, str]()
            async with self._services.watched():
                await self._follow(story, outputs)
            if not story.is_unfed():
                return await self._finish(story, outputs)
            if await self._is_stopped():
                return _never_started()
            await asyncio.sleep(UNFED_PAUSE_S)

    # -- start --------------------------------------------------------------------------------------------------------

    async def _ensure_started(self) -> Outcome | None:
        """None: its first container was fed, by now or before."""
        parts = await self._parts()
        first = parts.get("s0")
        if first is not None and first.state != "created":
            state = await self._client.inspect_container(first.name)
            if state is None or not await self._is_unfed(state):
                await self._start_others(parts)
                return None
            if self._context.may_create(CREATE_S):  # started again, it would find its input closed
                await self._client.remove_container(first.name)
        elif first is None and "begun" in parts:
            return None  # somebody removed it: nothing is started a second time
        if "stop" in parts:
            return _never_started()
        return self._services.told(parts) or await self._start(parts)

    async def _is_unfed(self, state: Document) -> bool:
        end = _container_end(state)
        if end is None or end.exit_code != UNFED:
            return False
        story = Story(containers={0: end})
        await self._read_log(0, story, {})
        return story.is_unfed()

    async def _start(self, parts: Mapping[str, Listed]) -> Outcome | None:
        spec = self._request.spec
        if spec.has_secrets and not self._request.secrets:
            return lost("its secrets were not handed over", was_seen=False)
        left_s = spec.limits.start_s - _age(parts.get("") or parts.get("begun"))
        if left_s <= 0:
            words = f"the first step did not start within limits.start = {spec.limits.start_s:g} s"
            return unseen(OutcomeKind.TIMED_OUT, ReasonCode.START_TIMEOUT, words)
        starts_by = time.monotonic() + left_s
        images = await self._place.images.obtain_all(spec, self._context, within_s=left_s)
        if isinstance(images, Outcome):
            return images
        packed = await self._place.workspaces.prepare(self._request, self._context)
        if isinstance(packed, Outcome):
            return packed
        user = user_of(images[self._groups[0].image], self._place.options.user)
        try:
            await self._remove_waiting(parts)
            await self._create_all(images, user)
            broken = await self._services.start(starts_by)
            if broken is not None:
                return broken
            if await self._is_stopped():
                return _never_started()
            await self._start_fed(write_plan_of(self._place, self._request, images), packed)
        except Refused as error:
            await self._give_up(error)
        await self._start_others(await self._parts())
        await self._obey_stop()
        return None

    async def _remove_waiting(self, parts: Mapping[str, Listed]) -> None:
        """Those of a start that did not come to the first container: who knows what they were fed."""
        for group in self._groups[1:]:
            part = parts.get(f"s{group.first}")
            if part is not None and part.state != "created":
                self._need_lease()
                await self._client.remove_container(part.name)

    async def _create_all(self, images: Mapping[str, Image], user: str) -> None:
        try:
            await self._create_with(await self._place.tools.get(user), images, user)
        except Missing:  # an image: of ours, or one that was removed since we looked
            self._place.tools.forget()
            await self._create_with(await self._place.tools.get(user), images, user)

    async def _create_with(self, tools: Tools, images: Mapping[str, Image], user: str) -> None:
        facts, request = self._place.facts, self._request
        has_state = len(self._groups) > 1
        if "begun" not in await self._parts():
            await self._create(self._name, containers.holder(facts, request, tools, has_state=has_state))
        network = await self._network(tools)
        for group in self._groups:
            image = images[group.image]
            config = containers.steps(
                facts,
                request,
                group,
                tools,
                image=image.id,
                digest=image.digest,
                user=user,
                network=network,
                log_bytes_max=self._context.log_bytes_max,
                has_state=has_state,
            )
            await self._create(names.steps_container(self._name, group.first), config)
        await self._services.create(images, tools, network)

    async def _create(self, name: str, config: Document) -> None:
        self._need_lease()
        with contextlib.suppress(NameTaken):  # made before: adopted
            await self._client.create_container(name, config)

    def _need_lease(self) -> None:
        if not self._context.may_create(CREATE_S):
            raise Unreachable(f"the lease of pool '{self._place.facts.pool}' ends before a create would")

    async def _network(self, tools: Tools) -> str:
        if self._request.spec.services:
            return await self._services.network(tools)
        slot, network = self._request.slot, self._request.spec.requirements.network
        labels = {**containers.pool_labels(self._place.facts), names.SLOT: str(slot)}
        for each in await self._client.list_containers(labels=labels):
            part = names.Part.parse(each.name)
            if part is not None and part.attempt != self._name and each.state == "running":
                if network == "none":
                    return network  # of its own
                raise Unreachable(
                    f"slot {slot} of pool '{self._place.facts.pool}' is still used by {each.name}"
                )
        return await self._place.pauses.ready(slot, network, tools)

    async def _start_fed(self, plan: bytes, packed: Packed) -> None:
        """The first one last: once it is fed, nobody who adopts the attempt needs its secrets."""
        for group in self._groups[1:]:
            if group.is_fed:
                await self._start_and_feed(group, plan, Packed())
        await self._client.rename_container(self._name, names.begun_mark(self._name))
        await self._start_and_feed(self._groups[0], plan, packed)

    async def _start_and_feed(self, group: Group, plan: bytes, packed: Packed) -> None:
        name = names.steps_container(self._name, group.first)
        self._need_lease()
        async with self._client.feeding(name) as feed:
            try:
                await self._client.start_container(name)
            except Refused as error:
                if not is_gone(error) or self._request.spec.services:
                    raise
                user = self._place.options.user
                await self._network(await self._place.tools.get(f"{user}:{user}"))
                await self._client.start_container(name)
            secrets = write_secrets(self._request, group)
            await feed_container(feed, plan=plan, secrets=secrets, packed=packed)

    async def _start_others(self, parts: Mapping[str, Listed]) -> None:
        """Each waits within for the one before it, so that none needs us."""
        for group in self._groups[1:]:
            part = parts.get(f"s{group.first}")
            if part is not None and part.state == "created" and not group.is_fed:
                await self._client.start_container(part.name)

    async def _give_up(self, error: Refused) -> None:
        """What the daemon refused did not start. Raises."""
        if _DISK_FULL in error.message.lower():
            for part in (await self._parts()).values():
                await self._client.remove_container(part.name)
            raise NoCapacity(f"the daemon at {self._client.host} has no disk left: {error.message}") from None
        raise Unreachable(f"the daemon at {self._client.host} did not start it: {error.message}") from None

    # -- follow -------------------------------------------------------------------------------------------------------

    async def _follow(self, story: Story, outputs: dict[str, str]) -> None:
        first = await self._client.inspect_container(names.steps_container(self._name, 0))
        if first is not None:
            await self._context.record_phase("preparing", parse_time(first["Created"]))
            facts = {"machine": self._place.machine, "image": first["Config"]["Labels"].get(names.IMAGE, "")}
            await self._context.record_placement({key: value for key, value in facts.items() if value})
        for group in self._groups:
            await self._follow_group(group.first, story, outputs)
            if story.is_over or story.containers[group.first] is None or story.is_unfed():
                break

    async def _follow_group(self, first: int, story: Story, outputs: dict[str, str]) -> None:
        name = names.steps_container(self._name, first)
        reading = asyncio.create_task(self._read_log(first, story, outputs))
        try:
            while True:
                done, _ = await asyncio.wait({reading}, timeout=PROBE_S)
                state = await self._client.inspect_container(name)
                if state is None or not state["State"]["Running"]:
                    break
                if done:  # the connection broke, or the daemon was about to say that it ended
                    await reading
                    if await self._client.wait_container(name, 1.0):
                        continue
                    reading = asyncio.create_task(self._read_log(first, story, outputs))
                await self._end_overdue(name, story)
            await asyncio.wait({reading}, timeout=DRAIN_S)
            if reading.done():
                await reading
            if state is not None and not story.has_told(
                first
            ):  # a reader that follows may fall out where the daemon rotates
                await self._read_log(first, story, outputs)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        story.containers[first] = _container_end(state) if state is not None else None

    async def _read_log(self, first: int, story: Story, outputs: dict[str, str]) -> None:
        reader = ContainerReader(
            self._request.spec,
            self._context,
            attempt=self._name,
            story=story,
            log=AttemptLog(self._context),
            outputs=outputs,
            mends_lines=self._place.facts.log_driver == "local",
        )
        with contextlib.suppress(Missing, NameTaken):  # gone, or going: whoever asks next sees it
            await reader.read(self._client, names.steps_container(self._name, first))
        self._words[first] = reader.words

    async def _end_overdue(self, name: str, story: Story) -> None:
        """What keeps time within may have been ended by the job itself: then we keep it, later."""
        grace_s = self._place.options.host.kill_grace_s
        limit_s = self._request.spec.limits.run_s + grace_s + MARGIN_S
        if story.begun and time.time() - min(story.begun.values()) > limit_s:
            await self._client.kill_container(name)
        mark = (await self._parts()).get("stop")
        if mark is not None:
            stopped_s = time.time() - mark.created_at
            if stopped_s > float(mark.labels.get(names.GRACE, grace_s)) + MARGIN_S:
                await self._client.kill_container(name)

    async def _say_first(self) -> AttemptLog:
        """What is known before a step runs; said again, it is the same words at the same place."""
        log = AttemptLog(self._context)
        if self._request.spec.cache:
            paths = ", ".join(cache.path for cache in self._request.spec.cache)
            await log.say(f"cache: a docker pool keeps none, nothing is restored to {paths}")
        return log

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _finish(self, story: Story, outputs: Mapping[str, str]) -> Outcome:
        parts = await self._parts()
        mark = parts.get("stop")
        first = story.containers.get(0)
        story.is_stopped = mark is not None and (first is None or mark.created_at <= first.ended_at + 1.0)
        story.has_printed = bool(await self._context.log.size("000", "stdout"))
        spec = self._request.spec
        outcome = judge(spec, self._groups, story, pids_max=self._place.facts.pids_max)
        outcome = await self._services.judge(outcome, story)
        for group in self._groups:
            part = parts.get(f"s{group.first}")
            if part is not None and part.state in ("running", "created", "paused"):
                await self._client.kill_container(part.name)
        await self._services.stop()
        log = await self._say_first()
        for first_step in sorted(self._words):
            for words in self._words[first_step]:
                await log.say(words)
        if story.begun and spec.artifacts and first is not None:
            at = max(story.ended_at.values(), default=first.ended_at)
            await self._context.record_phase("collecting", at)
            await collect(
                self._client, names.steps_container(self._name, 0), spec.artifacts, self._context, log
            )
        if outputs:
            await self._context.record_outputs(outputs)
        return outcome

    # -- a stop -------------------------------------------------------------------------------------------------------

    async def _obey_stop(self) -> None:
        """One asked between our look and our start."""
        mark = (await self._parts()).get("stop")
        if mark is not None:
            grace_s = float(mark.labels.get(names.GRACE, self._place.options.host.kill_grace_s))
            await stop_running(self._client, await self._parts(), grace_s)

    async def _is_stopped(self) -> bool:
        return "stop" in await self._parts()

    async def _parts(self) -> dict[str, Listed]:
        return await find_parts(self._client, self._place.facts.installation, self._name)


def write_plan_of(place: Place, request: AttemptRequest, images: Mapping[str, Image]) -> bytes:
    return write_plan(
        request,
        images,
        default_image=place.options.image,
        kill_grace_s=place.options.host.kill_grace_s,
    )


def _container_end(document: Document) -> ContainerEnd | None:
    """None while it runs."""
    state = document["State"]
    if state["Running"]:
        return None
    if state["Status"] == "created":  # its exit code is 0, of a program that never ran
        return ContainerEnd(exit_code=UNFED)
    return ContainerEnd(
        exit_code=int(state["ExitCode"]),
        is_oom=bool(state.get("OOMKilled")),
        ended_at=parse_time(state.get("FinishedAt") or ""),
        error=str(state.get("Error") or ""),
    )


def _age(part: Listed | None) -> float:
    return 0.0 if part is None else time.time() - part.created_at


def _never_started() -> Outcome:
    return unseen(OutcomeKind.CANCELED, ReasonCode.CANCELED, "canceled before it started")
