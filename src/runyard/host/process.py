"""Starting one program of an attempt: the fork, what the child becomes before it is the program, and its end."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from runyard.host.linux import die_with_parent, forbid_new_privileges

OPEN_FILES_MAX = 65536
SETUP_ERROR = "setup: "  # begins the words of a child that failed before it came to its program
_OOM_SCORE = b"300"  # when the host runs out of memory, a job goes before any service


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a child becomes. `user_id` None keeps the user; `group_id` None is the same number. `join` puts it into its
    control group, as first thing."""

    user_id: int | None = None
    group_id: int | None = None
    groups: tuple[int, ...] = ()
    join: Callable[[], None] | None = None
    rlimits: Mapping[int, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Child:
    """A started child. `error_fd` yields the reason if it could not become the program, else ends empty."""

    pid: int
    pidfd: int
    error_fd: int

    def read_error(self) -> str:
        """To be called once it ended."""
        os.set_blocking(self.error_fd, False)
        try:
            return os.read(self.error_fd, 4096).decode(errors="replace")
        except BlockingIOError:
            return ""

    def close(self) -> None:
        os.close(self.pidfd)
        os.close(self.error_fd)


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stdout: int,
    stderr: int,
    identity: Identity,
    inherit: Sequence[int] = (),
    directory: str = "/",
    stdin: int = -1,
) -> Child:
    """Forks and becomes `argv`, found by `env`'s PATH. The child dies with us, leads a session and holds no
    descriptor but 0 (`stdin`, else empty), 1, 2 and `inherit`."""
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        words = SETUP_ERROR
        try:
            _become((stdin, stdout, stderr), identity, inherit, directory)
            words = ""
            os.execvpe(argv[0], list(argv), dict(env))
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.write(error_write, (words + _describe(error)).encode(errors="replace"))
        finally:
            os._exit(127)
    os.close(error_write)
    return Child(pid=pid, pidfd=os.pidfd_open(pid), error_fd=error_read)


def _become(
    standard: tuple[int, int, int],
    identity: Identity,
    inherit: Sequence[int],
    directory: str,
) -> None:
    if identity.join is not None:
        identity.join()
    _restore_signals()
    _offer_to_oom_killer()
    os.setsid()
    for limit, value in identity.rlimits.items():
        resource.setrlimit(limit, (value, value))
    if identity.user_id is not None:
        group_id = identity.user_id if identity.group_id is None else identity.group_id
        os.setgroups(identity.groups)
        os.setresgid(group_id, group_id, group_id)
        os.setresuid(identity.user_id, identity.user_id, identity.user_id)
    forbid_new_privileges()
    die_with_parent(signal.SIGKILL)
    stdin, stdout, stderr = standard
    os.dup2(stdin if stdin >= 0 else os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for fd in inherit:
        os.set_inheritable(fd, True)
    try:
        os.chdir(directory)
    except OSError as error:
        raise RuntimeError(f"Can't chdir to {directory}: {error.strerror}") from None


def _restore_signals() -> None:
    for number in (
        signal.SIGPIPE,
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGCHLD,
        signal.SIGHUP,
        signal.SIGXFSZ,
    ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _offer_to_oom_killer() -> None:
    with contextlib.suppress(OSError):
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(fd, _OOM_SCORE)
        os.close(fd)


def _describe(error: BaseException) -> str:
    return f"{error.strerror}" if isinstance(error, OSError) else str(error)


def descendants(pid: int) -> set[int]:
    """Every living descendant of a process, by /proc; a snapshot. (`children` files are not in every kernel.)"""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found
