"""What a container of a scripted pod does: values only."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Say:
    """Output; stdout and stderr are one here, as in the container's log file."""

    data: bytes


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Exit:
    """`reason` None is Completed for 0 and Error for the rest; OOMKilled and StartError are said."""

    code: int = 0
    reason: str | None = None
    message: str = ""


@dataclass(frozen=True)
class Waiting:
    """A container that does not start: ErrImagePull, ErrImageNeverPull, CreateContainerConfigError …"""

    reason: str
    message: str = ""


@dataclass(frozen=True)
class Program:
    """Runs its steps; without an Exit at their end until somebody stops it. `on_term` None ignores TERM until KILL."""

    steps: tuple[Say | Pause | Exit, ...] = ()
    on_term: Exit | None = None
    waits: Waiting | None = None


@dataclass(frozen=True)
class ExecResult:
    """`refusal` is a runtime error (no such program) instead of an exit code.

    `cut_after`: the connection is reset after so many bytes of output; `hangs`: the output comes, the end never.
    """

    stdout: bytes = b""
    stderr: bytes = b""
    code: int = 0
    refusal: str = ""
    cut_after: int | None = None
    hangs: bool = False


@dataclass(frozen=True)
class ExecCall:
    """What was asked for. `stdin` is whole: the handler runs when the client closed it (v5), or at once without one."""

    pod: Json
    container: str
    command: tuple[str, ...]
    stdin: bytes = b""


Programs = Callable[[Json, Json], Program]
ExecHandler = Callable[[ExecCall], ExecResult]


def succeed_at_once(pod: Json, container: Json) -> Program:
    return Program((Exit(0),))


def by_last_word(programs: dict[str, Program]) -> Programs:
    """Looks a program up by the last word of the container's args or command, else by its name."""

    def find(pod: Json, container: Json) -> Program:
        words = container.get("args") or container.get("command") or [""]
        return programs.get(words[-1]) or programs.get(container["name"]) or Program((Exit(0),))

    return find
