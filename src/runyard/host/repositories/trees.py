"""Makes a work tree from a mirror: prepared once for many jobs to lie over, or for one job alone."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from runyard.host import git_source
from runyard.host.linux import boot_id
from runyard.host.plan import PlanGit
from runyard.host.removal import remove_tree
from runyard.host.repositories import locks, scripts, tree_files
from runyard.host.repositories.answers import Answer, Resolved
from runyard.host.repositories.eviction import evict, size_of
from runyard.host.repositories.fetch_sandbox import FetchSandbox, GitFailed
from runyard.host.repositories.lfs import fetch_large_files
from runyard.host.repositories.mirrors import Mirror
from runyard.host.repositories.store import PreparedTree, digest
from runyard.host.repositories.submodules import SUBMODULES_MAX, Submodule, read_submodules, submodule_url
from runyard.host.sandbox_command import Place
from runyard.host.setup import Setup, WorkspaceFailed

TREES = "git_trees"
LAYOUT = 1  # of a prepared tree; another number and none that was made before is taken
_BACKDATED_S = 10
_DEPTH_MAX = 8


class TreeMaker:
    """Makes the trees of one attempt. Raises WorkspaceFailed, SetupEnded, OSError where the disk is full."""

    def __init__(self, place: Place, setup: Setup, sandbox: FetchSandbox, store: str) -> None:
        self._place = place
        self._setup = setup
        self._sandbox = sandbox
        self._store = store
        self._submodules = 0
        self._has_added = False

    def prepare(self, git: PlanGit) -> tuple[str, str]:
        """The folder of a tree that stays as it is for as long as this process lives, and the commit in it."""
        mirror = self._mirror(git)
        while True:
            resolved, answer = mirror.find()
            tree = mirror.folder.tree(_tree_name(git, resolved, answer))
            use = "hit"
            lock = locks.take(tree.lock, shared=True, wait=self._setup.wait_readable)
            if not _is_ready(tree):
                os.close(lock)
                lock = locks.take(tree.lock, wait=self._setup.wait_readable)
                if not _is_ready(tree):
                    use = "made"
                    self._make_prepared(mirror, git, tree)
                locks.share(lock)
            if _is_ready(tree):
                self._setup.note_use(TREES, use)
                os.utime(tree.lock)
                return tree.files, resolved.commit  # the lock is held by this process until its end
            os.close(lock)  # removed between the two locks, or made of a later answer

    def make_own(self, git: PlanGit, target: str, *, owner: int | None) -> str:
        """Fills `target`, which is the job's alone. Returns the commit."""
        resolved, _ = self._fill(self._mirror(git), git, target, owner=owner, link=False)
        self._setup.note_use(TREES, "made")
        return resolved.commit

    def evict(self, bytes_max: int) -> None:
        """After something was added. What cannot be removed now is tried again by the next."""
        if self._has_added:
            with contextlib.suppress(OSError):
                evict(self._store, bytes_max)

    def _mirror(self, git: PlanGit) -> Mirror:
        return Mirror(self._place, self._setup, self._sandbox, git, self._store)

    def _make_prepared(self, mirror: Mirror, git: PlanGit, tree: PreparedTree) -> None:
        target = tree.begin()
        owner = self._sandbox.user_id
        if owner is not None:
            os.chown(target, owner, owner)
        near = _nearest(mirror, git)
        try:
            resolved, answer = self._fill(mirror, git, target, owner=owner, link=True, near=near)
        finally:
            if near is not None:
                os.close(near[1])
        if tree.path != mirror.folder.tree(_tree_name(git, resolved, answer)).path:
            remove_tree(tree.draft)  # the ref was moved meanwhile, and this is not what was asked for
            return
        about = {
            "commit": resolved.commit,
            "options": _options(git),
            "bytes": size_of(tree.draft, own_only=True),
            "boot_id": boot_id(),
        }
        tree.publish(about)

    def _fill(
        self,
        mirror: Mirror,
        git: PlanGit,
        target: str,
        *,
        owner: int | None,
        link: bool,
        near: tuple[PreparedTree, int] | None = None,
    ) -> tuple[Resolved, Answer]:
        """A tree that cannot be checked out tells of a damaged mirror, which is made again, once."""
        at = _Target(target, ".", owner=owner, link=link)
        try:
            return self._fill_once(mirror, git, at, near)
        except GitFailed as error:
            if not mirror.repair():
                raise mirror.failed(error) from None
        _empty(target)
        try:
            return self._fill_once(mirror, git, at, None)
        except GitFailed as error:
            raise mirror.failed(error) from None

    def _fill_once(
        self, mirror: Mirror, git: PlanGit, at: _Target, near: tuple[PreparedTree, int] | None, depth: int = 0
    ) -> tuple[Resolved, Answer]:
        """Raises GitFailed."""
        self._has_added = True
        lock, resolved, answer = mirror.hold()
        try:
            with tree_files.open_folder(at.root, at.path) as folder:
                tree_files.write_git_folder(
                    folder,
                    owner=at.owner,
                    commit=resolved.commit,
                    branch=resolved.branch,
                    url=mirror.remote.url,
                    visible=resolved.visible,
                    head=answer.head,
                )
                tree_files.add_objects(mirror.folder.mirror, folder, owner=at.owner, link=at.link)
        finally:
            os.close(lock)
        if near is not None:
            tree_files.add_from_tree(near[0].files, at.root, owner=at.owner)
        env = git_source.environment(mirror.remote, self._place.plan.fetch, None)
        made_at = int(time.time()) - _BACKDATED_S
        self._run(scripts.check_out(at.path, made_at=made_at, sparse=git.sparse), at, env)
        if git.lfs:
            fetch_large_files(
                self._place, self._setup, self._sandbox, mirror, at.root, at.path, owner=at.owner
            )
        if git.submodules:
            self._fill_submodules(mirror, git, at, env, depth)
        return resolved, answer

    def _run(self, script: tuple[str, ...], at: _Target, env: dict[str, str]) -> None:
        self._sandbox.run(script, at.root, env=env, user_id=at.owner)

    # -- submodules ---------------------------------------------------------------------------------------------

    def _fill_submodules(
        self, mirror: Mirror, git: PlanGit, at: _Target, env: dict[str, str], depth: int
    ) -> None:
        """Each is a repository of its own, under the same rules and this tenant's rights."""
        self._run(scripts.list_submodules(at.path), at, env)
        found = read_submodules(
            self._sandbox.read("entries", 64 << 20), self._sandbox.read("modules", 1 << 20)
        )
        self._submodules += len(found)
        if self._submodules > SUBMODULES_MAX or (found and depth >= _DEPTH_MAX):
            raise WorkspaceFailed(
                f"workspace.git.submodules: more than {SUBMODULES_MAX}, or nested deeper than {_DEPTH_MAX}"
            )
        for module in found:
            try:
                self._fill_submodule(mirror, git, at, module, depth)
            except WorkspaceFailed as error:
                raise WorkspaceFailed(f"submodule {module.path}: {error}") from None
            self._run(scripts.add_submodule(at.path, module.name, module.url, module.path), at, env)

    def _fill_submodule(
        self, mirror: Mirror, git: PlanGit, at: _Target, module: Submodule, depth: int
    ) -> None:
        url = submodule_url(mirror.remote.url, module.url)
        inner = replace(git, url=url, ref=module.commit, sparse=(), fetch_tags=False)
        beneath = replace_path(at, f"{at.path}/{module.path}")
        mirror_of_it = self._mirror(inner)
        try:
            self._fill_once(mirror_of_it, inner, beneath, None, depth + 1)
        except GitFailed as error:
            raise mirror_of_it.failed(error) from None


