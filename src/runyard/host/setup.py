"""What making a workspace asks of its shim, and how it ends when it cannot be made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from runyard.host.disk_watch import DiskWatch
from runyard.host.step import Command, ProgramEnd


class WorkspaceFailed(Exception):
    """The workspace could not be made; the message is for the user."""


class SetupEnded(Exception):
    """A request to stop, or a limit, came first."""

    def __init__(self, end: ProgramEnd) -> None:
        super().__init__(end.why)
        self.end = end


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a fetch is. `fraction` 0..1; None where it is not known."""

    text: str
    fraction: float | None = None
    done_bytes: int | None = None
    total_bytes: int | None = None


class Setup(Protocol):
    """Everything here raises SetupEnded once a stop was requested or the time to start is up."""

    def run(self, command: Command, *, disk_watch: DiskWatch | None = None) -> tuple[ProgramEnd, str]:
        """Runs a program of the set-up, its output in the attempt's log. How it ended, and its last words."""
        ...

    def look_up(self, host: str, port: int) -> list[str]:
        """The addresses of a host and port. Raises OSError with the resolver's words."""
        ...

    def wait_readable(self, fd: int) -> None:
        """Returns when the descriptor is readable."""
        ...

    def say(self, words: str) -> None:
        """A line in the attempt's log."""
        ...

    def note_use(self, cache: str, result: str) -> None:
        """What was kept for this repository was used, or had to be made: for the service to count."""
        ...

    def report(self, progress: Progress) -> None:
        """Tells the service how far it is; it may be left out when one came a moment ago."""
        ...
