"""The real API on a real port over a real ledger, with a pool that the test itself plays: claims, prints, settles."""

import asyncio
import contextlib
import socket
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import uvicorn

from runyard.api.application import create_application
from runyard.api.services import ApiServices
from runyard.artifacts.files import FileArtifactStore
from runyard.ledger.opening import create_ledger
from runyard.ledger.port import Claimed, ClaimRequest
from runyard.logs.files import FileLogStore
from runyard.logs.layout import step_key, stream_file
from runyard.model.attempt import Progress
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, succeeded
from runyard.model.token import Scope, Token
from runyard.policy import retry
from runyard.secrets.sealing import KeyRing
from runyard.secrets.store import SecretStore
from tests.factories import a_pool_settings

TOKEN = "the-token-of-the-tests"


class SystemClock:
    """The host's; `jump_s` is put on top, so that no test waits for a back-off."""

    jump_s = 0.0

    def now(self) -> float:
        return time.time() + self.jump_s

    def boottime(self) -> float:
        return time.monotonic()


class Served:
    """Started and stopped on a thread of its own; the ledger outlives a `restart`, as a file would."""

    def __init__(self, folder: Path) -> None:
        self.clock = SystemClock()
        self.ledger = create_ledger("sqlite://:memory:", clock=self.clock)
        self.logs = FileLogStore(folder / "logs")
        self.artifacts = FileArtifactStore(folder / "artifacts")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="served")
        self._thread.start()
        self.act(self._prepare())
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        return {"RUNYARD_URL": self.url, "RUNYARD_TOKEN": TOKEN}

    def act(self, work):
        """Does it on the service's loop and waits for it."""
        future: Future = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(30)

    def begin(self, work) -> Future:
        """Does it on the service's loop, beside the test."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def start(self, port: int = 0) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        self.port = listener.getsockname()[1]
        services = ApiServices(
            ledger=self.ledger, logs=self.logs, artifacts=self.artifacts, clock=self.clock,
            secrets=SecretStore(self.ledger, KeyRing([b"k" * 32]), realm="test"),
            render_metrics=_no_metrics, is_ready=lambda: None,
        )  # fmt: skip
        config = uvicorn.Config(create_application(services), log_config=None, lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._server.capture_signals = contextlib.nullcontext
        self._serving = asyncio.run_coroutine_threadsafe(self._server.serve([listener]), self._loop)

    def stop(self) -> None:
        """As kill -9 for its clients: connections break in the middle."""
        self._server.force_exit = self._server.should_exit = True
        self.act(self._break_connections())
        self._serving.result(30)
        self.act(self._break_connections())  # those that came between

    async def _break_connections(self) -> None:
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()

    def restart(self) -> None:
        self.stop()
        self.start(self.port)

    def close(self) -> None:
        self.stop()
        self.act(self.ledger.close())
        self._loop.call_soon_threadsafe(self.logs.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _prepare(self) -> None:
        from runyard.api.secret import hash_secret

        await self.ledger.open()
        token = Token(id="t", name="tests", secret_hash=hash_secret(TOKEN), scope=Scope.ADMIN, tenants=None,
                      created_at=0.0)  # fmt: skip
        await self.ledger.put_token(token)
        await self.ledger.put_pool(a_pool_settings())
        self.fence = await self.ledger.acquire_pool("local", owner="tests", lease_s=1e7)

    # -- the pool -------------------------------------------------------------------------------------------------
    def claim(self, *, is_running: bool = True) -> "Run":
        """Waits for a job that is ready, takes it, and lets it run."""
        return Run(self, self.act(self._claim(is_running=is_running)))

    async def _claim(self, *, is_running: bool = True) -> Claimed:
        subscription = self.ledger.subscribe("ready")
        try:
            while True:
                await self.ledger.promote_due(limit=100)
                demand = await self.ledger.list_demand(self.fence)
                rooms = {one.class_key: 1 for one in demand}
                request = ClaimRequest(fence=self.fence, free_slots=(0,), rooms=rooms,
                                       budget=a_pool_settings().budget)  # fmt: skip
                claimed = await self.ledger.claim(request) if rooms else []
                if claimed:
                    key = claimed[0].attempt.key
                    if is_running:
                        await self.ledger.record_phases(self.fence, key, {"running": time.time()})
                    return claimed[0]
                await subscription.wait(0.05)
        finally:
            subscription.close()

    async def fulfil(self, answer: dict) -> None:
        """Answers the next operation as the pool's owner would."""
        subscription = self.ledger.subscribe("operations")
        while not (operations := await self.ledger.list_operations("local")):
            await subscription.wait(0.02)
        await self.ledger.finish_operation(self.fence, operations[0].id, answer)
        subscription.close()

    async def play_two(self) -> None:
        """Two jobs run; `b` fails."""
        for _ in range(2):
            claimed = await self._claim()
            failed = Outcome(kind=OutcomeKind.FAILED, exit_code=1)
            outcome = failed if claimed.job.id == "b" else succeeded()
            await self.ledger.settle(self.fence, claimed.attempt.key, outcome, decide=retry.decide)


class Run:
    """One attempt that the test plays."""

    def __init__(self, served: Served, claimed: Claimed) -> None:
        self.served, self.key, self.job = served, claimed.attempt.key, claimed.job

    def prints(self, data: bytes, stream: str = "stdout", step: int = 0) -> "Run":
        directory = self.served.logs.directory(self.key)
        with stream_file(directory, step_key(step), stream).open("ab") as file:
            file.write(data)
        return self

    def prepares(self, text: str, fraction: float | None = None, **placement: str) -> "Run":
        ledger, progress = self.served.ledger, Progress(text=text, at=time.time(), fraction=fraction)
        self.served.act(
            ledger.record_status(self.served.fence, self.key, placement=placement, progress=progress)
        )
        return self

    def leaves(self, path: str, data: bytes) -> "Run":
        target = self.served.artifacts.directory(self.key) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return self

    def ends(self, kind: OutcomeKind = OutcomeKind.SUCCEEDED, **outcome) -> None:
        values = {"exit_code": 0} if kind is OutcomeKind.SUCCEEDED else {}
        self.settle(Outcome(kind=kind, **{**values, **outcome}))

    def fails(self, exit_code: int = 1, **outcome) -> None:
        reason = Reason(code=ReasonCode.EXIT, message=f"step 'run' ended with {exit_code}", step="run")
        self.ends(OutcomeKind.FAILED, **{"exit_code": exit_code, "reason": reason, **outcome})

    def settle(self, outcome: Outcome) -> None:
        ledger, fence = self.served.ledger, self.served.fence
        self.served.act(ledger.settle(fence, self.key, outcome, decide=retry.decide))


async def _no_metrics() -> bytes:
    return b""
