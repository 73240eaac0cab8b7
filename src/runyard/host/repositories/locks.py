"""Locks between the shims of many attempts: flock, so that the kernel frees what a dead one held."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Callable

from runyard.host.linux import die_with_parent

WaitReadable = Callable[[int], None]
_MODES = {False: fcntl.LOCK_EX, True: fcntl.LOCK_SH}


def take(path: str, *, shared: bool = False, wait: WaitReadable) -> int:
    """The lock, held while the returned descriptor is open. `wait` returns when its descriptor is readable, and what
    it raises ends the waiting. The file is made where it is missing."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            if not _try(fd, shared):
                _await(fd, shared, wait)
        except BaseException:
            os.close(fd)
            raise
        if _is_still_there(fd, path):
            return fd
        os.close(fd)  # it was removed while we waited: what we hold guards nothing


def try_take(path: str, *, shared: bool = False) -> int | None:
    """The lock if it is free and its file there, else None."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    if _try(fd, shared) and _is_still_there(fd, path):
        return fd
    os.close(fd)
    return None


def share(fd: int) -> None:
    """From exclusive to shared. Another may come between: look again at what it guards."""
    fcntl.flock(fd, fcntl.LOCK_SH)


def _try(fd: int, shared: bool) -> bool:
    try:
        fcntl.flock(fd, _MODES[shared] | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _await(fd: int, shared: bool, wait: WaitReadable) -> None:
    """A child waits in the kernel for the lock that it shares with us, so that we can wait for more than one thing."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            die_with_parent(signal.SIGKILL)
            fcntl.flock(fd, _MODES[shared])
        finally:
            os._exit(0)
    pidfd = os.pidfd_open(pid)
    try:
        wait(pidfd)
    finally:
        os.close(pidfd)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _is_still_there(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
