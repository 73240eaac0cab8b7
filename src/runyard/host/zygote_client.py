"""The service's end of the zygote: starts it, asks it for shims, starts it again when it died."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import runyard
from runyard.host.attempt_secrets import write_memory_file
from runyard.host.cgroups import CgroupTree
from runyard.host.zygote import READY, REQUEST_BYTES_MAX
from runyard.model.errors import Unreachable
from runyard.model.secret import SecretValue

START_S = 20.0
REPLY_S = 20.0
_SOURCE = str(Path(runyard.__file__).parent.parent)
_CODE = (
    f"import sys; sys.path.insert(0, {_SOURCE!r});"
    " from runyard.host.zygote import main; main(int(sys.argv[1]), sys.argv[2])"
)


class Zygote:
    """Used from one event loop. `stage` is the mount point of the stage, None without root."""

    def __init__(self, *, stage: str | None, cgroups: CgroupTree) -> None:
        self._config = json.dumps({"stage": stage, "cgroups": cgroups.to_json()})
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._replies: deque[asyncio.Future[bytes]] = deque()
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Raises Unreachable saying why it could not be had. Returns at once where it runs."""
        async with self._starting:
            if self._socket is not None:
                return
            await asyncio.to_thread(self._reap)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                self._process = await asyncio.to_thread(_spawn, theirs.fileno(), self._config)
            finally:
                theirs.close()
            ours.setblocking(False)
            await self._await_ready(ours)
            self._socket = ours
            asyncio.get_running_loop().add_reader(ours.fileno(), self._read)

    async def start_shim(self, directory: Path, secrets: Sequence[SecretValue] = ()) -> int:
        """Forks a shim for the attempt in `directory`, which gets `secrets`; a second one for the same ends by itself.
        Raises Unreachable."""
        request = os.fsencode(directory)
        if len(request) > REQUEST_BYTES_MAX:
            raise Unreachable(f"the path {directory} is too long")
        await self.start()
        connection = self._socket
        if connection is None:
            raise Unreachable("the zygote ended; it is started again at the next attempt")
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        try:
            _send(connection, request, secrets)
        except OSError as error:
            self._drop()
            raise Unreachable(f"the zygote cannot be reached: {error}") from None
        self._replies.append(reply)
        try:
            async with asyncio.timeout(REPLY_S):
                answer = await reply
        except TimeoutError:
            self._drop()
            raise Unreachable(f"the zygote did not answer within {REPLY_S:g} s") from None
        if not answer.isdigit():
            raise Unreachable(f"no shim could be started: {answer.decode(errors='replace')}")
        return int(answer)

    async def close(self) -> None:
        """Ends the zygote. Shims live on."""
        self._drop()
        await asyncio.to_thread(self._reap)

    async def _await_ready(self, connection: socket.socket) -> None:
        try:
            async with asyncio.timeout(START_S):
                answer = await asyncio.get_running_loop().sock_recv(connection, REQUEST_BYTES_MAX)
        except (TimeoutError, OSError) as error:
            connection.close()
            raise Unreachable(f"the zygote did not start: {str(error) or 'no answer'}") from None
        if answer != READY:
            connection.close()
            words = answer.decode(errors="replace") or "it ended at once"
            raise Unreachable(f"the zygote did not start: {words}")

    def _read(self) -> None:
        assert self._socket is not None
        try:
            answer = self._socket.recv(REQUEST_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        if not answer:
            self._drop()
            return
        reply = self._replies.popleft()
        if not reply.done():
            reply.set_result(answer)

    def _drop(self) -> None:
        connection, self._socket = self._socket, None
        if connection is None:
            return
        asyncio.get_running_loop().remove_reader(connection.fileno())
        connection.close()
        while self._replies:
            reply = self._replies.popleft()
            if not reply.done():
                reply.set_exception(Unreachable("the zygote ended before it answered"))

    def _reap(self) -> None:
        """Waits for a zygote whose socket is closed; it ends by that."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _send(connection: socket.socket, request: bytes, secrets: Sequence[SecretValue]) -> None:
    if not secrets:
        connection.send(request)
        return
    fd = write_memory_file(secrets)
    try:
        socket.send_fds(connection, [request], [fd])
    finally:
        os.close(fd)


def _spawn(socket_fd: int, config: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _CODE, str(socket_fd), config],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[socket_fd],
        start_new_session=True,
        env={"PATH": os.defpath, "LANG": "C.UTF-8"},
    )
