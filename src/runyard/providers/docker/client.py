"""The daemon's API behind few verbs: plain values in and out, every call bounded, errors in the words of the port.

The only module that knows aiodocker, which comes with the extra `docker` and is imported at the first connection. Its
`_query` is used where its own verbs would decode a log as text or hold an archive in memory.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib
import io
import json
import os
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from runyard.model.errors import ConfigError, ProviderDenied, RunyardError, Unreachable

CALL_S = 10.0
"""A call that the daemon answers from what it knows."""
CREATE_S = 8.0
"""A create or start of a container: less than what is left of a lease just before it is renewed (12 of 15 seconds)."""
EFFECT_S = 25.0
"""Any other effect: less than the 30 seconds after which dispatch concludes nothing."""
DEFAULT_HOST = "unix:///var/run/docker.sock"
_FRAME_BYTES = 8
_CHUNK_BYTES = 256 * 1024

Document = Mapping[str, Any]


class Refused(RunyardError):
    """The daemon answered with an error: `status` is HTTP's, the message the daemon's own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NameTaken(Refused):
    """A container of that name is there."""


class Missing(Refused):
    """No such container, image, volume, path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files of a client's TLS: whom to believe, and who we are."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A container as a listing shows it. `state` is created, running, exited, …; `created_at` in epoch seconds."""

    name: str
    state: str
    created_at: float
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Frame:
    """A piece of a container's log: `stdout` or `stderr`, and the bytes."""

    stream: str
    data: bytes


