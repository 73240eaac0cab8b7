"""The services of one attempt: a container each in the namespace of the attempt's own pause, started and ready before
the first step, watched while the steps run, ended after them.

They go on by themselves while nobody follows. One that ends then is found by whoever adopts the attempt: the daemon's
clock says whether it ended before the steps did, so all come to the same outcome.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from runyard.host.services.attempt_services import LOG_PART, READY_COMMAND_S
from runyard.host.services.words import early_end, service_address, shared_port
from runyard.logs.layout import SETUP, service_key
from runyard.model.errors import Conflict, Unreachable
from runyard.model.job import Service
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode
from runyard.providers.docker import containers, names
from runyard.providers.docker.client import (
    CREATE_S,
    DockerClient,
    Document,
    Listed,
    NameTaken,
    Refused,
)
from runyard.providers.docker.containers import Facts, Tools
from runyard.providers.docker.listeners import Listeners
from runyard.providers.docker.markers import parse_time
from runyard.providers.docker.options import DockerOptions
from runyard.providers.docker.parts import find_parts, stop_running
from runyard.providers.docker.pauses import Pauses
from runyard.providers.docker.plan import BIN, Image, user_of
from runyard.providers.docker.service_log import DRAIN_S, ServiceLog
from runyard.providers.docker.service_verdict import ServiceEnd, how_ended, is_to_blame, ready_ports
from runyard.providers.docker.verdict import Story, unseen
from runyard.providers.port import AttemptRequest, RunContext

MARGIN_S = 30.0
_PAUSE_S, _PAUSE_S_MAX = 0.02, 0.5
_RETRY_S = 1.0
_CANNOT_RUN = 400
"""What the daemon answers to a start where the command is not there or may not be run."""
_TAKES_TERM = r"^SigCgt:\s[0-9a-f]*[4-7c-f][0-9a-f]{3}$"
_WORDS_MAX = 1500


class AttemptServices:
    """For a job that has none, every verb does nothing."""

    def __init__(
        self,
        client: DockerClient,
        facts: Facts,
        pauses: Pauses,
        options: DockerOptions,
        request: AttemptRequest,
        context: RunContext,
        create: Callable[[str, Document], Awaitable[None]],
    ) -> None:
        """`create` makes a container by its name, or adopts the one that is there."""
        self._client = client
        self._facts = facts
        self._pauses = pauses
        self._options = options
        self._request = request
        self._context = context
        self._create = create
        self._name = request.key.resource_name
        self._services = request.spec.services
        self._pause = names.network_container(self._name)
        self._impossible: dict[str, str] = {}
        self._logs: dict[int, ServiceLog] = {}
        self._ports: dict[int, tuple[int, ...]] = {}

    async def aclose(self) -> None:
        """Follows no more; what runs goes on."""
        tasks = [log.task for log in self._logs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- before the first step ----------------------------------------------------------------------------------------

    def told(self, parts: Mapping[str, Listed]) -> Outcome | None:
        """How the attempt ended before its first step, if a service failed it then."""
        mark = parts.get("broken")
        if mark is None:
            return None
        return unseen(OutcomeKind.FAILED, ReasonCode.SERVICE, mark.labels.get(names.WHY, ""))

    async def network(self, tools: Tools) -> str:
        """The NetworkMode of all containers of the attempt. A pause that has ended was ended from outside, or with its
        daemon, and so were the services in it: before the first step they are made anew."""
        parts = await self._parts()
        seen = parts.get("net")
        if seen is not None and seen.state not in ("created", "running"):
            for role, part in parts.items():
                if role.startswith("svc-"):
                    await self._client.remove_container(part.name)
        if seen is None:
            addresses = [
                f"{service.name}:{service_address(index)}" for index, service in enumerate(self._services)
            ]
            self._ask_lease()
            await self._pauses.create_own(self._request, tools, hosts=addresses)
        self._ask_lease()
        return await self._pauses.start_own(self._request)

    async def create(self, images: Mapping[str, Image], tools: Tools, network: str) -> None:
        facts: dict[str, str] = {}
        for service in self._services:
            image = images[service.image]
            config = containers.service(
                self._facts,
                self._request,
                service,
                tools,
                image=image,
                user=user_of(image, self._options.user),
                network=network,
                log_bytes_max=self._log_bytes_max,
            )
            facts[f"service:{service.name}"] = image.digest
            try:
                await self._create(names.service_container(self._name, service.name), config)
            except Refused as error:
                if "no command" not in error.message.lower():
                    raise
                cure = f"give it one (services.{service.name}.command)"
                self._impossible[service.name] = f"its image says no command; {cure}"
        if facts:
            await self._context.record_placement(dict(list(facts.items())[:10]))

    async def start(self, starts_by: float) -> Outcome | None:
        """Starts those that were never started, and waits until all are ready; or says how the attempt ended.
        `starts_by` is when the first step must have started (time.monotonic)."""
        if not self._services:
            return None
        await self._context.record_phase("services", time.time())
        for words in await asyncio.gather(*map(self._start_one, self._services)):
            if words:
                return await self._fail(words)
        return await self._await_ready(starts_by)

    async def _start_one(self, service: Service) -> str:
        if service.name in self._impossible:
            return f"service '{service.name}': {self._impossible[service.name]}"
        name = names.service_container(self._name, service.name)
        state = await self._client.inspect_container(name)
        if state is None:
            raise Unreachable(f"container {name} was removed before it was started")
        if state["State"]["Status"] != "created":
            return ""  # it was started before, and is not a second time
        self._ask_lease()
        try:
            await self._client.start_container(name)
        except Refused as error:
            if error.status != _CANNOT_RUN:
                raise
            return early_end(service.name, f"could not be run: {error.message}")
        return ""

    async def _await_ready(self, starts_by: float) -> Outcome | None:
        began = time.monotonic()
        listeners = Listeners(self._client, self._pause)
        said = []
        for index, service in enumerate(self._services):
            pause_s = _PAUSE_S
            while True:
                over = await self._why_over(starts_by)
                if over is not None:
                    return over
                lacking = await self._lacking(index, service, listeners)
                if not lacking:
                    break
                if time.monotonic() > began + service.ready_timeout_s:
                    limit = f"service '{service.name}' was not ready within {service.ready_timeout_s:g} s"
                    return await self._fail(f"{limit}: {lacking}{await self._logs[index].last_words()}")
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 1.5, _PAUSE_S_MAX)
            said.append(
                f"runyard: service '{service.name}' was ready after {time.monotonic() - began:.1f} s\n"
            )
        offset = await self._context.log.size(SETUP, "stdout")
        with contextlib.suppress(Conflict):  # a masked log may hold back what stands before
            await self._context.log.append(SETUP, "stdout", offset, "".join(said).encode())
        return None

    async def _why_over(self, starts_by: float) -> Outcome | None:
        parts = await self._parts()
        if "stop" in parts:
            return unseen(OutcomeKind.CANCELED, ReasonCode.CANCELED, "canceled before it started")
        await self._open(parts)
        end = await self._first_end(parts)
        if end is not None:
            return await self._fail(end.words)
        if time.monotonic() > starts_by:
            limit_s = self._request.spec.limits.start_s
            words = f"the first step did not start within limits.start = {limit_s:g} s"
            return unseen(OutcomeKind.TIMED_OUT, ReasonCode.START_TIMEOUT, words)
        return None

    async def _lacking(self, index: int, service: Service, listeners: Listeners) -> str:
        """What it is not ready for; empty: it is."""
        if not service.ready_command:
            missing = await listeners.missing(service_address(index), self._ports[index])
            return f"nothing listens on port {', '.join(map(str, missing))}" if missing else ""
        limit = [f"{BIN}/busybox", "timeout", "-s", "KILL", f"{READY_COMMAND_S:g}"]
        name = names.service_container(self._name, service.name)
        try:
            code = await self._client.ask(name, [*limit, *service.ready_command], within_s=READY_COMMAND_S)
        except NameTaken:
            return "it has ended"  # which the next look says better
        if code == 0:
            return ""
        ended = "took too long" if code is None else f"ended with {code}"
        return f"its ready command {service.ready_command[0]!r} {ended}"

    async def _fail(self, words: str) -> Outcome:
        await self._mark(words)
        told = self.told(await self._parts())
        return told or unseen(OutcomeKind.FAILED, ReasonCode.SERVICE, words)

    # -- while the steps run ------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Ends the steps where a service ends before them."""
        if not self._services:
            yield
            return
        await self._open(await self._parts())
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        if not self._logs:
            return
        await asyncio.wait([log.task for log in self._logs.values()], return_when=asyncio.FIRST_COMPLETED)
        while True:
            try:
                await self._end_steps()
                return
            except (Unreachable, Refused):
                await asyncio.sleep(_RETRY_S)

    async def _end_steps(self) -> None:
        parts = await self._parts()
        steps = {role: part for role, part in parts.items() if names.is_steps(role)}
        if not any(part.state == "running" for part in steps.values()):
            return
        end = await self._first_end(parts)
        words = end.words if end is not None else self._missing(parts)
        if not words:
            return
        await self._mark(words)
        grace_s = self._options.host.kill_grace_s
        await stop_running(self._client, steps, grace_s)
        await asyncio.sleep(grace_s + MARGIN_S)
        for part in steps.values():  # the job may have ended what was to end it
            await self._client.kill_container(part.name)

    def _missing(self, parts: Mapping[str, Listed]) -> str:
        gone = [each.name for each in self._services if f"svc-{each.name}" not in parts]
        return early_end(gone[0], "was removed by somebody else") if gone else ""

    # -- the end ------------------------------------------------------------------------------------------------------

    async def judge(self, outcome: Outcome, story: Story) -> Outcome:
        """The outcome of the steps, or that a service ended before them."""
        if not self._services:
            return outcome
        parts = await self._parts()
        await self._open(parts)
        end, mark, stop = await self._first_end(parts), parts.get("broken"), parts.get("stop")
        if not is_to_blame(
            self._request.spec,
            outcome,
            story,
            ended_at=None if end is None else end.at,
            is_marked=mark is not None,
            stopped_at=None if stop is None else stop.created_at,
        ):
            return outcome
        words = mark.labels.get(names.WHY, "") if mark is not None else "" if end is None else end.words
        step = outcome.reason.step if outcome.reason is not None else None
        if step is None and end is not None:
            begun = [index for index, at in story.begun.items() if at <= end.at]
            step = self._request.spec.steps[max(begun)].name if begun else None
        return Outcome(
            kind=OutcomeKind.FAILED,
            reason=Reason(code=ReasonCode.SERVICE, message=words, step=step),
            usage=outcome.usage,
            was_seen=outcome.was_seen,
        )

    async def stop(self) -> None:
        """TERM to all, KILL to what is not gone after the grace; then what they printed is read to its end."""
        if not self._services:
            return
        parts = await self._parts()
        await self._open(parts)
        running = [
            part.name for role, part in parts.items() if role.startswith("svc-") and part.state == "running"
        ]
        await asyncio.gather(*map(self._end_one, running))
        if "net" in parts:
            await self._client.kill_container(self._pause)
        tasks = [log.task for log in self._logs.values()]
        if tasks:
            done, _ = await asyncio.wait(tasks, timeout=DRAIN_S)
            for task in done:
                task.result()

    async def _end_one(self, name: str) -> None:
        """The kernel gives the first process of a container no TERM that it does not handle: such a one is not waited
        for."""
        grace_s = self._options.host.kill_grace_s
        with contextlib.suppress(Refused):
            look = [f"{BIN}/busybox", "grep", "-Eq", _TAKES_TERM, "/proc/1/status"]
            if await self._client.ask(name, look, within_s=grace_s) == 0:
                await self._client.kill_container(name, "TERM")
                await self._client.wait_container(name, grace_s)
        await self._client.kill_container(name)

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _first_end(self, parts: Mapping[str, Listed]) -> ServiceEnd | None:
        ends = []
        for index, service in enumerate(self._services):
            part = parts.get(f"svc-{service.name}")
            if part is None or part.state not in ("exited", "dead"):
                continue
            document = await self._client.inspect_container(part.name)
            if document is not None:
                words = early_end(service.name, how_ended(document["State"]))
                ports = [
                    (each.name, self._ports.get(number, ())) for number, each in enumerate(self._services)
                ]
                words += shared_port(index, ports) + await self._logs[index].last_words()
                ends.append(ServiceEnd(at=parse_time(document["State"]["FinishedAt"]), words=words))
        return min(ends, key=lambda end: end.at, default=None)

    async def _open(self, parts: Mapping[str, Listed]) -> None:
        """Follows those that were started."""
        for index, service in enumerate(self._services):
            part = parts.get(f"svc-{service.name}")
            if index in self._logs or part is None or part.state == "created":
                continue
            document = await self._client.inspect_container(part.name)
            if document is None:
                continue
            exposed = document["Config"].get("ExposedPorts") or {}
            self._ports[index] = ready_ports(service, exposed)
            self._logs[index] = ServiceLog(
                self._client,
                self._context,
                part.name,
                service_key(index),
                bytes_max=self._log_bytes_max,
                mends_lines=self._facts.log_driver == "local",
            )

    async def _mark(self, words: str) -> None:
        """So that whoever adopts the attempt says the same."""
        pause = await self._client.inspect_container(self._pause)
        if pause is None:
            return
        self._ask_lease()
        config = containers.broken_mark(
            self._facts, self._request, pause["Config"]["Image"], words=words[:_WORDS_MAX]
        )
        with contextlib.suppress(NameTaken):
            await self._client.create_container(names.broken_mark(self._name), config)

    def _ask_lease(self) -> None:
        if not self._context.may_create(CREATE_S):
            raise Unreachable(f"the lease of pool '{self._facts.pool}' ends before a create would")

    @property
    def _log_bytes_max(self) -> int:
        return self._context.log_bytes_max // LOG_PART // max(1, len(self._services))

    async def _parts(self) -> dict[str, Listed]:
        return await find_parts(self._client, self._facts.installation, self._name)
