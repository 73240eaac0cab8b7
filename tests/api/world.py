"""The real API over a real ledger (SQLite in memory) and real files, and the hands of a pool's owner."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI

from runyard.api.application import ApiServices, create_application
from runyard.api.open_bounds import OpenBounds
from runyard.api.secret import hash_secret, new_secret, new_uid
from runyard.artifacts.files import FileArtifactStore
from runyard.clock import SystemClock
from runyard.ledger.opening import create_ledger
from runyard.ledger.port import Claimed, ClaimRequest, Ledger
from runyard.logs.files import FileLogStore
from runyard.model.attempt import AttemptKey, Progress
from runyard.model.machine import MachineState
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, succeeded
from runyard.model.pool import Fence, PoolHealth, WaitCode, soon
from runyard.model.token import Scope, Token
from runyard.policy.retry import decide
from runyard.secrets.sealing import KeyRing
from runyard.secrets.store import SecretStore
from runyard.web.application import install_pages
from tests.factories import a_pool_settings


class ShiftedClock(SystemClock):
    """The machine's clock, moved by hand: for what lasts longer than a test."""

    def __init__(self) -> None:
        self.shift_s = 0.0

    def now(self) -> float:
        return super().now() + self.shift_s

    def boottime(self) -> float:
        return super().boottime() + self.shift_s


@dataclass
class Service:
    """An API and the hands of a pool's owner."""

    app: FastAPI
    ledger: Ledger
    logs: FileLogStore
    artifacts: FileArtifactStore
    clock: ShiftedClock
    secrets: SecretStore
    unready: list[str] = field(default_factory=list)
    _fence: Fence | None = None

    async def token(
        self, scope: str = "admin", tenants: tuple[str, ...] | None = None, **changes: Any
    ) -> str:
        secret = new_secret()
        token = Token(
            id=changes.pop("id", new_uid()),
            name=changes.pop("name", f"test-{scope}"),
            secret_hash=hash_secret(secret),
            scope=Scope(scope),
            tenants=tenants,
            created_at=await self.ledger.now(),
            **changes,
        )
        await self.ledger.put_token(token)
        return secret

    def client(self, secret: str | None, **options: Any) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        return httpx2.AsyncClient(
            transport=transport, base_url="http://runyard.test", headers=headers, **options
        )

    async def claim(self, *, is_running: bool = True, slot: int = 0) -> Claimed:
        """The next job, taken as the owner of the pool takes it."""
        fence = await self.own()
        demand = await self.ledger.list_demand(fence)
        [claimed] = await self.ledger.claim(
            ClaimRequest(
                fence=fence,
                free_slots=(slot,),
                rooms={item.class_key: 1 for item in demand},
                budget=a_pool_settings().budget,
            )
        )
        if is_running:
            await self.ledger.record_phases(fence, claimed.attempt.key, {"running": self.clock.now()})
        return claimed

    async def tell(self, key: AttemptKey, progress: Progress | None = None, **placement: str) -> None:
        assert self._fence is not None
        await self.ledger.record_status(self._fence, key, placement=placement, progress=progress)

    async def own(self) -> Fence:
        if self._fence is None:
            self._fence = await self.ledger.acquire_pool("local", owner="test", lease_s=600)
        assert self._fence is not None
        return self._fence

    async def machine(self, name: str = "runyard-0123456789abcdef-m1") -> str:
        """A machine of the pool that its agent has spoken for."""
        fence = await self.own()
        await self.ledger.intend_machine(fence, name, slots=2, facts={"zone": "one"})
        await self.ledger.change_machine(
            fence, name, seen=MachineState.INTENDED, to=MachineState.STARTING, facts={}
        )
        await self.ledger.contact_machine(name)
        return name

    async def settle(self, key: AttemptKey, outcome: Outcome | None = None) -> None:
        assert self._fence is not None
        await self.ledger.settle(self._fence, key, outcome or succeeded(), decide=decide)

    async def state_full(self, uid: str) -> None:
        """The owner says that there is no room now for the job's class."""
        assert self._fence is not None
        job = await self.ledger.get_job(uid)
        assert job is not None
        answer = soon(WaitCode.POOL_FULL, "all slots are in use")
        await self.ledger.set_pool_health(self._fence, health=PoolHealth.HEALTHY, message="")
        await self.ledger.set_availability(self._fence, {job.spec.requirements.class_key(): answer})

    def write_log(self, key: AttemptKey, data: bytes, *, step: str = "000", stream: str = "stdout") -> None:
        """Appends as the shim of the host does."""
        with (self.logs.directory(key) / f"{step}.{stream}").open("ab") as file:
            file.write(data)


def failed(code: int) -> Outcome:
    reason = Reason(code=ReasonCode.EXIT, message=f"exit code {code}", step="step-1")
    return Outcome(kind=OutcomeKind.FAILED, exit_code=code, reason=reason)


def a_document(**changes: Any) -> dict[str, Any]:
    return {"steps": [{"run": "true"}], **changes}


@contextlib.asynccontextmanager
async def a_service(tmp_path: Path, *, bounds: OpenBounds | None = None) -> AsyncIterator[Service]:
    clock = ShiftedClock()
    ledger = create_ledger("sqlite://:memory:", clock=clock)
    await ledger.open()
    await ledger.put_pool(a_pool_settings())
    unready: list[str] = []
    logs, artifacts = FileLogStore(tmp_path / "logs"), FileArtifactStore(tmp_path / "artifacts")

    async def render_metrics() -> bytes:
        return b"runyard_up 1\n"

    secrets = SecretStore(ledger, KeyRing([b"k" * 32]), realm="test")
    services = ApiServices(
        ledger=ledger,
        logs=logs,
        artifacts=artifacts,
        secrets=secrets,
        clock=clock,
        render_metrics=render_metrics,
        is_ready=lambda: unready[0] if unready else None,
        bounds=bounds or OpenBounds(),
    )
    try:
        app = create_application(services)
        install_pages(app)  # as the service does: what holds for the API holds beside the pages
        yield Service(app, ledger, logs, artifacts, clock, secrets, unready)
    finally:
        logs.close()
        await ledger.close()
