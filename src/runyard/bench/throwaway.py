"""A service of its own to measure: a fresh data folder, a free port, gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runyard.bench.browsing import Browser
from runyard.sdk import AsyncClient

START_TIMEOUT_S = 30.0
LOOK_S = 0.01


@dataclass(slots=True)
class ThrowawayService:
    """`pid` changes with each start; `environment` is added to this process's own."""

    data: Path
    config: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def url(self) -> str:
        return (self.data / "address").read_text().strip()

    @property
    def token(self) -> str:
        return (self.data / "admin.token").read_text().strip()

    def client(self) -> AsyncClient:
        return AsyncClient(url=self.url, token=self.token)

    @contextlib.asynccontextmanager
    async def browse(self) -> AsyncIterator[Browser]:
        """Signed in as an administrator."""
        browser = await asyncio.to_thread(Browser, self.url, self.token)
        try:
            yield browser
        finally:
            browser.close()

    async def start(self) -> None:
        """Returns once it listens. Raises RuntimeError with its log where it does not."""
        (self.data / "address").unlink(missing_ok=True)
        with (self.data.parent / "service.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "runyard", "serve", "--port", "0"),
                *("--data", str(self.data), "--config", str(self.config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        await asyncio.to_thread(self._wait_for_address)

    def _wait_for_address(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (self.data / "address").exists():
            if not Path(f"/proc/{self.pid}/exe").exists() or time.monotonic() > deadline:
                raise RuntimeError((self.data.parent / "service.log").read_text()[-2000:])
            time.sleep(LOOK_S)

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGTERM)
        await self.process.wait()


@contextlib.asynccontextmanager
async def throwaway_service(
    *,
    slots: int,
    at: Path | None = None,
    ledger_url: str | None = None,
    queue: str | None = None,
    pool: str = "",
) -> AsyncIterator[ThrowawayService]:
    """A started service with `slots` slots, beneath `at` or the system's temporary folder. `ledger_url` None: a ledger
    of its own, in SQLite. With `queue` its pool is named so and serves that queue alone. `pool` is
    added to the pool's section of the config."""
    with tempfile.TemporaryDirectory(prefix="runyard-bench-", dir=at) as folder:
        service = _laid_out(Path(folder), _config(slots, ledger_url, queue) + pool)
        await service.start()
        try:
            yield service
        finally:
            await service.stop()


def _config(slots: int, ledger_url: str | None, queue: str | None) -> str:
    lines = [] if ledger_url is None else ["[ledger]", f'url = "{ledger_url}"']
    lines += [] if queue is None else [f"[queues.{queue}]", "weight = 1"]
    lines += [f"[pools.{queue or 'local'}]", 'provider = "local"', f"slots = {slots}"]
    lines += [] if queue is None else [f'queues = ["{queue}"]']
    return "\n".join(lines) + "\n"


def _laid_out(root: Path, text: str) -> ThrowawayService:
    root.chmod(0o711)  # slot ids pass through to their own folders
    config = root / "runyard.toml"
    config.write_text(text)
    (root / "data").mkdir(mode=0o711)
    return ThrowawayService(data=root / "data", config=config)
