"""The life of `runyard run` from submit to exit code.

Two round trips when all goes well: the PUT, and the log's stream, whose last event carries how the job ended.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace
from types import FrameType
from typing import Any

from runyard.cli.byte_output import gap_words, prepare_output, write_bytes
from runyard.cli.connection import open_client
from runyard.cli.exit_codes import (
    BROKEN_PIPE,
    RUN_CANCELED,
    RUN_OF_RUNYARD,
    exit_code_of_job,
)
from runyard.cli.status_line import StatusLine
from runyard.cli.words import say, say_error
from runyard.sdk import job_calls
from runyard.sdk.errors import Gone, RunyardApiError
from runyard.sdk.following import Interruption, LogChunk, LogEnd
from runyard.sdk.job_ids import choose_job_id


class RunSession:
    def __init__(self, document: dict[str, Any], *, tenant: str | None) -> None:
        self._id = document.setdefault("id", choose_job_id())
        self._document = document
        self._client = open_client(tenant)
        self._status = StatusLine(self._client, self._id)
        self._interrupts = 0
        self._is_submitted = False
        self._breaks = 0

    def detach(self) -> int:
        with self._client:
            self._submit()
        print(self._id, flush=True)
        return 0

    def attend(self) -> int:
        """Submits, shows the output, returns the job's exit code. The job outlives everything that goes wrong here."""
        prepare_output()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._on_interrupt)
        try:
            self._submit()
        except KeyboardInterrupt:
            self._cancel()
            return RUN_CANCELED
        self._status.start()
        try:
            end = self._show_output()
        except Gone as error:
            say_error(error)
            end = self._end_without_log()
        except BrokenPipeError:
            self._status.stop()
            _silence()
            return BROKEN_PIPE
        except RunyardApiError as error:
            self._status.stop()
            say_error(error)
            say(f"job '{self._id}' may go on; see `runyard job {self._id}`, `runyard logs -f {self._id}`")
            return RUN_OF_RUNYARD
        self._status.stop()
        self._say_reason(end)
        return exit_code_of_job(end.state, exit_code=end.exit_code, signal=end.signal)

    def _submit(self) -> None:
        """The answer is not read as a model: importing them takes longer than the request."""
        call = job_calls.submit(self._document, job_id=self._id, tenant=None)
        answer = self._client.raw(replace(call, parse=job_calls.plain))
        self._is_submitted = True
        for warning in answer.get("warnings") or ():
            say(warning)

    def _show_output(self) -> LogEnd:
        """Over all attempts: a job that is tried again goes on below what it printed before."""
        attempt = 0
        for item in self._client.follow_log(self._id, watch=self._on_break):
            self._mended()
            if isinstance(item, LogEnd):
                return item
            self._status.stop()
            if attempt and item.attempt > attempt:
                say(f"attempt {attempt} has ended; this is attempt {item.attempt}")
            attempt = item.attempt
            if isinstance(item, LogChunk):
                write_bytes(item.stream, item.data)
            else:
                say(gap_words(item))
        raise AssertionError("a followed log ends with LogEnd or an error")

    def _end_without_log(self) -> LogEnd:
        """Of a job that was there before (`--id`), and whose log has been swept since."""
        job = self._client.wait(self._id)
        return LogEnd(job.state, job.exit_code, job.attempts[-1].signal if job.attempts else None)

    def _mended(self) -> None:
        if self._breaks > 1:
            say("connected again")
        self._breaks = 0

    def _on_break(self, interruption: Interruption) -> None:
        """A single break is mended before anyone needs to know."""
        self._breaks += 1
        if self._breaks == 2:
            self._status.stop()
            say(f"{interruption.message}; the job goes on, trying to reach the service again")

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1
        if self._interrupts > 1:
            # Not by print: this may have interrupted one.
            os.write(2, f"\nrunyard: detached; see `runyard job {self._id}`\n".encode())
            os._exit(RUN_CANCELED)
        if not self._is_submitted:
            raise KeyboardInterrupt
        # The main thread sits in a read that must not be broken: the rest of the log is wanted.
        threading.Thread(target=self._cancel, name="cancel", daemon=True).start()

    def _cancel(self) -> None:
        self._status.stop()
        say(f"canceling job '{self._id}'; Ctrl-C again detaches at once")
        try:
            call = job_calls.cancel(self._id, tenant=self._document.get("tenant"))
            self._client.raw(replace(call, parse=job_calls.plain))
        except RunyardApiError as error:
            if self._is_submitted:
                say_error(error)

    def _say_reason(self, end: LogEnd) -> None:
        """Whatever is not the command's own exit code needs a word; that costs one more request."""
        if end.state == "succeeded" or (end.state == "failed" and end.exit_code and not end.signal):
            return
        reason = None
        try:
            reason = self._client.get(self._id).reason
        except RunyardApiError as error:
            say_error(error)
        step = f" in step '{reason.step}'" if reason and reason.step else ""
        say(f"job '{self._id}' {end.state}{step}{f': {reason.message}' if reason else ''}")


def _silence() -> None:
    """Nobody reads any more; what Python flushes at exit must not complain about it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