class DockerClient:
    """A connection to one daemon. Every verb raises Unreachable where there was no answer in time, ProviderDenied where
    we may not ask, Refused (NameTaken, Missing) where the daemon said no."""

    def __init__(self, host: str, tls: Tls | None = None) -> None:
        self.host = host
        self._aiohttp = _library("aiohttp")
        aiodocker = _library("aiodocker")
        self._error: type[Exception] = aiodocker.DockerError
        self._connector = self._connect(host, tls)
        url = "unix://localhost" if host.startswith("unix://") else _web_address(host, tls)
        self._docker = aiodocker.Docker(url=url, connector=self._connector)

    async def close(self) -> None:
        await self._docker.close()
        await self._connector.close()

    async def __aenter__(self) -> DockerClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- the daemon -----------------------------------------------------------------------------------------------

    async def version(self) -> Document:
        return await self._document("version", versioned_api=False)

    async def info(self) -> Document:
        return await self._document("info")

    async def ping(self, within_s: float) -> None:
        await self._bytes("_ping", within_s=within_s, versioned_api=False)

    # -- containers -----------------------------------------------------------------------------------------------

    async def create_container(self, name: str, config: Document) -> None:
        """Raises NameTaken, Missing (the image)."""
        await self._json(
            "containers/create", "POST", params={"name": name}, data=dict(config), within_s=CREATE_S
        )

    async def rename_container(self, name: str, new: str) -> None:
        """Done before is done."""
        with contextlib.suppress(Missing, NameTaken):
            await self._bytes(f"containers/{name}/rename", "POST", params={"name": new}, within_s=CALL_S)

    async def start_container(self, name: str) -> None:
        """One that runs already is started."""
        await self._bytes(f"containers/{name}/start", "POST", within_s=CREATE_S)

    async def inspect_container(self, name: str) -> Document | None:
        try:
            return await self._document(f"containers/{name}/json")
        except Missing:
            return None

    async def list_containers(
        self, *, labels: Mapping[str, str] | None = None, name: str | None = None
    ) -> list[Listed]:
        """All of them, running or not. `name` is a part of theirs."""
        filters: dict[str, list[str]] = {"label": [f"{key}={value}" for key, value in (labels or {}).items()]}
        if name is not None:
            filters["name"] = [name]
        params = {"all": "1", "filters": json.dumps(filters)}
        rows = await self._json("containers/json", params=params, within_s=CALL_S)
        return [
            Listed(
                name=row["Names"][0].lstrip("/"),
                state=row["State"],
                created_at=float(row["Created"]),
                labels=row.get("Labels") or {},
            )
            for row in rows
            if row.get("Names")  # one that is being removed has none
        ]

    async def kill_container(self, name: str, signal: str = "KILL") -> None:
        """One that does not run, or is not there, is as killed."""
        with contextlib.suppress(Missing, NameTaken):
            await self._bytes(f"containers/{name}/kill", "POST", params={"signal": signal}, within_s=EFFECT_S)

    async def execute(self, name: str, command: Sequence[str]) -> None:
        """Starts a command beside the container's own and leaves it. Raises NameTaken (a conflict) where the container
        does not run."""
        config = {"Cmd": list(command), "AttachStdout": False, "AttachStderr": False}
        made = await self._json(f"containers/{name}/exec", "POST", data=config, within_s=CALL_S)
        await self._bytes(f"exec/{made['Id']}/start", "POST", data={"Detach": True}, within_s=EFFECT_S)

    async def ask(self, name: str, command: Sequence[str], *, within_s: float) -> int | None:
        """The exit code of a command beside the container's own; None: it has not ended in time. Raises Missing,
        NameTaken (a conflict) where the container does not run."""
        config = {"Cmd": list(command), "AttachStdout": False, "AttachStderr": False}
        made = await self._json(f"containers/{name}/exec", "POST", data=config, within_s=CALL_S)
        await self._bytes(f"exec/{made['Id']}/start", "POST", data={"Detach": True}, within_s=EFFECT_S)
        ends_at, pause_s = time.monotonic() + within_s, 0.01
        while True:
            seen = await self._document(f"exec/{made['Id']}/json")
            if not seen["Running"] and seen.get("ExitCode") is not None:
                return int(seen["ExitCode"])
            if time.monotonic() > ends_at:
                return None
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.2)

    async def list_commands(self, name: str) -> list[str]:
        """The command lines of the processes in a container. Raises NameTaken (a conflict) where it does not run."""
        params = {"ps_args": "-eo pid,args"}  # by default the daemon's ps cuts lines at 80 columns
        answer = await self._json(f"containers/{name}/top", params=params, within_s=CALL_S)
        return [row[-1] for row in answer.get("Processes") or ()]

    async def remove_container(self, name: str) -> None:
        """With its anonymous volumes, running or not; missing is success."""
        with contextlib.suppress(Missing):
            try:
                await self._bytes(
                    f"containers/{name}", "DELETE", params={"force": "1", "v": "1"}, within_s=EFFECT_S
                )
            except NameTaken:  # it is being removed already: not for us to wait
                if await self.inspect_container(name) is not None:
                    raise Unreachable(f"container {name} is still being removed") from None

    async def wait_container(self, name: str, within_s: float) -> bool:
        """Returns whether it ended within the time."""
        params = {"condition": "not-running"}
        try:
            await self._bytes(f"containers/{name}/wait", "POST", params=params, within_s=within_s)
        except Unreachable:
            return False
        return True

    @contextlib.asynccontextmanager
    async def feeding(self, name: str) -> AsyncIterator[Feed]:
        """Holds the container's standard input, from before its start."""
        async with contextlib.AsyncExitStack() as stack:
            async with self._bounded(EFFECT_S, f"attach to {name}"):
                stream = self._docker.containers.container(name).attach(stdin=True)
                await stack.enter_async_context(stream)
            yield Feed(stream)

    async def follow_log(self, name: str) -> AsyncGenerator[list[Frame], None]:
        """The container's log from its beginning, in pieces as they arrive, each frame led by the daemon's time and a
        blank, until the container ends. Ends early, without a word, where the connection does."""
        params = {"stdout": "1", "stderr": "1", "follow": "1", "timestamps": "1"}
        response = await self._open(f"containers/{name}/logs", params=params)
        held = b""
        try:
            while chunk := await response.content.readany():
                frames, held = _take_frames(held + chunk)
                if frames:
                    yield frames
        except (self._aiohttp.ClientError, ConnectionError):
            return
        finally:
            response.close()

    async def get_archive(self, name: str, path: str) -> AsyncGenerator[bytes, None]:
        """A tar of what lies at the path. Raises Missing; Unreachable where the daemon falls silent."""
        response = await self._open(f"containers/{name}/archive", params={"path": path})
        try:
            while True:
                async with self._bounded(EFFECT_S, f"read {path} of {name}"):
                    chunk = await response.content.read(_CHUNK_BYTES)
                if not chunk:
                    return
                yield chunk
        finally:
            response.close()

    # -- images ---------------------------------------------------------------------------------------------------

    async def inspect_image(self, name: str) -> Document | None:
        try:
            return await self._document(f"images/{name}/json")
        except Missing:
            return None

    async def pull_image(
        self, repository: str, digest: str, auth: Mapping[str, str] | None
    ) -> AsyncGenerator[Document, None]:
        """The daemon's progress. Raises Refused with the registry's words."""
        headers = {}
        if auth is not None:
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(json.dumps(auth).encode()).decode()
        response = await self._open(
            "images/create", "POST", params={"fromImage": repository, "tag": digest}, headers=headers
        )
        try:
            async for line in response.content:
                if not line.strip():
                    continue
                row: Document = json.loads(line)
                if "error" in row:
                    raise Refused(500, str(row["error"]))
                yield row
        except (self._aiohttp.ClientError, ConnectionError) as error:
            raise Unreachable(f"{self.host}: pulling {repository} was cut off: {error}") from None
        finally:
            response.close()

    async def import_image(self, tar: bytes, *, repository: str, tag: str) -> None:
        """Makes an image of one layer."""
        params = {"fromSrc": "-", "repo": repository, "tag": tag}
        headers = {"Content-Type": "application/x-tar"}
        answer = await self._bytes(
            "images/create", "POST", params=params, data=io.BytesIO(tar), headers=headers, within_s=EFFECT_S
        )
        for line in answer.splitlines():
            row = json.loads(line) if line.strip() else {}
            if "error" in row:
                raise Refused(500, str(row["error"]))

    # -- volumes and networks -------------------------------------------------------------------------------------

    async def list_volumes(self, labels: Mapping[str, str]) -> list[tuple[str, str]]:
        """Name, and when it was made in RFC 3339."""
        filters = {"label": [f"{key}={value}" for key, value in labels.items()]}
        rows = await self._json("volumes", params={"filters": json.dumps(filters)}, within_s=CALL_S)
        return [(row["Name"], row.get("CreatedAt", "")) for row in rows.get("Volumes") or ()]

    async def remove_volume(self, name: str) -> None:
        with contextlib.suppress(Missing):
            await self._bytes(f"volumes/{name}", "DELETE", within_s=EFFECT_S)

    async def create_network(self, config: Document) -> None:
        """Raises NameTaken."""
        await self._json("networks/create", "POST", data=dict(config), within_s=EFFECT_S)

    async def list_networks(self, labels: Mapping[str, str]) -> list[tuple[str, str]]:
        """Name, and when it was made in RFC 3339."""
        filters = {"label": [f"{key}={value}" for key, value in labels.items()]}
        rows = await self._json("networks", params={"filters": json.dumps(filters)}, within_s=CALL_S)
        return [(row["Name"], row.get("Created", "")) for row in rows]

    async def remove_network(self, name: str) -> None:
        with contextlib.suppress(Missing):
            await self._bytes(f"networks/{name}", "DELETE", within_s=EFFECT_S)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _connect(self, host: str, tls: Tls | None) -> Any:
        """No bound on connections: each attempt that runs holds one or two."""
        if host.startswith("unix://"):
            return self._aiohttp.UnixConnector(host.removeprefix("unix://"), limit=0)
        context: Any = True
        if tls is not None:
            context = ssl.create_default_context(cafile=tls.ca)
            if tls.certificate is not None:
                context.load_cert_chain(tls.certificate, tls.key)
        return self._aiohttp.TCPConnector(ssl=context, limit=0)

    async def _document(self, path: str, **more: Any) -> Document:
        found: Document = await self._json(path, within_s=CALL_S, **more)
        return found

    async def _json(self, path: str, method: str = "GET", *, within_s: float, **more: Any) -> Any:
        return json.loads(await self._bytes(path, method, within_s=within_s, **more))

    async def _bytes(self, path: str, method: str = "GET", *, within_s: float, **more: Any) -> bytes:
        async with self._bounded(within_s, f"{method} {path}"):
            response = await self._ask(path, method, **more)
            try:
                body: bytes = await response.read()
            finally:
                response.release()
        return body

    async def _open(self, path: str, method: str = "GET", **more: Any) -> Any:
        """An answer whose body is read by the caller, who closes it."""
        async with self._bounded(EFFECT_S, f"{method} {path}"):
            return await self._ask(path, method, **more)

    async def _ask(self, path: str, method: str, *, data: Any = None, **more: Any) -> Any:
        if data is not None and not isinstance(data, io.BytesIO):
            data = json.dumps(data)
        return await self._docker._do_query(path, method, data=data, timeout=None, **more)

    @contextlib.asynccontextmanager
    async def _bounded(self, within_s: float, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(within_s):
                yield
        except TimeoutError:
            raise Unreachable(
                f"{self.host} did not answer within {within_s:g} s: {what}", cure="see whether dockerd hangs"
            ) from None
        except self._error as error:
            raise self._translated(error) from None
        except (self._aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(f"{self.host}: {what}: {error}") from None

    def _translated(self, error: Any) -> RunyardError:
        status, words = int(error.status), str(error.message)
        if status >= 900:
            return Unreachable(words, cure=f"see whether the daemon at {self.host} runs, and may be reached")
        match status:
            case 401 | 403:
                return ProviderDenied(f"{self.host}: {words}")
            case 404:
                return Missing(status, words)
            case 409:
                return NameTaken(status, words)
            case _:
                return Refused(status, words)


class Feed:
    """A container's standard input."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def write(self, data: bytes) -> None:
        """Raises Unreachable where the connection is gone, or the container does not take it in time."""
        try:
            async with asyncio.timeout(EFFECT_S):
                await self._stream.write_in(data)
        except (TimeoutError, OSError, RuntimeError, AssertionError) as error:
            raise Unreachable(f"its container took no more input: {error}") from None


def _take_frames(data: bytes) -> tuple[list[Frame], bytes]:
    """Those that are whole (stream, three zeros, the length in four bytes, the bytes), and the rest."""
    frames, at = [], 0
    while len(data) >= at + _FRAME_BYTES:
        end = at + _FRAME_BYTES + int.from_bytes(data[at + 4 : at + _FRAME_BYTES], "big")
        if len(data) < end:
            break
        frames.append(Frame("stderr" if data[at] == 2 else "stdout", data[at + _FRAME_BYTES : end]))
        at = end
    return frames, data[at:]


def daemon_address(configured: str | None) -> str:
    """The pool's `host`, or DOCKER_HOST, or where dockerd listens by default."""
    return configured or os.environ.get("DOCKER_HOST") or DEFAULT_HOST


def _web_address(host: str, tls: Tls | None) -> str:
    _, _, rest = host.partition("://")
    return f"{'https' if tls is not None or host.startswith('https') else 'http'}://{rest}"


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(
            f"the provider 'docker' needs the package {name}, which is not installed",
            cure="pip install 'runyard[docker]'",
        ) from None


def read_binary(path: str) -> bytes:
    """Raises ConfigError where it is not a file that we can read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"busybox = {path!r} cannot be read: {error.strerror}",
            cure="apt-get install busybox-static, or name a static busybox with the pool's key `busybox`",
        ) from None