class _Target:
    """Where a tree comes to lie: `path` beneath `root`, which alone is ours to believe."""

    def __init__(self, root: str, path: str, *, owner: int | None, link: bool) -> None:
        self.root = root
        self.path = path
        self.owner = owner
        self.link = link


def replace_path(at: _Target, path: str) -> _Target:
    return _Target(at.root, path, owner=at.owner, link=at.link)


def _is_ready(tree: PreparedTree) -> bool:
    """What was made before the host was started again may lack what the disk had not yet taken."""
    about = tree.about()
    return about is not None and about["boot_id"] == boot_id()


def _options(git: PlanGit) -> Mapping[str, Any]:
    return {"sparse": list(git.sparse), "submodules": git.submodules, "lfs": git.lfs}


def _tree_name(git: PlanGit, resolved: Resolved, answer: Answer) -> str:
    """Everything that shapes a tree, the refs that its jobs see included."""
    refs = {**asdict(resolved), "head": answer.head}
    return digest({"layout": LAYOUT, "resolved": refs, "options": _options(git)})


def _nearest(mirror: Mirror, git: PlanGit) -> tuple[PreparedTree, int] | None:
    """The tree used last with the same options, and its lock: most of it will be the same."""
    if git.submodules or git.lfs:
        return None
    for tree in mirror.folder.trees():
        about = tree.about()
        if about is None or about["options"] != _options(git) or about["boot_id"] != boot_id():
            continue
        lock = locks.try_take(tree.lock, shared=True)
        if lock is not None:
            return tree, lock
    return None


def _empty(folder: str) -> None:
    for name in os.listdir(folder):
        remove_tree(f"{folder}/{name}")
