"""Steps behind the real step.sh on this host: a folder for each container, as the pod's mounts would show it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from runyard.model.attempt import AttemptKey
from runyard.model.job import JobSpec, Limits, Step
from runyard.providers.kubernetes import pod
from runyard.providers.kubernetes.step_input import step_input
from runyard.providers.port import AttemptRequest

STEP_SH = Path(pod.__file__).parent / "step.sh"


def attempt_of(spec: JobSpec, env: dict[str, str] | None = None) -> AttemptRequest:
    return AttemptRequest(
        key=AttemptKey("abcdefghij234567", 1),
        job_id="build",
        spec=spec,
        slot=0,
        epoch=3,
        env={"RUNYARD_JOB": "build"} if env is None else env,
    )


def shell(script: str, **fields: object) -> Step:
    return Step(name=str(fields.pop("name", "one")), command=("/bin/sh", "-c", script), **fields)  # type: ignore[arg-type]


@dataclass(frozen=True)
class End:
    code: int
    end: str | None
    output: str


class StepWorld:
    def __init__(self, path: Path, *steps: Step, run_s: float = 60.0, grace_s: float = 0.5) -> None:
        self.path = path
        self.workspace = path / "workspace"
        self.results = path / "results"
        self.workspace.mkdir()
        (path / "bin").mkdir()
        shutil.copyfile("/bin/busybox", path / "bin" / "busybox")
        (path / "bin" / "busybox").chmod(0o755)
        self.spec = JobSpec(steps=steps, dir=str(self.workspace), limits=Limits(run_s=run_s))
        for index, step in enumerate(steps):
            root = self.root(index)
            root.mkdir()
            (self.results / f"{index:03d}").mkdir(parents=True)
            (root / "bin").symlink_to(path / "bin")
            (root / "results").symlink_to(self.results)
            (root / "result").symlink_to(self.results / f"{index:03d}")
            (root / "step").write_text(step_input(attempt_of(self.spec), step, index, grace_s))
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def root(self, index: int) -> Path:
        return self.path / f"container-{index:03d}"

    def start(
        self, index: int, *, env: dict[str, str] | None = None, namespace: bool = False
    ) -> subprocess.Popen[bytes]:
        """`namespace`: as the first process of a pid namespace of its own, as in a container."""
        root = self.root(index)
        command = [
            str(root / "bin" / "busybox"), "sh", str(STEP_SH), str(root), str(root / "message"),
        ]  # fmt: skip
        if namespace:
            command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *command]
        with open(root / "output", "wb") as output:
            process = subprocess.Popen(
                command,
                env={"PATH": os.environ["PATH"]} if env is None else env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running[index] = process
        return process

    def finish(self, index: int, timeout_s: float = 30.0) -> End:
        code = self.running[index].wait(timeout_s)
        root = self.root(index)
        message = (root / "message").read_text() if (root / "message").exists() else ""
        end = json.loads(message)["end"] if message else None
        return End(code, end, (root / "output").read_text(errors="replace"))

    def run(self) -> list[End]:
        for index in range(len(self.spec.steps)):
            self.start(index)
        return [self.finish(index) for index in range(len(self.spec.steps))]
