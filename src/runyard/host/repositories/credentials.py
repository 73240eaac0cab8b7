"""Which credentials a fetch is made with, and by which of them what it brought is told apart."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from runyard.host.git_source import Remote, SourceRefused, parse_url
from runyard.host.plan import PlanCredential
from runyard.host.setup import WorkspaceFailed

_FILE_BYTES_MAX = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """Values, read for one fetch. Only ever written into the memory that its sandbox sees (I11)."""

    username: str = ""
    password: str = field(default="", repr=False)
    ssh_key: bytes = field(default=b"", repr=False)
    known_hosts: bytes = b""

    @property
    def is_empty(self) -> bool:
        return not (self.username or self.password or self.ssh_key)

    def identity(self, salt: bytes) -> str:
        """Tells credentials apart without telling them."""
        if self.is_empty:
            return ""
        told = [self.username.encode(), self.password.encode(), self.ssh_key]
        words = b"".join(len(each).to_bytes(8, "big") + each for each in told)
        return hmac.new(salt, words, hashlib.sha256).hexdigest()


def credential_for(remote: Remote, offered: Sequence[PlanCredential]) -> Credential:
    """The URL's own; else the pool's for the longest address that this one begins with. Raises WorkspaceFailed where
    a file of it cannot be read."""
    if remote.protocol in ("http", "https") and remote.user + remote.password:
        return Credential(username=remote.user, password=remote.password)
    chosen = choose(remote, offered)
    if chosen is None:
        return Credential()
    return Credential(
        username=chosen.username,
        password=_read(chosen.password_file).decode(errors="replace").rstrip("\r\n"),
        ssh_key=_read(chosen.ssh_key_file),
        known_hosts=_read(chosen.known_hosts_file),
    )


def choose(remote: Remote, offered: Sequence[PlanCredential]) -> PlanCredential | None:
    """Same protocol, host and port, and the path beneath; a prefix ends where a part of the path does."""
    best: tuple[int, PlanCredential] | None = None
    for each in offered:
        try:
            prefix = parse_url(each.url)
        except SourceRefused:
            continue
        path, wanted = _path(remote), _path(prefix).rstrip("/")
        if (prefix.protocol, prefix.host, prefix.port) != (remote.protocol, remote.host, remote.port):
            continue
        if ".." in path.split("/") or "%2e" in path.lower():
            continue  # what it is beneath is for the server to say
        is_beneath = path == wanted or path.startswith(wanted + "/")
        if is_beneath and (best is None or len(wanted) > best[0]):
            best = len(wanted), each
    return None if best is None else best[1]


def _path(remote: Remote) -> str:
    """With a leading slash, whichever way an ssh address was written."""
    if "://" in remote.url:
        return "/" + remote.url.partition("://")[2].partition("/")[2]
    return "/" + remote.url.partition(":")[2].lstrip("/")


def _read(path: str | None) -> bytes:
    if path is None:
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(_FILE_BYTES_MAX)
    except OSError as error:
        raise WorkspaceFailed(
            f"workspace.git: the pool's git_credentials name {path}, which cannot be read: {error.strerror}"
        ) from None


def store_salt(store: str) -> bytes:
    """The same for the life of a store, and in no other."""
    path = os.path.join(store, "salt")
    while True:
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            return file.read()
        temporary = f"{path}.{os.getpid()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        os.unlink(temporary)
