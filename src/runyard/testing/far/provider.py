"""The provider of the far place: each call goes over the socket, and fuses lie where a service can be stopped."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runyard.ledger.postgresql.ledger import PostgresqlLedger
from runyard.model.attempt import AttemptKey
from runyard.model.errors import ConfigError, NoCapacity, Unreachable
from runyard.model.finding import Finding
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, Usage, lost, succeeded
from runyard.model.pool import Availability, Budget, Demand, Supply, never, now
from runyard.model.requirements import Isolation, Requirements
from runyard.providers.port import (
    AttemptRequest,
    Capabilities,
    PoolShape,
    ProviderConfig,
    Records,
    Resource,
    ResourceListing,
    RunContext,
)
from runyard.testing.far.fuse import Fuse, Point, lay_around
from runyard.testing.plays import CANCELED, NEVER_STARTED

STEP, STREAM = "000", "stdout"
CREATE_DEADLINE_S = 1.0
SLOTS = 4
ARCH = "amd64"


def create_provider(config: ProviderConfig) -> FarProvider:
    """The entry point. `socket` is where the place listens; `fuse`, if given, the file that arms a fuse."""
    unknown = set(config.options) - {"socket", "fuse"}
    if unknown or "socket" not in config.options:
        raise ConfigError(
            f"pools.{config.pool}: takes `socket` and `fuse`, not {', '.join(sorted(unknown)) or 'nothing'}",
            field=f"pools.{config.pool}",
            cure="name the place's socket",
        )
    fuse = Fuse(Path(config.options["fuse"])) if "fuse" in config.options else None
    if fuse is not None:
        lay_around(PostgresqlLedger, fuse)
    return FarProvider(Path(config.options["socket"]), slots=config.slots or SLOTS, fuse=fuse)


class FarProvider:
    def __init__(self, socket: Path, *, slots: int = SLOTS, fuse: Fuse | None = None) -> None:
        self._socket = socket
        self._slots = slots
        self._fuse = fuse

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            isolation=Isolation.CONTAINER,
            labels={"arch": ARCH},
            description="a process elsewhere, for tests",
        )

    @property
    def shape(self) -> PoolShape:
        return PoolShape(slots=self._slots, budget=Budget(cpu_millis=1_000_000, memory_bytes=1 << 50))

    async def start(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def can_dequeue(self, requirements: Requirements) -> Availability:
        await self._ask("list")
        if requirements.arch not in (None, ARCH):
            return never(f"this place has arch {ARCH}, the job asks for {requirements.arch}")
        return now(self._slots)

    async def run_job(self, attempt: AttemptRequest, context: RunContext) -> Outcome:
        name = attempt.key.resource_name
        found = await self._ask("look", name=name)
        if not found["is_there"]:
            if not context.may_create(CREATE_DEADLINE_S):
                raise Unreachable("the lease of the pool ends before a create would")
            self._pass(Point.BEFORE_CREATE)
            async with asyncio.timeout(CREATE_DEADLINE_S):
                found = await self._ask("create", name=name, **_order(attempt))
            if "refused" in found:
                raise NoCapacity(found["refused"])
            self._pass(Point.CREATED)
        if found["started_at"] is not None:
            await context.record_phase("running", found["started_at"])
        self._pass(Point.FOLLOWING)
        ended = await self._ask("wait", name=name)
        self._pass(Point.ENDED)
        await self._take_log(name, context)
        if ended.get("outputs"):
            await context.record_outputs(ended["outputs"])
        return _outcome(ended)

    async def _take_log(self, name: str, context: RunContext) -> None:
        """From where the log stands, whoever brought it there."""
        offset = await context.log.size(STEP, STREAM)
        while printed := base64.b64decode((await self._ask("read", name=name, offset=offset))["printed"]):
            await context.log.append(STEP, STREAM, offset, printed)
            offset += len(printed)

    async def stop_job(self, key: AttemptKey, *, grace_s: float) -> None:
        await self._ask("stop", name=key.resource_name, grace_s=grace_s)

    async def handle_queue_size(self, demand: Demand, records: Records) -> Supply:
        return Supply(slots=self._slots)

    async def check(self) -> Sequence[Finding]:
        await self._ask("list")
        return (Finding(name="place", ok=True, message="it answers"),)

    async def list_resources(self) -> ResourceListing:
        places = (await self._ask("list"))["places"]
        return ResourceListing(resources=tuple(Resource(**place) for place in places), is_complete=True)

    async def destroy_resource(self, name: str) -> None:
        await self._ask("destroy", name=name)

    def _pass(self, point: Point) -> None:
        if self._fuse is not None:
            self._fuse.pass_(point)

    async def _ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """One call over a connection of its own, so that a caller that is cancelled spoils nobody's."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError as error:
            raise Unreachable(f"the place does not answer: {error.strerror}") from error
        try:
            writer.write(json.dumps({"verb": verb, "caller": os.getpid(), **arguments}).encode() + b"\n")
            line = await reader.readline()
        except OSError as error:
            raise Unreachable(f"the place broke off: {error.strerror}") from error
        finally:
            writer.close()
        if not line:
            raise Unreachable("the place broke off")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _order(attempt: AttemptRequest) -> dict[str, Any]:
    """Its first step: enough for a place of tests."""
    step = attempt.spec.steps[0]
    ends_s = {ReasonCode.RUN_TIMEOUT: attempt.spec.limits.run_s}
    if step.timeout_s is not None:
        ends_s[ReasonCode.STEP_TIMEOUT] = step.timeout_s
    return {"command": list(step.command), "ends_s": ends_s}


def _outcome(ended: dict[str, Any]) -> Outcome:
    if ended.get("missing"):
        return lost("its place was destroyed", was_seen=True)
    if ended.get("canceled"):
        return CANCELED if ended.get("was_started", True) else NEVER_STARTED
    if "timed_out" in ended:
        code = ReasonCode(ended["timed_out"])
        reason = Reason(code=code, message="ended by its limit")
        return Outcome(kind=OutcomeKind.TIMED_OUT, reason=reason)
    status = int(ended["exit"])
    if status == 0:
        return succeeded(Usage(wall_s=0.1))
    reason = Reason(code=ReasonCode.EXIT, message=f"exited with {status}")
    return Outcome(kind=OutcomeKind.FAILED, exit_code=status, reason=reason)
