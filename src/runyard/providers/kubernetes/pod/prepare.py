"""Makes a pod ready for its steps: step.sh and a busybox for every image, a folder for each result, the workspace.

The workspace is made by the code that makes it on a host of ours. This container is the sandbox of the fetch: nothing
else is in it, its `/tmp` is its own, and the job's credentials are mounted here only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import time
from dataclasses import replace
from importlib import resources
from pathlib import Path

from runyard.host import workspace
from runyard.host.attempt_directory import REPOSITORIES, AttemptDirectory
from runyard.host.disk_watch import DiskWatch
from runyard.host.images.roots import ImageRoots
from runyard.host.linux import adopt_orphans, boot_id, boottime
from runyard.host.name_lookup import look_up
from runyard.host.plan import Plan
from runyard.host.removal import remove_tree
from runyard.host.repositories.fetch_sandbox import FetchSandbox, check_end, fetch_identity
from runyard.host.repositories.trees import TreeMaker
from runyard.host.sandbox import PATH
from runyard.host.sandbox_command import Place
from runyard.host.setup import Progress, Setup, SetupEnded, WorkspaceFailed
from runyard.host.step import CANCELED, START_TIMEOUT, Command, Deadline, Program, ProgramEnd
from runyard.providers.kubernetes import layout

BUSYBOX = "/bin/busybox"
_LOOK_S = 0.5
_LAST_BYTES = 2048
_END = {CANCELED: "stopped", START_TIMEOUT: "start_timeout"}


def prepare(
    containers: int, message_bytes: int, *, root: str = layout.ROOT, message: str = layout.MESSAGE
) -> int:
    """`containers` wait behind step.sh; `message_bytes` bounds what is said at the end. Returns the exit code."""
    stopping = _Stopping()
    try:
        _lay_out(root, containers)
        plan = read_plan(root)
        make_workspace(plan, f"{root}/files", stopping)
    except WorkspaceFailed as error:
        _print(f"runyard: {error}")
        return _say(message, message_bytes, "workspace", str(error))
    except SetupEnded as error:
        return _say(message, message_bytes, _END.get(str(error.end.why), "workspace"), "")
    except Exception as error:  # the message is all that is seen of it where the log is gone
        words = str(error) if isinstance(error, OtherRelease) else f"{type(error).__name__}: {error}"
        _say(message, message_bytes, "internal", words)
        raise
    return 0


class OtherRelease(Exception):
    """The plan was written by another release than reads it."""


def read_plan(root: str) -> Plan:
    """Raises OtherRelease."""
    try:
        return Plan.from_json(Path(root, "input", layout.PLAN).read_text())
    except (TypeError, KeyError, ValueError) as error:
        raise OtherRelease(
            f"the pool's `image` is another release of Runyard than the service ({error}); build both from one"
        ) from error


def make_workspace(plan: Plan, files: str, stopping: _Stopping) -> None:
    """Fills `files`/workspace. Raises WorkspaceFailed, SetupEnded."""
    plan = replace(plan, boot_id=boot_id(), created_at=time.time(), created_boottime=boottime())
    directory = AttemptDirectory(Path(files))
    place = Place(
        plan=plan,
        directory=directory,
        cgroup=None,
        stage=None,
        seccomp_filter=None,
        roots=ImageRoots(plan, directory, None),
    )
    setup = _PodSetup(stopping, deadline=Deadline(at=boottime() + plan.start_limit_s, why=START_TIMEOUT))
    workspace.make_folders(place)
    os.chmod(directory.file("tmp"), 0o1777)
    if plan.git is not None:
        try:
            _check_out(place, setup)
        except OSError as error:
            raise WorkspaceFailed(f"workspace.git: {error}") from None
    workspace.write_files(place, setup)
    if plan.caches is not None:
        paths = ", ".join(entry.path for entry in plan.caches.entries)
        setup.say(f"runyard: this pool keeps no named caches: {paths} is as the workspace has it")


def _check_out(place: Place, setup: Setup) -> None:
    assert place.plan.git is not None
    store = place.directory.file(REPOSITORIES)
    os.makedirs(store, mode=0o700, exist_ok=True)
    try:
        with _ThisContainer(place, setup) as sandbox:
            trees = TreeMaker(place, setup, sandbox, store)
            commit = trees.make_own(place.plan.git, place.directory.file("workspace"), owner=None)
    finally:
        remove_tree(store)
    setup.say(f"checked out {commit}")


def _lay_out(root: str, containers: int) -> None:
    shutil.copyfile(BUSYBOX, f"{root}/bin/busybox")
    os.chmod(f"{root}/bin/busybox", 0o755)
    script = resources.files("runyard.providers.kubernetes.pod").joinpath("step.sh").read_bytes()
    Path(root, "bin", "step.sh").write_bytes(script)
    os.chmod(f"{root}/bin/step.sh", 0o755)
    for index in range(containers):
        os.makedirs(f"{root}/results/{index:03d}", mode=0o755, exist_ok=True)


def _say(message: str, message_bytes: int, end: str, words: str) -> int:
    """Whole JSON within the kubelet's bound, however long the words are."""
    said = json.dumps({"end": end, "words": words})
    while len(said) > message_bytes and words:
        words = words[: len(words) - max(1, (len(said) - message_bytes) // 6)]
        said = json.dumps({"end": end, "words": words})
    with contextlib.suppress(OSError):
        Path(message).write_text(said)
    return 1


def _print(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


class _Stopping:
    """TERM asks us to end: a pipe that becomes readable, and a word."""

    def __init__(self) -> None:
        self.wakeup_fd, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.is_asked = False
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._note)
        adopt_orphans()

    def _note(self, number: int, frame: object) -> None:
        self.is_asked = True


class _Output:
    """A program's stream, onto our own stdout. `last` holds its latest bytes."""

    def __init__(self) -> None:
        self.last = b""

    def drain(self, pipe: int) -> bool:
        try:
            data = os.read(pipe, 64 * 1024)
        except BlockingIOError:
            return True
        self.last = (self.last + data)[-_LAST_BYTES:]
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
        return bool(data)

    @property
    def idle_at(self) -> float | None:
        """Nothing is held back, so nothing is to be shown later."""
        return None

    def show_idle(self, now: float) -> None:
        pass

    def close(self) -> None:
        pass


class _PodSetup:
    """The Setup (host/setup.py) of a container: its log is our stdout."""

    def __init__(self, stopping: _Stopping, *, deadline: Deadline) -> None:
        self._stopping = stopping
        self._deadline = deadline

    def run(self, command: Command, *, disk_watch: DiskWatch | None = None) -> tuple[ProgramEnd, str]:
        self._check()
        stderr = _Output()
        program = Program(
            command,
            stdout=_Output(),
            stderr=stderr,
            cgroup=None,
            wakeup_fd=self._stopping.wakeup_fd,
            stop_request=lambda: None,
            disk_watch=disk_watch,
        )
        end = program.run([self._deadline], kill_grace_s=0)
        self._check()
        return end, stderr.last.decode(errors="replace")

    def look_up(self, host: str, port: int) -> list[str]:
        found = look_up(host, port, must_end=lambda: self._why_ended() is not None)
        if found is None:
            self._check()
            raise OSError(0, "the lookup was given up")
        return found

    def wait_readable(self, fd: int) -> None:
        waiting = select.poll()
        waiting.register(fd, select.POLLIN)
        self._check()
        while not waiting.poll(_LOOK_S * 1000):
            self._check()

    def say(self, words: str) -> None:
        _print(words)

    def note_use(self, cache: str, result: str) -> None:
        """Nothing is kept from one pod to the next, so there is nothing to count."""

    def report(self, progress: Progress) -> None:
        """git says it on stderr already."""

    def _check(self) -> None:
        why = self._why_ended()
        if why is not None:
            raise SetupEnded(ProgramEnd(why=why))

    def _why_ended(self) -> str | None:
        if self._stopping.is_asked:
            return CANCELED
        return START_TIMEOUT if self._deadline.at <= boottime() else None


class _ThisContainer(FetchSandbox):
    """The sandbox of a fetch where the container is one already: its own `/tmp` is the scratch."""

    def __init__(self, place: Place, setup: Setup, scratch: str = "") -> None:
        super().__init__(place, setup)
        self._scratch = scratch

    @property
    def nothing(self) -> str:
        return f"{self._scratch}/tmp/nothing"

    def __enter__(self) -> FetchSandbox:
        for name in ("home", "nothing"):
            os.makedirs(f"{self._scratch}/tmp/{name}", exist_ok=True)
        self._write_config()
        return self

    def __exit__(self, *_: object) -> None:
        self.take_back()

    def run(
        self,
        command: tuple[str, ...],
        folder: str,
        *,
        env: dict[str, str],
        reads: str | None = None,
        has_network: bool = False,
        disk_watch: DiskWatch | None = None,
        user_id: int | None = None,
    ) -> None:
        started = Command(
            argv=command,
            env={"PATH": PATH, "HOME": "/tmp/home", "LANG": "C.UTF-8", "TZ": "UTC", **env},
            identity=fetch_identity(self._place, user_id),
            directory=folder,
            is_sandboxed=False,
        )
        check_end(*self._setup.run(started, disk_watch=disk_watch))
