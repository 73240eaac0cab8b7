"""Fetches a file by URL: each address it leads to is looked at and pinned, redirects included; its sha256 is verified
while it streams.

In a child of its own, without rights, that dies with the shim: what a server answers is read by nobody else.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import signal
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urljoin

from runyard.host import git_source
from runyard.host.git_source import Remote, SourceRefused
from runyard.host.linux import die_with_parent, forbid_new_privileges
from runyard.host.plan import FetchRules
from runyard.host.process import Identity
from runyard.host.setup import Progress, Setup

REDIRECTS_MAX = 5
BYTES_MAX = 10 << 30
_SILENCE_S = 60.0
_CHUNK_BYTES = 256 * 1024
_REDIRECTS = (301, 302, 303, 307, 308)
Report = Callable[[Mapping[str, Any]], None]


class DownloadFailed(Exception):
    """The message says what went wrong, and holds no credentials."""


def download(
    url: str,
    target_fd: int,
    *,
    sha256: str,
    rules: FetchRules,
    identity: Identity,
    setup: Setup,
    bytes_max: int = BYTES_MAX,
    headers: Mapping[str, str] | None = None,
    post: bytes | None = None,
) -> None:
    """Writes the verified content; what is there after an error is none. `sha256` empty verifies nothing, `post` asks
    with a body. Raises DownloadFailed, SetupEnded."""
    authorities = _read_authorities(rules)
    request = _Request(url, headers or {}, post)
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _be_the_child(write_end, identity, lambda report: _fetch(
            request, target_fd, sha256=sha256, rules=rules, authorities=authorities, bytes_max=bytes_max, report=report
        ))  # fmt: skip
    os.close(write_end)
    try:
        _follow(read_end, url, setup)
    finally:
        os.close(read_end)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _follow(read_end: int, url: str, setup: Setup) -> None:
    unfinished = b""
    while True:
        setup.wait_readable(read_end)
        data = os.read(read_end, 64 * 1024)
        if not data:
            raise DownloadFailed("the fetch ended without a word")
        *lines, unfinished = (unfinished + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "error" in said:
                raise DownloadFailed(said["error"])
            if "done" in said:
                return
            done, total = said["bytes"], said["of"]
            fraction = min(1.0, done / total) if total else None
            name = git_source.redact(url).partition("?")[0].rpartition("/")[2][:100]
            setup.report(
                Progress(text=f"fetching {name}", fraction=fraction, done_bytes=done, total_bytes=total)
            )


def _read_authorities(rules: FetchRules) -> str:
    if rules.ca_file is None:
        return ""
    try:
        with open(rules.ca_file, encoding="ascii") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise DownloadFailed(f"the pool's git_ca_file {rules.ca_file} cannot be read: {error}") from None


# -- in the child ---------------------------------------------------------------------------------------------------


class _Request:
    """What is asked for, and with what: headers go to the first host only."""

    def __init__(self, url: str, headers: Mapping[str, str], post: bytes | None) -> None:
        self.url = url
        self.headers = headers
        self.post = post


def _be_the_child(write_end: int, identity: Identity, work: Callable[[Report], None]) -> None:
    def report(said: Mapping[str, Any]) -> None:
        os.write(write_end, json.dumps(said).encode() + b"\n")

    try:
        _load_library()
        _give_up_rights(identity)
        try:
            work(report)
            report({"done": True})
        except (DownloadFailed, SourceRefused) as error:
            report({"error": str(error)})
        except (
            Exception
        ) as error:  # whatever a server makes of its library is the file's failure, not the shim's
            report({"error": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(0)


def _load_library() -> None:
    """While it can still be read: our Python may lie where only its owner looks. The zygote needs none of this."""
    for name in ("encodings.idna", "http.client", "ssl"):
        importlib.import_module(name)


def _give_up_rights(identity: Identity) -> None:
    if identity.join is not None:
        identity.join()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if identity.user_id is not None:
        os.setgroups([])
        os.setresgid(identity.user_id, identity.user_id, identity.user_id)
        os.setresuid(identity.user_id, identity.user_id, identity.user_id)
    forbid_new_privileges()
    die_with_parent(signal.SIGKILL)


def _fetch(
    request: _Request,
    target_fd: int,
    *,
    sha256: str,
    rules: FetchRules,
    authorities: str,
    bytes_max: int,
    report: Report,
) -> None:
    response = _open(request, rules, authorities)
    length = response.getheader("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    if total is not None and total > bytes_max:
        raise DownloadFailed(f"it has {total} bytes, more than {bytes_max}")
    told, done = hashlib.sha256(), 0
    while chunk := response.read(_CHUNK_BYTES):
        done += len(chunk)
        if done > bytes_max:
            raise DownloadFailed(f"it has more than {bytes_max} bytes")
        told.update(chunk)
        while chunk:
            chunk = chunk[os.write(target_fd, chunk) :]
        report({"bytes": done, "of": total})
    if total is not None and done < total:
        raise DownloadFailed(f"the server ended it after {done} of {total} bytes")
    if sha256 and told.hexdigest() != sha256:
        raise DownloadFailed(f"its sha256 is {told.hexdigest()}, not {sha256}")


def _open(request: _Request, rules: FetchRules, authorities: str) -> Any:
    """The response of whom the redirects lead to."""
    url, headers, post = request.url, dict(request.headers), request.post
    for _ in range(REDIRECTS_MAX + 1):
        remote = _allowed(url, rules)
        response = _ask(remote, headers, post, rules, authorities)
        if response.status == 200:
            return response
        location = response.getheader("Location", "")
        if response.status not in _REDIRECTS or not location:
            raise DownloadFailed(f"{_shown(remote)}: the server answered {response.status} {response.reason}")
        following = urljoin(remote.url, location)
        if _allowed(following, rules).host != remote.host:
            headers = {}
        url, post = following, None
    raise DownloadFailed(f"it is redirected more than {REDIRECTS_MAX} times")


def _allowed(url: str, rules: FetchRules) -> Remote:
    remote = git_source.parse_url(url)
    if remote.protocol not in ("http", "https") or remote.protocol not in rules.protocols:
        allowed = [each for each in rules.protocols if each in ("http", "https")]
        raise DownloadFailed(
            f"{_shown(remote)}: the protocol {remote.protocol!r} is not allowed on this pool; allowed are"
            f" {', '.join(allowed) or 'none'} (the pool's `git_protocols`)"
        )
    return remote


def _shown(remote: Remote) -> str:
    """What stands behind may be a signature that lets its bearer in (I11)."""
    return remote.url.partition("?")[0]


def _ask(
    remote: Remote, headers: Mapping[str, str], post: bytes | None, rules: FetchRules, authorities: str
) -> Any:
    import http.client
    import ssl

    address = git_source.pin_address(remote, rules, _resolve)
    connection = http.client.HTTPConnection(remote.host, remote.port, timeout=_SILENCE_S)
    plain = socket.create_connection((address, remote.port), timeout=_SILENCE_S)
    connection.sock = plain
    if remote.protocol == "https":
        context = ssl.create_default_context()
        if authorities:
            context.load_verify_locations(cadata=authorities)
        connection.sock = context.wrap_socket(plain, server_hostname=remote.host)
    path = "/" + remote.url.partition("://")[2].partition("#")[0].partition("/")[2]
    shown_port = "" if remote.port == (443 if remote.protocol == "https" else 80) else f":{remote.port}"
    host = f"[{remote.host}]" if ":" in remote.host else remote.host
    sent = {"Host": host + shown_port, "User-Agent": "runyard", "Accept-Encoding": "identity", **headers}
    connection.request("GET" if post is None else "POST", path, body=post, headers=sent)
    return connection.getresponse()


def _resolve(host: str, port: int) -> list[str]:
    rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in rows))[:64]
