"""A place on this host to run attempts in, for tests: real shims, real sandboxes, nothing left behind."""

import asyncio
import contextlib
import dataclasses
import functools
import os
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from runyard.host import cgroups
from runyard.host.attempt_directory import AttemptDirectory
from runyard.host.cgroups import Limits
from runyard.host.linux import boot_id, boottime
from runyard.host.plan import Plan, PlanStep
from runyard.host.probe import choose_bwrap, probe
from runyard.host.runner import AttemptEnd, AttemptRunner
from runyard.host.zygote_client import Zygote
from runyard.model.outcome import Outcome
from runyard.model.secret import SecretValue

ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp/home", "LANG": "C.UTF-8"}
USER_ID = 731_500_001
STAGE = "/run/runyard/test-stage"


@functools.cache
def host():
    """What was probed, once for a test process."""
    return probe(USER_ID)


def sh(script: str, name: str = "main", **fields) -> PlanStep:
    return PlanStep(name=name, command=("/bin/sh", "-c", script), env=ENV, **fields)


@dataclass
class Ran:
    """An attempt that ended: its outcome, its outputs, and its log by stream."""

    end: AttemptEnd
    directory: AttemptDirectory
    records: list

    def __post_init__(self) -> None:
        """What was printed is asked for after its folder is gone, too."""
        folder = self.directory.path / "log"
        files = folder.iterdir() if folder.exists() else ()
        self._logs = {file.name: file.read_bytes() for file in files if file.stat().st_size < 4 << 20}

    @property
    def outcome(self) -> Outcome:
        return self.end.outcome

    @property
    def code(self) -> str | None:
        return self.outcome.reason.code.value if self.outcome.reason else None

    @property
    def message(self) -> str:
        return self.outcome.reason.message if self.outcome.reason else ""

    def log(self, step: str = "000", stream: str = "stdout") -> bytes:
        return self._logs.get(f"{step}.{stream}", b"")

    @property
    def text(self) -> str:
        return self.log().decode()


class World:
    def __init__(self, folder: Path, zygote: Zygote) -> None:
        self.folder = folder
        self.zygote = zygote
        self.runner = AttemptRunner(zygote)
        self.directories: list[AttemptDirectory] = []

    def plan(self, *steps: PlanStep, **fields) -> Plan:
        name = fields.pop("name", f"runyard-{secrets.token_hex(8)}-1")
        directory = self.folder / name
        return Plan(
            **{
                "name": name,
                "boot_id": boot_id(),
                "created_at": time.time(),
                "created_boottime": boottime(),
                "steps": steps,
                "log_directory": str(directory / "log"),
                "artifact_directory": str(directory / "artifacts"),
                "user_id": USER_ID,
                "bwrap": choose_bwrap(host().bwraps).path,
                "cgroups": host().cgroup_tree,
                "limits": Limits(memory_bytes=256 << 20, pids_max=128, cpu_millis=2000),
                "slirp": host().slirp,
                "kill_grace_s": 0.3,
                **fields,
            }
        )

    def directory(self, plan: Plan) -> AttemptDirectory:
        directory = AttemptDirectory(self.folder / plan.name)
        self.directories.append(directory)
        return directory

    async def run(self, *steps: PlanStep, **fields) -> Ran:
        return await self.run_plan(self.plan(*steps, **fields))

    async def run_plan(self, plan: Plan, on_record=None, secrets: tuple[SecretValue, ...] = ()) -> Ran:
        directory = self.directory(plan)
        records: list = []

        async def keep(record) -> None:
            records.append(record)
            if on_record is not None:
                await on_record(record)

        end = await self.runner.run(directory, lambda: plan, keep, secrets=secrets)
        return Ran(end, directory, records)


@contextlib.asynccontextmanager
async def open_world(folder: Path, *, stage: str | None = STAGE) -> AsyncIterator[World]:
    zygote = Zygote(stage=stage, cgroups=host().cgroup_tree)
    world = World(folder, zygote)
    try:
        await zygote.start()
        yield world
    finally:
        for directory in world.directories:
            directory.destroy(host().cgroup_tree)
        await zygote.close()
        world.runner.close()


def living_with(marker: str) -> list[int]:
    """Processes of this host whose command line holds `marker`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if marker.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


async def until(condition, timeout_s=20.0):
    """Looks until it is so; fails after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
            await asyncio.sleep(0.005)


def changed(plan: Plan, **fields) -> Plan:
    return dataclasses.replace(plan, **fields)


__all__ = [
    "ENV",
    "USER_ID",
    "Limits",
    "World",
    "cgroups",
    "changed",
    "host",
    "living_with",
    "open_world",
    "sh",
    "until",
]
