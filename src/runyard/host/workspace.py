"""Makes an attempt's workspace: the repository first, then the job's own files over it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import tempfile

from runyard.host import attempt_directory as folders
from runyard.host.beneath import UnsafePath, copy_file, write_file
from runyard.host.downloads import BYTES_MAX, DownloadFailed, download
from runyard.host.idmapped import OtherOwner
from runyard.host.linux import bind
from runyard.host.plan import PlanFile, PlanGit
from runyard.host.repositories.fetch_sandbox import FetchSandbox, fetch_identity
from runyard.host.repositories.trees import TreeMaker
from runyard.host.sandbox_command import Place
from runyard.host.setup import Setup, WorkspaceFailed
from runyard.host.stage import Stage


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


def fill(place: Place, setup: Setup) -> None:
    """Raises WorkspaceFailed, SetupEnded."""
    if place.plan.git is not None:
        try:
            _check_out(place, place.plan.git, setup)
        except OSError as error:
            raise WorkspaceFailed(f"workspace.git: {error}") from None
    write_files(place, setup)


def _check_out(place: Place, git: PlanGit, setup: Setup) -> None:
    """Over a prepared tree where the host can lay one beneath; else into the job's own folder."""
    store = git.store or place.directory.file(folders.REPOSITORIES)
    os.makedirs(store, mode=0o711, exist_ok=True)
    with FetchSandbox(place, setup) as sandbox:
        trees = TreeMaker(place, setup, sandbox, store)
        commit = _lay_over(place, git, trees, sandbox.user_id)
        if commit is None:
            commit = trees.make_own(git, place.source(folders.WORKSPACE), owner=place.plan.user_id)
        if git.store is not None and git.store_bytes_max is not None:
            trees.evict(git.store_bytes_max)
    setup.say(f"checked out {commit}")


def _lay_over(place: Place, git: PlanGit, trees: TreeMaker, owner: int | None) -> str | None:
    """The commit, or None where the host cannot."""
    stage, user_id = place.stage, place.plan.user_id
    if stage is None or owner is None or user_id is None:
        return None
    with OtherOwner(owner, user_id) if owner != user_id else contextlib.nullcontext() as shown:
        tree, commit = trees.prepare(git)
        if not _lay_beneath(place, stage, tree, shown):
            return None
    return commit


def _lay_beneath(place: Place, stage: Stage, tree: str, shown: OtherOwner | None) -> bool:
    """The files must be the job's own, or it could write over them and not change their modes."""
    file = place.directory.file
    try:
        if shown is None:
            bind(tree, stage.base, read_only=True)
        else:
            shown.mount(tree, stage.base)
        stage.layer_workspace(
            file(folders.WORKSPACE), upper=file(folders.BASE_UPPER), work=file(folders.BASE_WORK)
        )
    except OSError:
        return False
    return True


def write_files(place: Place, setup: Setup) -> None:
    """The job's own files. Raises WorkspaceFailed, SetupEnded."""
    root_fd = os.open(place.directory.file(folders.WORKSPACE), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for file in place.plan.files:
            try:
                _write_file(place, setup, root_fd, file)
            except (OSError, UnsafePath, binascii.Error, DownloadFailed) as error:
                raise WorkspaceFailed(f"workspace.files: {file.path!r}: {error}") from None
    finally:
        os.close(root_fd)


def _write_file(place: Place, setup: Setup, root_fd: int, file: PlanFile) -> None:
    plan = place.plan
    if file.url is None:
        content = base64.b64decode(file.content_base64, validate=True)
        write_file(root_fd, file.path, content, owner=plan.user_id)
        return
    with tempfile.TemporaryFile(dir=place.directory.path) as fetched:
        download(
            file.url,
            fetched.fileno(),
            sha256=file.sha256 or "",
            rules=plan.fetch,
            identity=fetch_identity(place),
            setup=setup,
            bytes_max=BYTES_MAX if plan.disk.bytes_max is None else min(BYTES_MAX, plan.disk.bytes_max),
        )
        copy_file(root_fd, file.path, fetched.fileno(), owner=plan.user_id)
