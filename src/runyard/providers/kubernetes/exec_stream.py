"""A command within a running container, over the API server's websocket: its output as it comes, and its exit code.

The protocol is `v5.channel.k8s.io`, or `v4` of older servers: each binary message is a channel's number and its bytes;
the error channel carries one Status at the end. A stream that ends without that Status was cut: nothing is known then.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, Protocol

from httpx2.websockets import HTTPXWSException

from runyard.model.errors import Unreachable
from runyard.providers.kubernetes.client import Document, KubernetesClient

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDERR_BYTES_MAX = 4096
_STDOUT, _STDERR, _ERROR = 1, 2, 3


class _Socket(Protocol):
    async def receive_bytes(self, timeout: float | None = None) -> bytes: ...


class CommandFailed(Unreachable):
    """It ran and said no. `exit_code` is None where it could not be started. What that means is its caller's to know;
    as it is, it proves nothing."""

    def __init__(self, message: str, *, exit_code: int | None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ExecStream:
    """The running command. Iterate `chunks` to the end: only then it is known to have succeeded."""

    def __init__(self, socket: _Socket, *, what: str, idle_s: float) -> None:
        self._socket = socket
        self._what = what
        self._idle_s = idle_s
        self.stderr = b""

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """What it prints, and nothing after a normal end. Raises CommandFailed, Unreachable where it was cut off."""
        while True:
            try:
                message = await self._socket.receive_bytes(timeout=self._idle_s)
            except TimeoutError:
                raise Unreachable(f"{self._what}: nothing came for {self._idle_s:g} s") from None
            except HTTPXWSException as error:
                raise Unreachable(f"{self._what}: cut off: {str(error) or type(error).__name__}") from None
            channel, content = message[0] if message else None, message[1:]
            if channel == _STDOUT and content:
                yield content
            elif channel == _STDERR:
                self.stderr = (self.stderr + content)[-STDERR_BYTES_MAX:]
            elif channel == _ERROR:
                self._need_success(content)
                return

    async def read(self, bytes_max: int) -> bytes:
        """All that it prints. Raises as `chunks`, and Unreachable above `bytes_max`."""
        found = b""
        async with contextlib.aclosing(self.chunks()) as chunks:
            async for chunk in chunks:
                found += chunk
                if len(found) > bytes_max:
                    raise Unreachable(f"{self._what}: it printed more than {bytes_max} bytes")
        return found

    def _need_success(self, content: bytes) -> None:
        status = _parse(content)
        if status.get("status") == "Success":
            return
        code = exit_code_of(status)
        words = self.stderr.decode(errors="replace").strip() or str(
            status.get("message") or "no reason given"
        )
        raise CommandFailed(f"{self._what}: {words}", exit_code=code)


@contextlib.asynccontextmanager
async def running_exec(
    client: KubernetesClient, pod: str, container: str, command: Sequence[str], *, idle_s: float = 60.0
) -> AsyncIterator[ExecStream]:
    """Runs `command` (argument vector, no shell). Leaving early closes the socket; the command may go on without a
    reader until it notices."""
    what = f"exec {command[0]} in {pod}/{container}"
    async with client.opening_exec(pod, container, command, protocols=PROTOCOLS) as socket:
        yield ExecStream(socket, what=what, idle_s=idle_s)


def exit_code_of(status: Document) -> int | None:
    """From the Status on the error channel; None where the command was not started at all."""
    if status.get("reason") != "NonZeroExitCode":
        return None
    causes: list[Any] = (status.get("details") or {}).get("causes") or []
    for cause in causes:
        if cause.get("reason") == "ExitCode" and str(cause.get("message", "")).isdecimal():
            return int(cause["message"])
    return None


def _parse(content: bytes) -> Document:
    try:
        status = json.loads(content)
    except ValueError:
        status = None
    if not isinstance(status, dict):
        raise Unreachable("the end of an exec is told in words that nobody knows")
    return status
