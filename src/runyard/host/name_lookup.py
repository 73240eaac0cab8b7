"""A host's addresses, looked up in a child, so that a resolver that does not answer costs no more than a deadline."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Callable

from runyard.host.linux import die_with_parent

_LOOK_S = 0.5


def look_up(host: str, port: int, *, must_end: Callable[[], bool]) -> list[str] | None:
    """The addresses in the resolver's order; None where `must_end` said so first. Raises OSError with its words."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            die_with_parent(signal.SIGKILL)
            os.write(write_end, json.dumps(_resolve(host, port)).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    try:
        answer = _await(read_end, must_end)
    finally:
        os.close(read_end)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if answer is None:
        return None
    found = json.loads(answer or b'"the lookup ended without an answer"')
    if isinstance(found, str):
        raise OSError(0, found)
    return list(found)


def _await(read_end: int, must_end: Callable[[], bool]) -> bytes | None:
    waiting = select.poll()
    waiting.register(read_end, select.POLLIN)
    while not waiting.poll(_LOOK_S * 1000):
        if must_end():
            return None
    return os.read(read_end, 64 * 1024)


def _resolve(host: str, port: int) -> list[str] | str:
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:  # a name that cannot be encoded
        return str(error)
    return list(dict.fromkeys(str(row[4][0]) for row in rows))[:64]
