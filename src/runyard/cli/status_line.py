"""One live line on a terminal's stderr that says what a job is doing while it prints nothing yet."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from runyard.cli.words import printable, progress_words, span
from runyard.sdk.errors import RunyardApiError

if TYPE_CHECKING:
    from runyard.sdk.client import Client
    from runyard.wire.answers import JobAnswer, WhyAnswer

FIRST_AFTER_S = 0.3
AGAIN_AFTER_S = 1.0


class StatusLine:
    """Asks and draws from a thread of its own, and not at all for a job that speaks within 300 ms.

    `stop` takes the line away; what is printed afterwards stands where it stood.
    """

    def __init__(self, client: Client, job_id: str) -> None:
        self._client, self._job_id = client, job_id
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._is_shown = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if sys.stderr.isatty():
            self._thread = threading.Thread(target=self._loop, name="status line", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        with self._lock:
            self._clear()

    def _loop(self) -> None:
        delay_s = FIRST_AFTER_S
        while not self._stop.wait(delay_s):
            delay_s = AGAIN_AFTER_S
            try:
                text = describe(self._client.get(self._job_id), lambda: self._client.why(self._job_id))
            except RunyardApiError:
                continue  # the follower of the log says what is wrong, once
            self._draw(text)

    def _draw(self, text: str) -> None:
        with self._lock:
            if self._stop.is_set():
                return
            width = shutil.get_terminal_size().columns - 1
            sys.stderr.write(f"\r\x1b[K{text[:width]}")
            sys.stderr.flush()
            self._is_shown = True

    def _clear(self) -> None:
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_shown = False


def describe(job: JobAnswer, ask_why: Callable[[], WhyAnswer]) -> str:
    """`id: queued, pool_full: all 4 slots of local are taken, ready in about 20s`; then the last phase, and
    what a place that prepares is busy with."""
    head = f"{job.id}: {job.state}"
    if job.state == "queued":
        return f"{head}{waiting_words(ask_why())}"
    attempt = job.attempts[-1] if job.attempts else None
    phase = max(attempt.phases, key=lambda name: attempt.phases[name]) if attempt and attempt.phases else ""
    busy = f": {progress_words(attempt.progress)}" if attempt and attempt.progress else ""
    return printable(f"{head}{f', {phase}' if phase else ''}{f' in {attempt.pool}' if attempt else ''}{busy}")


def waiting_words(why: WhyAnswer) -> str:
    if not why.reasons:
        return ""
    first = min(why.reasons, key=lambda reason: float("inf") if reason.eta_s is None else reason.eta_s)
    ahead = f", about {why.ahead} before it" if why.ahead else ""
    eta = "" if first.eta_s is None else f", in about {span(first.eta_s)}"
    return printable(f", {first.code}: {first.message}{ahead}{eta}")
