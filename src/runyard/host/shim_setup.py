"""The set-up of a workspace as the shim carries it out: programs, waiting and progress, under the limit to start."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from dataclasses import asdict

from runyard.host import journal
from runyard.host.attempt_directory import StopRequest
from runyard.host.disk_watch import DiskWatch
from runyard.host.journal import JournalWriter
from runyard.host.linux import boottime
from runyard.host.name_lookup import look_up
from runyard.host.pump import READ_BYTES, AttemptLog, StreamLog
from runyard.host.repositories.progress import is_progress, read_progress
from runyard.host.setup import Progress, SetupEnded
from runyard.host.step import CANCELED, START_TIMEOUT, Command, Deadline, Program, ProgramEnd
from runyard.logs.layout import SETUP

PROGRESS_EVERY_S = 0.5
_LOOK_S = 0.5
_LINE_BYTES_MAX = 16 * 1024

MakeProgram = Callable[[Command, str, "ProgressStream", DiskWatch | None], Program]


class ShimSetup:
    """The Setup of one attempt (setup.py)."""

    def __init__(
        self,
        log: AttemptLog,
        writer: JournalWriter,
        *,
        deadline: Deadline,
        stop_request: Callable[[], StopRequest | None],
        wakeup_fd: int,
        make_program: MakeProgram,
    ) -> None:
        self._log = log
        self._writer = writer
        self._deadline = deadline
        self._stop_request = stop_request
        self._wakeup_fd = wakeup_fd
        self._make_program = make_program
        self._reported_at = 0.0

    def run(self, command: Command, *, disk_watch: DiskWatch | None = None) -> tuple[ProgramEnd, str]:
        stderr = ProgressStream(self._log.open(SETUP, "stderr"), self.report)
        program = self._make_program(command, SETUP, stderr, disk_watch)
        end = program.run([self._deadline], kill_grace_s=0)
        return end, stderr.last.decode(errors="replace")

    def look_up(self, host: str, port: int) -> list[str]:
        found = look_up(host, port, must_end=lambda: self._why_ended() is not None)
        if found is None:
            self._check()
            raise OSError(0, "the lookup was given up")
        return found

    def wait_readable(self, fd: int) -> None:
        waiting = select.poll()
        for each in (fd, self._wakeup_fd):
            waiting.register(each, select.POLLIN)
        while True:
            self._check()
            ready = [number for number, _ in waiting.poll(_LOOK_S * 1000)]
            if fd in ready:
                return
            if self._wakeup_fd in ready:
                os.read(self._wakeup_fd, 512)

    def say(self, words: str) -> None:
        stream = self._log.open(SETUP, "stdout")
        stream.write(f"{words}\n".encode(errors="replace"))
        stream.close()

    def note_use(self, cache: str, result: str) -> None:
        self._writer.note_use(cache, result)

    def report(self, progress: Progress) -> None:
        now = boottime()
        if now >= self._reported_at + PROGRESS_EVERY_S:
            self._reported_at = now
            self._writer.write(journal.PROGRESS, time.time(), **asdict(progress))

    def _check(self) -> None:
        why = self._why_ended()
        if why is not None:
            raise SetupEnded(ProgramEnd(why=why))

    def _why_ended(self) -> str | None:
        if self._stop_request() is not None:
            return CANCELED
        return START_TIMEOUT if self._deadline.at <= boottime() else None


class ProgressStream:
    """git's stderr: what it says goes into the log, how far it is to `report`."""

    def __init__(self, stream: StreamLog, report: Callable[[Progress], None]) -> None:
        self._stream = stream
        self._report = report
        self._unfinished = b""

    @property
    def last(self) -> bytes:
        return self._stream.last

    @property
    def idle_at(self) -> float | None:
        return self._stream.idle_at

    def show_idle(self, now: float) -> None:
        self._stream.show_idle(now)

    def close(self) -> None:
        self._stream.close()

    def drain(self, pipe: int) -> bool:
        try:
            data = os.read(pipe, READ_BYTES)
        except BlockingIOError:
            return True
        self._take(data, is_end=not data)
        return bool(data)

    def _take(self, data: bytes, *, is_end: bool) -> None:
        """A line of progress ends with a carriage return, or with the end of line when it is done."""
        text = self._unfinished + data
        lines = text.replace(b"\r", b"\r\n").splitlines(keepends=True) if text else []
        whole = is_end or len(text) > _LINE_BYTES_MAX
        self._unfinished = b"" if whole or not lines or lines[-1].endswith(b"\n") else lines.pop()
        kept = b""
        for line in lines:
            words = line.decode(errors="replace")
            if not is_progress(words):
                kept += line.replace(b"\r\n", b"\n")
            elif (progress := read_progress(words)) is not None:
                self._report(progress)
        if kept:
            self._stream.write(kept)
