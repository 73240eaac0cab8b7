"""The shim: one process per attempt that carries it from its plan to its end, whatever becomes of the service.

Single-threaded, standard library only. It holds the attempt's lock, makes its place, runs its steps one after the
other, drains what they print, enforces every limit, collects what they leave, and writes the journal. A step's output
must be pipes (a job could truncate a file that it holds, and /dev/stderr must open), so somebody who survives the
service must drain them: this one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from runyard.host import attempt_directory as folders
from runyard.host import collect, journal, verdict, workspace
from runyard.host.attempt_directory import AttemptDirectory, StopRequest
from runyard.host.attempt_secrets import AttemptSecrets, read_memory_file
from runyard.host.cgroups import AttemptCgroup, Counters
from runyard.host.disk_watch import DiskWatch
from runyard.host.egress import with_egress
from runyard.host.images.roots import ImageRoots
from runyard.host.journal import JournalWriter
from runyard.host.linux import adopt_orphans, boot_id, boottime, set_process_name
from runyard.host.mount_points import HostileRoot
from runyard.host.plan import NETWORK_ALLOW, PlanCaches, PlanStep
from runyard.host.pump import AttemptLog, Discarded, LogDiskFull
from runyard.host.sandbox_command import Place, step_command
from runyard.host.setup import SetupEnded, WorkspaceFailed
from runyard.host.shim_setup import ProgressStream, ShimSetup
from runyard.host.stage import Stage, mount_overlay
from runyard.host.step import (
    CANCELED,
    RUN_TIMEOUT,
    START_TIMEOUT,
    STEP_TIMEOUT,
    Command,
    Deadline,
    Program,
    ProgramEnd,
    Sink,
)
from runyard.host.surroundings import Surroundings
from runyard.host.verdict import Verdict
from runyard.logs.layout import SETUP, step_key

if TYPE_CHECKING:
    from runyard.host.caches.attempt import AttemptCaches

COLLECT_STOPPED_S = 15.0
_ENDS_ALL = (CANCELED, "run_timeout", "start_timeout", "disk", "service")


def run_attempt(
    path: str, *, stage: Stage | None, seccomp_filter: bytes | None, secrets_fd: int = -1
) -> None:
    """The whole life of a shim. Returns at once where another one holds the lock, or the attempt began before."""
    directory = AttemptDirectory(Path(path))
    set_process_name(f"shim:{directory.name[-10:]}")
    wakeup_fd = _catch_term()
    lock = directory.take_lock()
    if lock is None or directory.records():
        return
    writer = JournalWriter(directory.file(folders.JOURNAL))
    now = time.time()
    writer.buffer(journal.STARTED, now, pid=os.getpid(), boot_id=boot_id())
    writer.write(journal.PREPARING, now)
    attempt: Attempt | None = None
    try:
        attempt = Attempt(
            directory,
            writer,
            stage=stage,
            seccomp_filter=seccomp_filter,
            wakeup_fd=wakeup_fd,
            secrets=AttemptSecrets(read_memory_file(secrets_fd) if secrets_fd >= 0 else ()),
        )
        end = attempt.run()
    except Exception as error:  # an attempt always gets an end, or it would be waited for
        end = verdict.lost("internal", f"the shim failed: {type(error).__name__}: {error}")
    if attempt is not None:
        end = attempt.without_secrets(end) | attempt.close()
    writer.write(journal.ENDED, time.time(), outcome=end)
    if attempt is not None:
        attempt.remove_cgroup()


class Attempt:
    """One attempt being run."""

    def __init__(
        self,
        directory: AttemptDirectory,
        writer: JournalWriter,
        *,
        stage: Stage | None,
        seccomp_filter: bytes | None,
        wakeup_fd: int,
        secrets: AttemptSecrets,
    ) -> None:
        self._directory = directory
        self._writer = writer
        self._wakeup_fd = wakeup_fd
        self._secrets = secrets
        self.plan = plan = directory.read_plan()
        self._cgroup = AttemptCgroup(plan.cgroups, plan.name) if plan.cgroups.version else None
        self._step_cgroup = self._cgroup
        if self._cgroup is not None and plan.services:
            self._step_cgroup = self._cgroup.beneath("steps")
        stage = stage if plan.user_id is not None else None
        self._roots = ImageRoots(plan, directory, None if stage is None else stage.image)
        self._place = Place(
            plan=plan,
            directory=directory,
            cgroup=self._step_cgroup,
            stage=stage,
            seccomp_filter=seccomp_filter,
            roots=self._roots,
        )
        self._disk_watch = DiskWatch(str(directory.path), folders.WRITABLE, plan.disk)
        for_steps = plan.log_bytes_max - plan.log_bytes_max // 4 if plan.services else plan.log_bytes_max
        self._log = AttemptLog(plan.log_directory, for_steps, masks=secrets.masks)
        self._counters = Counters()
        self._first_started: float | None = None
        self._last_ended: float | None = None
        self._outputs: dict[str, str] = {}
        self._surroundings: Surroundings | None = None
        self._caches: AttemptCaches | None = None
        if plan.caches is not None:
            self._caches = _caches_of(
                self._place, plan.caches, self._say, lambda use: writer.note_use("named", use)
            )

    def run(self) -> Verdict:
        if self._stop_request() is not None:
            return verdict.canceled(None)
        if self.plan.has_secrets and not self._secrets:
            return verdict.lost("internal", "its secrets were not handed over")
        try:
            self._prepare()
            end = self._make_surroundings() or self._fill_workspace() or self._restore_caches()
            if end is None:
                end = self._await_services()
            if end is None:
                end = self._run_steps()
        except WorkspaceFailed as error:
            self._say(str(error))
            end = verdict.failed("workspace", str(error))
        except HostileRoot as error:
            end = verdict.failed("image", str(error))
        except LogDiskFull:
            end = verdict.failed("disk", "the disk that holds the logs is full")
        finally:
            if self._surroundings is not None:
                stop = self._stop_request()
                grace_s = self.plan.kill_grace_s
                self._surroundings.close(grace_s if stop is None else min(grace_s, stop.grace_s))
        if self._first_started is not None:
            self._collect(end)
        return end

    def without_secrets(self, end: Verdict) -> Verdict:
        """Its words may quote what a program said."""
        reason = end.get("reason")
        if not isinstance(reason, dict):
            return end
        return end | {"reason": reason | {"message": self._secrets.masked(str(reason["message"]))}}

    def close(self) -> dict[str, Any]:
        """What else belongs to the end: usage, outputs. Nothing of the attempt is alive afterwards."""
        counters = Counters()
        if self._cgroup is not None:
            self._cgroup.kill()
            counters = self._cgroup.counters()
        wall_s = 0.0
        if self._first_started is not None and self._last_ended is not None:
            wall_s = self._last_ended - self._first_started
        return {
            "usage": {
                "wall_s": wall_s,
                "cpu_s": counters.cpu_s,
                "memory_bytes_peak": counters.memory_bytes_peak,
            },
            "was_seen": self._first_started is not None,
            "outputs": self._outputs,
        }

    def remove_cgroup(self) -> None:
        if self._cgroup is not None:
            self._cgroup.remove()

    # -- preparing ------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        plan, place = self.plan, self._place
        for image in plan.images:
            for use, layers in image.layer_uses.items():
                self._writer.note_use("image_layers", use, layers)
        workspace.make_folders(place)
        if self._cgroup is not None:
            self._cgroup.create(plan.limits)
            if self._step_cgroup is not None and self._step_cgroup is not self._cgroup:
                self._cgroup.hand_on()
                self._step_cgroup.create(plan.limits)  # its own counters tell what a step did
        if place.stage is not None:
            file = self._directory.file
            place.stage.enter(file(folders.WORKSPACE), file(folders.TMP), file(folders.OUTPUTS))
            if self._secrets.has_files:
                place.stage.make_secrets_folder()
            if plan.root_directory is not None:
                upper, work = file(folders.UPPER), file(folders.WORK)
                mount_overlay(place.stage.image, lower=plan.root_directory, upper=upper, work=work)
        self._roots.mount_all()

    def _fill_workspace(self) -> Verdict | None:
        if self.plan.git is None and not self.plan.files:
            return None
        self._writer.write(journal.WORKSPACE, time.time())
        setup = ShimSetup(
            self._log,
            self._writer,
            deadline=self._start_deadline(),
            stop_request=self._stop_request,
            wakeup_fd=self._wakeup_fd,
            make_program=self._setup_program,
        )
        try:
            workspace.fill(self._place, setup)
        except SetupEnded as error:
            return self._judge(PlanStep(name=SETUP, command=()), error.end)
        return None

    def _make_surroundings(self) -> Verdict | None:
        if self.plan.network != NETWORK_ALLOW and not self.plan.services:
            return None
        self._surroundings = Surroundings(self._place, self._cgroup, self._log, self._say)
        end = self._surroundings.start()
        self._place = self._surroundings.place
        return end

    def _await_services(self) -> Verdict | None:
        if self._surroundings is None or not self.plan.services:
            return None
        self._writer.write(journal.SERVICES, time.time())

        def run_ready(command: Command, deadline: Deadline) -> ProgramEnd:
            return self._program(command, SETUP, stdout=Discarded(), stderr=Discarded()).run(
                [deadline], kill_grace_s=0
            )

        return self._surroundings.await_ready(self._wakeup_fd, self._start_ended, run_ready)

    def _setup_program(
        self, command: Command, key: str, stderr: ProgressStream, disk_watch: DiskWatch | None
    ) -> Program:
        return self._program(command, key, stderr=stderr, disk_watch=disk_watch)

    def _run_setup(self, command: Command, key: str) -> tuple[ProgramEnd, str]:
        stderr = self._log.open(key, "stderr")
        program = self._program(command, key, stderr=stderr)
        end = program.run([self._start_deadline()], kill_grace_s=0)
        return end, stderr.last.decode(errors="replace")

    def _start_ended(self) -> str | None:
        """Why nothing more is prepared: the word for it."""
        if self._stop_request() is not None:
            return CANCELED
        return START_TIMEOUT if self._start_deadline().at <= boottime() else None

    def _restore_caches(self) -> Verdict | None:
        if self._caches is None:
            return None
        self._writer.write(journal.CACHE, time.time())
        end = self._caches.restore(lambda command: self._run_setup(command, SETUP), self._start_ended)
        if self._step_cgroup is not None:
            self._counters = self._step_cgroup.counters()  # what was killed here is no step's
        return None if end is None else self._judge(PlanStep(name=SETUP, command=()), end)

    # -- steps ----------------------------------------------------------------------------------------------------

    def _run_steps(self) -> Verdict:
        result: Verdict | None = None
        for index, step in enumerate(self.plan.steps):
            if step.condition == "success" and result is not None:
                continue
            if step.condition == "failure" and result is None:
                continue
            why, end = self._run_step(index, step)
            result = end if result is None else result  # the first failure decides
            if why in _ENDS_ALL:
                break
        return verdict.succeeded() if result is None else result

    def _run_step(self, index: int, step: PlanStep) -> tuple[str | None, Verdict | None]:
        if self._stop_request() is not None:
            return CANCELED, verdict.canceled(step.name)
        deadlines = self._deadlines(step)
        over = min(deadlines, key=lambda deadline: deadline.at)
        if over.at <= boottime():
            end = ProgramEnd(why=over.why)
        else:
            end = self._execute(index, step, deadlines)
        return end.why, self._judge(step, end)

    def _execute(self, index: int, step: PlanStep, deadlines: list[Deadline]) -> ProgramEnd:
        with contextlib.ExitStack() as network:
            given = step_command(
                self._place, self._secrets.given_to(step), secret_files=self._secrets.files_of(step)
            )
            command = with_egress(given, self.plan, network)
            watch = None if self._surroundings is None else self._surroundings.watch
            program = self._program(command, step_key(index), watch=watch)
            end = program.run(
                deadlines,
                kill_grace_s=self.plan.kill_grace_s,
                started=lambda: self._note_step_started(index),
            )
        self._last_ended = boottime()
        self._writer.buffer(
            journal.STEP_ENDED,
            time.time(),
            index=index,
            exit_code=end.exit_code,
            signal=end.signal,
            why=end.why or self._secrets.masked(end.setup_error or "") or None,
        )
        return end

    def _note_step_started(self, index: int) -> None:
        if self._first_started is None:
            self._first_started = boottime()
        self._writer.write(journal.STEP_STARTED, time.time(), index=index)

    def _deadlines(self, step: PlanStep) -> list[Deadline]:
        now = boottime()
        if self._first_started is None:
            if self._start_deadline().at <= now:
                return [self._start_deadline()]
            deadlines = [Deadline(at=now + self.plan.run_limit_s, why=RUN_TIMEOUT)]
        else:
            deadlines = [Deadline(at=self._first_started + self.plan.run_limit_s, why=RUN_TIMEOUT)]
        if step.timeout_s is not None:
            deadlines.append(Deadline(at=now + step.timeout_s, why=STEP_TIMEOUT))
        return deadlines

    def _start_deadline(self) -> Deadline:
        return Deadline(at=self.plan.created_boottime + self.plan.start_limit_s, why=START_TIMEOUT)

    def _judge(self, step: PlanStep, end: ProgramEnd) -> Verdict | None:
        before, after = self._counters, self._counters
        if self._step_cgroup is not None:
            after = self._counters = self._step_cgroup.counters()
        limits = {
            "memory_bytes": self.plan.limits.memory_bytes,
            "pids_max": self.plan.limits.pids_max,
            START_TIMEOUT: self.plan.start_limit_s,
            RUN_TIMEOUT: self.plan.run_limit_s,
            STEP_TIMEOUT: step.timeout_s,
        }
        name = step.command[0] if step.command else ""
        return verdict.of_step(step.name, end, before=before, after=after, limits=limits, command=name)

    def _program(
        self,
        command: Command,
        key: str,
        *,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
        disk_watch: DiskWatch | None = None,
        watch: Callable[[], str | None] | None = None,
    ) -> Program:
        return Program(
            command,
            stdout=stdout or self._log.open(key, "stdout"),
            stderr=stderr or self._log.open(key, "stderr"),
            cgroup=self._step_cgroup,
            wakeup_fd=self._wakeup_fd,
            stop_request=self._stop_request,
            disk_watch=disk_watch or self._disk_watch,
            watch=watch,
            companions=set if self._surroundings is None else self._surroundings.companions,
        )

    # -- the end --------------------------------------------------------------------------------------------------

    def _collect(self, end: Verdict) -> None:
        plan, file = self.plan, self._directory.file
        saves = end == verdict.succeeded() and self._caches is not None and self._caches.has_to_save
        if plan.artifacts or plan.outputs or saves:
            self._writer.write(journal.COLLECTING, time.time())
        must_end = self._collect_bound()
        try:
            if saves:
                self._save_caches(must_end)
            collect.collect_artifacts(plan, file(folders.WORKSPACE), self._say, must_end)
            self._outputs = self._secrets.masked_outputs(
                collect.read_outputs(plan, file(folders.WORKSPACE), file(folders.OUTPUTS), self._say)
            )
        except (OSError, LogDiskFull) as error:
            with contextlib.suppress(LogDiskFull):
                self._say(f"artifacts: not all could be kept: {error}")

    def _save_caches(self, must_end: collect.MustEnd) -> None:
        deadline = Deadline(at=boottime() + self.plan.collect_limit_s, why=RUN_TIMEOUT)

        def run(command: Command) -> tuple[ProgramEnd, str]:
            stderr = self._log.open(SETUP, "stderr")
            end = self._program(command, SETUP, stderr=stderr).run([deadline], kill_grace_s=0)
            return end, stderr.last.decode(errors="replace")

        if self._caches is not None:
            self._caches.save(run, must_end)

    def _collect_bound(self) -> collect.MustEnd:
        """Of an attempt that was stopped a little is still collected; a stop that comes meanwhile ends it."""
        was_stopped = self._stop_request() is not None
        limit_s = (
            min(COLLECT_STOPPED_S, self.plan.collect_limit_s) if was_stopped else self.plan.collect_limit_s
        )
        ends_at = boottime() + limit_s

        def must_end() -> str | None:
            if not was_stopped and self._stop_request() is not None:
                return "a request to stop came while they were collected"
            return f"collecting took longer than {limit_s:g} s" if boottime() > ends_at else None

        return must_end

    def _say(self, words: str) -> None:
        """A word of Runyard's in the attempt's own log."""
        stream = self._log.open(SETUP, "stderr")
        stream.write(f"runyard: {words}\n".encode(errors="replace"))
        stream.close()

    def _stop_request(self) -> StopRequest | None:
        return self._directory.stop_request()


def _caches_of(
    place: Place, caches: PlanCaches, say: Callable[[str], None], note_use: Callable[[str], None]
) -> AttemptCaches:
    """Imported on need: hashing would make every zygote larger."""
    from runyard.host.caches.attempt import AttemptCaches

    return AttemptCaches(place, caches, say, note_use)


def _catch_term() -> int:
    """TERM only wakes the poll; what is to be done stands in the attempt's directory."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _only_wake)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    adopt_orphans()
    return read_end


def _only_wake(number: int, frame: FrameType | None) -> None:
    pass
