"""Makes an attempt's workspace: the repository first, then the job's own files over it."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable
from pathlib import Path

from runyard.host import attempt_directory as folders
from runyard.host import git_source
from runyard.host.beneath import UnsafePath, write_file
from runyard.host.linux import bind
from runyard.host.plan import PlanGit, PlanStep
from runyard.host.sandbox import PATH
from runyard.host.sandbox_command import Extras, Place, sandboxed
from runyard.host.stage import Stage
from runyard.host.step import Command, ProgramEnd
from runyard.host.verdict import NOT_FOUND
from runyard.logs.layout import SETUP

_REPOSITORY = "/mnt"
RunProgram = Callable[[Command, str], tuple[ProgramEnd, str]]
"""Runs a command with its output in the named log streams; returns its end and the last it said on stderr."""

LookUp = Callable[[str, int], list[str]]
"""The addresses of a host and port. Raises OSError with the resolver's words, LookUpEnded."""


class LookUpEnded(Exception):
    """A request to stop, or a limit, came first; `why` is the word for it."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class WorkspaceFailed(Exception):
    """The workspace could not be made; the message is for the user."""


def make_folders(place: Place) -> None:
    """The folders that the job gets, empty and its own."""
    owner = place.plan.user_id
    for name in (folders.WORKSPACE, folders.TMP, f"{folders.TMP}/home", folders.OUTPUTS):
        path = place.directory.file(name)
        os.makedirs(path, mode=0o755, exist_ok=True)
        if owner is not None:
            os.chown(path, owner, owner)
    if place.plan.images:
        os.chmod(place.directory.file(folders.TMP), 0o1777)  # of several users, as each has it


def fill(place: Place, run: RunProgram, look_up: LookUp) -> ProgramEnd | None:
    """Raises WorkspaceFailed; returns an end only if the program was stopped by a request or a time-out."""
    if place.plan.git is not None:
        end = _clone(place, place.plan.git, run, look_up)
        if end is not None:
            return end
        if place.stage is not None:
            _layer(place, place.stage)
    _write_files(place)
    return None


def _layer(place: Place, stage: Stage) -> None:
    """The clone is a base that stays as it was fetched; what the job writes goes into a layer of its own."""
    file = place.directory.file
    stage.layer_workspace(
        file(folders.WORKSPACE),
        base=file(folders.BASE),
        upper=file(folders.BASE_UPPER),
        work=file(folders.BASE_WORK),
    )


def _clone(place: Place, git: PlanGit, run: RunProgram, look_up: LookUp) -> ProgramEnd | None:
    try:
        git_source.check_ref(git.ref)
        remote = git_source.parse_url(git.url)
        git_source.check_protocol(remote, git)
        address = None if remote.protocol == "file" else git_source.pin_address(remote, git, look_up)
    except LookUpEnded as error:
        return ProgramEnd(why=error.why)
    except git_source.SourceRefused as error:
        raise WorkspaceFailed(str(error)) from None
    readable: tuple[tuple[str, str], ...] = ()
    if address is None:
        url, readable = _bind_repository(place, git, remote.path)
    else:
        url = git_source.fetch_url(remote, address)
    env = {"PATH": PATH, "HOME": "/tmp/home", "LANG": "C.UTF-8", "TZ": "UTC"}
    env |= git_source.environment(remote, git, address)
    step = PlanStep(name=SETUP, command=tuple(git_source.script(git, url, remote.url)), env=env)
    extras = Extras(folders=readable, has_host_network=remote.protocol != "file")
    end, words = run(sandboxed(place, step, extras=extras), SETUP)
    if end.why is not None:
        return end
    if end.exit_code == 0:
        return None
    if end.exit_code == NOT_FOUND:
        raise WorkspaceFailed("git is not installed on this host; install it, or leave workspace.git away")
    last = git_source.last_words(words) or end.setup_error or f"git exited with {end.exit_code}"
    raise WorkspaceFailed(f"workspace.git: {remote.url}: {last}")


def _bind_repository(place: Place, git: PlanGit, path: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """A repository on this host, readable beneath one of the pool's roots only."""
    real = os.path.realpath(path)
    roots = [os.path.realpath(root) for root in git.file_roots]
    if not any(real == root or real.startswith(root.rstrip("/") + "/") for root in roots):
        raise WorkspaceFailed(
            f"workspace.git.url: {path} is in none of the folders that the pool's `git_file_roots` names"
        )
    if not Path(real).is_dir():
        raise WorkspaceFailed(f"workspace.git.url: {path} is no repository")
    source = real
    if place.stage is not None:
        bind(real, place.stage.repository)
        source = place.stage.repository
    return f"file://{_REPOSITORY}", ((source, _REPOSITORY),)


def _write_files(place: Place) -> None:
    root_fd = os.open(place.directory.file(folders.WORKSPACE), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for file in place.plan.files:
            try:
                content = base64.b64decode(file.content_base64, validate=True)
                write_file(root_fd, file.path, content, owner=place.plan.user_id)
            except (OSError, UnsafePath, binascii.Error) as error:
                raise WorkspaceFailed(f"workspace.files: {file.path!r}: {error}") from None
    finally:
        os.close(root_fd)
