"""docker's config.json as a source of credentials: what it says, purely, and the helpers that it names.

Source: docker login's reference (`auths`, `credHelpers`, `credsStore`) and the protocol of docker-credential-helpers:
`docker-credential-NAME get` with the server on stdin and a JSON object on stdout.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runyard.model.errors import ConfigError
from runyard.registry.reference import DEFAULT_HOST, canonical_host

HELPER_S_MAX = 15.0
HELPER_KEPT_S = 300.0
_END_S_MAX = 1.0
_HELPER_BYTES_MAX = 256 * 1024
_FILE_BYTES_MAX = 1 << 20
_DEFAULT_SERVER = "https://index.docker.io/v1/"  # what docker login calls the default registry
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_IDENTITY_USER = "<token>"


@dataclass(frozen=True, slots=True)
class Login:
    username: str
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class AskHelper:
    """The config leaves it to a program."""

    helper: str
    server: str


def read(file: Path) -> Mapping[str, Any]:
    """Raises ConfigError that says nothing of what is in the file."""
    try:
        with file.open("rb") as opened:
            document = json.loads(opened.read(_FILE_BYTES_MAX))
    except OSError as error:
        raise ConfigError(f"cannot read the docker config {file}: {error.strerror}") from None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ConfigError(f"the docker config {file} is no JSON object", cure="write it with docker login")
    return document


def look_up(config: Mapping[str, Any], host: str, repository: str) -> Login | AskHelper | None:
    """As docker does: the host's helper, else the store, else `auths`; there the longest prefix of the name wins."""
    servers = _servers(host)
    helpers = _table(config, "credHelpers")
    for server in servers:
        if isinstance(helpers.get(server), str):
            return AskHelper(helpers[server], server)
    auths = _table(config, "auths")
    login = _login(auths, servers, repository)
    store = config.get("credsStore")
    if login is None and isinstance(store, str) and store:
        return AskHelper(store, servers[0])
    return login


class Helpers:
    """Runs `docker-credential-*`, and keeps each answer for a while. Their output is never logged or shown."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[float, Login | None]] = {}

    async def ask(self, helper: str, server: str) -> Login | None:
        """None where the helper knows no login. Raises ConfigError where it cannot be run or does not answer."""
        kept = self._kept.get((helper, server))
        if kept is not None and time.monotonic() < kept[0]:
            return kept[1]
        answer = await _run(helper, server)
        if len(self._kept) >= 1000:
            self._kept.clear()
        self._kept[helper, server] = (time.monotonic() + HELPER_KEPT_S, answer)
        return answer


async def _run(helper: str, server: str) -> Login | None:
    program = f"docker-credential-{helper}"
    if not _HELPER_NAME.fullmatch(helper):
        raise ConfigError(f"the docker config names a credential helper {helper!r:.80}, which is no name")
    # The helper may need its cloud's variables; ours may hold secrets of the service.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNYARD_")}
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "get",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigError(
            f"cannot run the credential helper {program}: {error.strerror}",
            cure="install it, or put it on PATH",
        ) from None
    try:
        output = await asyncio.wait_for(_exchange(process, server), HELPER_S_MAX)
    except TimeoutError:
        raise ConfigError(f"the credential helper {program} did not answer in {HELPER_S_MAX:.0f} s") from None
    finally:
        await _end(process)
    return _answer(output, process.returncode, program, server)


async def _exchange(process: asyncio.subprocess.Process, server: str) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(
        BrokenPipeError, ConnectionResetError
    ):  # one that reads nothing may still answer
        process.stdin.write(server.encode())
        await process.stdin.drain()
    process.stdin.close()
    output = b""
    while piece := await process.stdout.read(64 * 1024):
        output += piece
        if len(output) > _HELPER_BYTES_MAX:
            return output
    await process.wait()
    return output


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends it and what it started. The pipe is read to its end first: asyncio takes no process for ended before."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.stdout is not None
    with contextlib.suppress(TimeoutError):  # where something of it lives on in a session of its own
        async with asyncio.timeout(_END_S_MAX):
            while await process.stdout.read(64 * 1024):
                pass
            await process.wait()


def _answer(output: bytes, status: int | None, program: str, server: str) -> Login | None:
    if status != 0:
        if b"credentials not found" in output.lower():
            return None
        raise ConfigError(f"the credential helper {program} failed for {server} (exit {status})")
    try:
        document = json.loads(output)
        user, secret = document["Username"], document["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError(
            f"the credential helper {program} gave no Username and Secret for {server}"
        ) from None
    return _as_login(str(user), str(secret))


def _servers(host: str) -> list[str]:
    if canonical_host(host) == DEFAULT_HOST:
        return [_DEFAULT_SERVER, "index.docker.io", "docker.io", DEFAULT_HOST]
    return [host, f"https://{host}", f"https://{host}/", f"http://{host}"]


def _login(auths: Mapping[str, Any], servers: list[str], repository: str) -> Login | None:
    for server in (
        *_with_paths(servers[-1] if servers[0] == _DEFAULT_SERVER else servers[0], repository),
        *servers,
    ):
        entry = auths.get(server)
        if isinstance(entry, dict) and (login := _entry(entry)) is not None:
            return login
    return None


def _with_paths(host: str, repository: str) -> list[str]:
    """`host/a/b`, `host/a`: the keys that containers' auth.json allows, the longest first."""
    parts = repository.split("/")
    return ["/".join((host, *parts[:count])) for count in range(len(parts), 0, -1)]


def _entry(entry: Mapping[str, Any]) -> Login | None:
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Login(_IDENTITY_USER, identity_token=token)
    packed = entry.get("auth")
    if isinstance(packed, str) and packed:
        try:
            user, colon, password = base64.b64decode(packed, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ConfigError("a docker config holds an `auth` that is no base64 text") from None
        return _as_login(user, password.rstrip("\0")) if colon else None
    name, secret = entry.get("username"), entry.get("password")
    return _as_login(name, secret) if isinstance(name, str) and isinstance(secret, str) and name else None


def _as_login(user: str, secret: str) -> Login:
    return Login(user, identity_token=secret) if user == _IDENTITY_USER else Login(user, password=secret)


def _table(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}
