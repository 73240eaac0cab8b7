"""Large files of a checkout (Git LFS): asked for and fetched by our own client, so that each address they lead to is
looked at like any other, and laid where `git lfs` finds them, which then writes them without a network.

Only the batch interface's `basic` transfer, and only over http and https: an ssh remote's server would have to be
asked by a program of its own (`git-lfs-authenticate`).
"""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runyard.host import git_source
from runyard.host.beneath import copy_file
from runyard.host.downloads import BYTES_MAX, DownloadFailed, download
from runyard.host.repositories import scripts
from runyard.host.repositories.credentials import Credential
from runyard.host.repositories.fetch_sandbox import FetchSandbox, GitFailed, fetch_identity
from runyard.host.repositories.mirrors import Mirror
from runyard.host.sandbox_command import Place
from runyard.host.setup import Setup, WorkspaceFailed
from runyard.host.verdict import NOT_FOUND

OBJECTS_MAX = 10_000
_BATCH = 100
_ANSWER_BYTES_MAX = 16 << 20
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-[^\n]*\n)*oid sha256:([0-9a-f]{64})\nsize (\d{1,15})\n"
)
_MEDIA = "application/vnd.git-lfs+json"


@dataclass(frozen=True, slots=True)
class LargeFile:
    oid: str
    size: int


def read_pointers(text: bytes) -> list[LargeFile]:
    """From the pointers that `git grep` and `cat` laid end to end; each once."""
    found = {match[1].decode(): int(match[2]) for match in _POINTER.finditer(text)}
    return [LargeFile(oid, size) for oid, size in sorted(found.items())]


def fetch_large_files(
    place: Place,
    setup: Setup,
    sandbox: FetchSandbox,
    mirror: Mirror,
    root: str,
    path: str,
    *,
    owner: int | None,
) -> None:
    """Raises WorkspaceFailed, GitFailed, SetupEnded."""
    env = git_source.environment(mirror.remote, place.plan.fetch, None)
    sandbox.run(scripts.list_pointers(path), root, env=env, user_id=owner)
    wanted = read_pointers(sandbox.read("pointers", OBJECTS_MAX * 400))
    if not wanted:
        return
    if len(wanted) > OBJECTS_MAX:
        raise mirror.failed(f"it has more than {OBJECTS_MAX} large files")
    if mirror.remote.protocol not in ("http", "https"):
        raise mirror.failed(
            "its large files can only be fetched over https; use its https address, or remove `lfs`"
        )
    client = _Client(place, setup, mirror)
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for begin in range(0, len(wanted), _BATCH):
            for file, action in client.ask(wanted[begin : begin + _BATCH]):
                kept = f"{path}/.git/lfs/objects/{file.oid[:2]}/{file.oid[2:4]}/{file.oid}"
                client.fetch(file, action, root_fd, kept, owner)
    except DownloadFailed as error:
        raise mirror.failed(f"large files: {error}") from None
    finally:
        os.close(root_fd)
    try:
        sandbox.run(scripts.lay_out_large_files(path), root, env=env, user_id=owner)
    except GitFailed as error:
        if error.exit_code == NOT_FOUND - 1:
            raise WorkspaceFailed(
                "git-lfs is not installed on this host; install it, or remove `lfs`"
            ) from None
        raise


class _Client:
    """Speaks to the repository's own LFS server; .lfsconfig, which a commit could point anywhere, is not read."""

    def __init__(self, place: Place, setup: Setup, mirror: Mirror) -> None:
        self._place = place
        self._setup = setup
        self._mirror = mirror
        url = mirror.remote.url.rstrip("/")
        self._url = (url if url.endswith(".git") else f"{url}.git") + "/info/lfs/objects/batch"

    def ask(self, files: list[LargeFile]) -> list[tuple[LargeFile, Mapping[str, Any]]]:
        """Where each of them is. Raises DownloadFailed, WorkspaceFailed."""
        question = {
            "operation": "download",
            "transfers": ["basic"],
            "objects": [{"oid": file.oid, "size": file.size} for file in files],
        }
        headers = {"Accept": _MEDIA, "Content-Type": _MEDIA, **_login(self._mirror.credential)}
        with tempfile.TemporaryFile(dir=self._place.directory.path) as answer:
            self._download(
                self._url,
                answer.fileno(),
                sha256="",
                headers=headers,
                post=json.dumps(question).encode(),
                bytes_max=_ANSWER_BYTES_MAX,
            )
            answer.seek(0)
            return _actions(answer.read(), files)

    def fetch(
        self, file: LargeFile, action: Mapping[str, Any], root_fd: int, kept: str, owner: int | None
    ) -> None:
        headers = {str(name): str(value) for name, value in dict(action.get("header") or {}).items()}
        if any(set(name + value) & set("\r\n\0") for name, value in headers.items()):
            raise DownloadFailed("the server names headers that are none")
        with tempfile.TemporaryFile(dir=self._place.directory.path) as content:
            self._download(
                str(action.get("href", "")),
                content.fileno(),
                sha256=file.oid,
                headers=headers,
                post=None,
                bytes_max=min(file.size, self._bytes_max),
            )
            copy_file(root_fd, kept, content.fileno(), owner=owner)

    @property
    def _bytes_max(self) -> int:
        return self._place.plan.disk.bytes_max or BYTES_MAX

    def _download(
        self,
        url: str,
        fd: int,
        *,
        sha256: str,
        headers: Mapping[str, str],
        post: bytes | None,
        bytes_max: int,
    ) -> None:
        download(
            url,
            fd,
            sha256=sha256,
            rules=self._place.plan.fetch,
            identity=fetch_identity(self._place),
            setup=self._setup,
            bytes_max=bytes_max,
            headers=headers,
            post=post,
        )


def _login(credential: Credential) -> dict[str, str]:
    if not (credential.username or credential.password):
        return {}
    words = f"{credential.username}:{credential.password}".encode()
    return {"Authorization": "Basic " + base64.b64encode(words).decode()}


def _actions(answer: bytes, files: list[LargeFile]) -> list[tuple[LargeFile, Mapping[str, Any]]]:
    try:
        objects = {each["oid"]: each for each in json.loads(answer)["objects"]}
        found: list[tuple[LargeFile, Mapping[str, Any]]] = []
        for file in files:
            each = objects.get(file.oid, {})
            if "error" in each:
                raise DownloadFailed(
                    f"{file.oid}: {str(each['error'].get('message', 'it cannot be had'))[:200]}"
                )
            found.append((file, dict(each["actions"]["download"])))
        return found
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DownloadFailed("the server's answer is none that Git LFS knows") from None
