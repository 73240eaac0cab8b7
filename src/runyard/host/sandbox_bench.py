"""What a sandbox costs here: an attempt of ours against bare bubblewrap that makes the same sandbox by itself.

Both are measured in turn within one run, for a machine's noise moves both. The reference has the same namespaces,
filter, devices and mounts, given as single binds, and neither limits, log, journal nor a workspace of its own.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from runyard.host import host_tree, seccomp
from runyard.host.attempt_directory import AttemptDirectory
from runyard.host.linux import boot_id, boottime
from runyard.host.plan import Plan, PlanStep
from runyard.host.process import Identity, start
from runyard.host.runner import AttemptRunner
from runyard.host.sandbox import Descriptors, HostRoot, Sandbox, options

_ENV = {"PATH": "/usr/bin:/bin"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTimes:
    """Milliseconds per start of `true`, from the ask to the known end; the same number of each."""

    reference_ms: tuple[float, ...]
    attempt_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRates:
    """Starts per second at `concurrency`."""

    concurrency: int
    reference_per_s: float
    attempt_per_s: float


class SandboxBench:
    """`template` is a plan whose steps, name and folders are replaced; `folder` is scratch space, left empty."""

    def __init__(self, runner: AttemptRunner, template: Callable[[str, Path], Plan], folder: Path) -> None:
        self._runner = runner
        self._template = template
        self._folder = folder
        self.reference = Reference(template("reference", folder))

    def close(self) -> None:
        self.reference.close()

    async def measure_times(self, samples: int = 20) -> StartTimes:
        reference, attempt = [], []
        for _ in range(samples):
            reference.append(await _timed_ms(lambda: asyncio.to_thread(self.reference.run)))
            attempt.append(await _timed_ms(self.run_attempt))
        return StartTimes(reference_ms=tuple(reference), attempt_ms=tuple(attempt))

    async def measure_rates(self, *, concurrency: int = 8, starts: int = 160, rounds: int = 3) -> StartRates:
        each = max(1, starts // concurrency // rounds)
        reference_s = attempt_s = 0.0
        for _ in range(rounds):
            reference_s += await _repeat_s(lambda: asyncio.to_thread(self.reference.run), concurrency, each)
            attempt_s += await _repeat_s(self.run_attempt, concurrency, each)
        total = concurrency * each * rounds
        return StartRates(
            concurrency=concurrency, reference_per_s=total / reference_s, attempt_per_s=total / attempt_s
        )

    async def run_attempt(self) -> None:
        """One whole attempt of `true`, destroyed afterwards out of the measured time's way as in the service."""
        name = f"runyard-{secrets.token_hex(8)}-1"
        directory = AttemptDirectory(self._folder / name)
        plan = self._template(name, directory.path)
        end = await self._runner.run(directory, lambda: plan, _ignore)
        if end.outcome.exit_code != 0:
            raise RuntimeError(f"the measured attempt did not succeed: {end.outcome}")
        await asyncio.to_thread(directory.destroy, plan.cgroups)


class Reference:
    """Bare bubblewrap with the same flags and binds, as the same user id."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        folder = self._folder = Path(tempfile.mkdtemp(prefix="runyard-bench-"))
        folder.chmod(0o755)  # the slot's id must reach it by its path, where ours needs not
        self._filter = seccomp.build_filter()
        generated = folder / "etc"
        host_tree.write_generated(str(generated))
        for name in ("workspace", "tmp", "outputs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        tree = host_tree.host_tree(str(generated))
        self._sandbox = Sandbox(
            root=HostRoot(binds=tree.binds, links=tree.links),
            workspace=str(folder / "workspace"),
            tmp=str(folder / "tmp"),
            outputs=str(folder / "outputs"),
            env=_ENV,
            shm_bytes=64 << 20,
        )

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def argv(self, seccomp_fd: int) -> list[str]:
        """The whole command, which needs the filter's bytes on that descriptor."""
        arguments = options(self._sandbox, Descriptors(seccomp=seccomp_fd))
        return [self._plan.bwrap, *arguments, "--", "true"]

    @property
    def user_id(self) -> int | None:
        return self._plan.user_id

    @property
    def filter(self) -> bytes:
        return self._filter

    def run(self) -> None:
        filter_fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        os.write(filter_fd, self._filter)
        os.lseek(filter_fd, 0, os.SEEK_SET)
        null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        child = start(
            self.argv(filter_fd),
            env=_ENV,
            stdout=null,
            stderr=2,
            identity=Identity(user_id=self._plan.user_id),
            inherit=[filter_fd],
        )
        status = os.waitpid(child.pid, 0)[1]
        for fd in (filter_fd, null):
            os.close(fd)
        child.close()
        if status != 0:
            raise RuntimeError(f"bare bubblewrap ended with wait status {status}")


def bench_plan(plan: Plan, name: str, directory: Path) -> Plan:
    """`plan` made into an attempt of `true` in `directory`."""
    return dataclasses.replace(
        plan,
        name=name,
        boot_id=boot_id(),
        created_at=time.time(),
        created_boottime=boottime(),
        steps=(PlanStep(name="true", command=("true",), env=_ENV),),
        log_directory=str(directory / "log"),
        artifact_directory=str(directory / "artifacts"),
    )


async def _timed_ms(call: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await call()
    return (time.perf_counter() - began) * 1000


async def _repeat_s(call: Callable[[], Awaitable[None]], concurrency: int, each: int) -> float:
    async def worker() -> None:
        for _ in range(each):
            await call()

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return time.perf_counter() - began


async def _ignore(record: object) -> None:
    pass
